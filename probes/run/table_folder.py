"""The tables of a run as frames, estimates and a figure; its activations and verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from probes.errors import RunFolderError, UsageError
from probes.run.inputs import WITNESS, MeasuredFolder
from probes.statistics import Estimate

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

DRIFT_COLUMNS = ("checkpoint", "arm", "seed", "step", "layer", "statistic", "value", "low", "high", "reason")
ByStep = dict[tuple[str, int, int], dict[int, dict[str, Estimate]]]  # (arm, seed, layer) -> step -> statistic


class TableFolder(MeasuredFolder):
    """A run folder whose tables are read by name, or by what they hold."""

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run folder, e.g. `drift`, `nulls`, `behaviour`, `completions`.

        Raises:
            RunFolderError: it is not there (those that are, are named), is damaged or has changed.
        """
        path = self.path / f"{name}.parquet"
        self.check(path)
        if not path.is_file():
            names = ", ".join(sorted(table.stem for table in self.path.glob("*.parquet")))
            raise RunFolderError(f"{self.path} has no table {name!r}", expected=names or "none is written yet")
        return self.read_table(name)

    def activations(self, checkpoint: str, layer: int) -> Float32[np.ndarray, "prompt d_model"]:
        """Activations of a checkpoint behind block `layer`, in the order of the prompts; −1 is the embedding.

        Raises:
            LineageError: the run has no such checkpoint.
            UsageError: it has no such layer.
            RunFolderError: the file is left out of a packed run, damaged, or has changed.
        """
        if not self.activations_path(checkpoint).exists() and self.manifest.lineage:
            self.lineage.ref(checkpoint)
        return self.activation_file(checkpoint).layer(layer)

    def witness_activations(self, layer: int) -> Float32[np.ndarray, "prompt d_model"] | None:
        """Activations of the witness behind block `layer`; None where the run has none."""
        return self.activations(WITNESS, layer) if self.has_witness else None

    def drift(
        self,
        arm: str | None = None,
        statistic: str | None = None,
        *,
        layer: int | None = None,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Every statistic of drift, a row a checkpoint, layer and statistic; arguments leave rows out.

        Args:
            arm: e.g. `baseline`.
            statistic: e.g. `return_fraction`.
            layer: a block; −1 is the embedding.
            seed: of the trajectory.

        Returns:
            Columns checkpoint, arm, seed, step, layer, statistic, value, low, high (95 % interval over prompts), and
            reason, which says why a statistic is not defined.

        Raises:
            UsageError: the table has no such arm, statistic, layer or seed at all.
        """
        values = {"arm": arm, "statistic": statistic, "layer": layer, "seed": seed}
        filters = [(name, "==", value) for name, value in values.items() if value is not None]
        frame = self.read_table("drift", columns=DRIFT_COLUMNS, filters=filters or None)
        if frame.empty:
            self._refuse_absent({name: value for name, value in values.items() if value is not None})
        return frame

    def _refuse_absent(self, values: dict[str, Any]) -> None:
        """Refuse a value that no row of the drift table has in its column."""
        columns = self.read_table("drift", columns=list(values) or ["arm"])
        for name, value in values.items():
            known = columns[name].unique().tolist()
            if value not in known:
                raise UsageError(
                    f"The drift table has no such {name}", got=repr(value), expected=", ".join(map(str, known))
                )

    def nulls(self, layer: int | None = None) -> pd.DataFrame:
        """Every null of every fine-tuned checkpoint, of all blocks or of one.

        Returns:
            Columns checkpoint, arm, seed, step, layer, null, statistic, observed, limit (what the null reaches; by
            `draws` its 99th percentile or its largest draw: `statistics.limit_name`), p, p_max, draws, and where the
            run is of today's version power, defined, reason and note.
        """
        frame = self.read_table("nulls", filters=None if layer is None else [("layer", "==", layer)])
        # Runs of an earlier version call the limit p99, and hold rows of whole trajectories, which have no step.
        return frame[frame["step"] >= 0].rename(columns={"p99": "limit"}).reset_index(drop=True)

    def estimates(self, layer: int | None = None) -> ByStep:
        """The drift table as estimates by (arm, seed, layer), then step, then statistic; of blocks, or of one layer.

        Raises:
            RunFolderError: the run has no drift table.
        """
        filters = [("layer", ">=", 0) if layer is None else ("layer", "==", layer)]
        columns = ["arm", "seed", "layer", "step", "statistic", "value", "low", "high", "reason"]
        frame = self.read_table("drift", columns=columns, filters=filters).astype(object)
        frame = frame.where(frame.notna(), None)
        by_step: ByStep = {}
        for arm, seed, place, step, name, *numbers in frame.itertuples(index=False, name=None):
            by_step.setdefault((arm, seed, place), {}).setdefault(step, {})[name] = Estimate(*numbers)
        return by_step

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """The verdict of each trajectory; empty where none has been written.

        Raises:
            RunFolderError: the file is damaged.
        """
        if not self.has_json("verdict"):
            return []
        document = self.read_json("verdict")
        verdicts = document.get("trajectories") if isinstance(document, dict) else None
        if not isinstance(verdicts, list) or not all(isinstance(entry, dict) and "arm" in entry for entry in verdicts):
            raise RunFolderError(
                f"{self.path / 'verdict.json'} is not as expected",
                next_step="Write it again: gravity-probe verdict RUN.",
            )
        return verdicts

    def figure(self, statistic: str = "return_fraction", *, layer: int | None = None) -> go.Figure:
        """A statistic of every trajectory over its steps at a layer; None is the headline layer."""
        from probes.plots import style
        from probes.plots.by_step import by_step

        layer = self.headline_layer if layer is None else layer
        title = f"{style.plain(self.manifest.name)} · layer {layer}"
        return by_step(self.drift(statistic=statistic, layer=layer), statistic=statistic, subtitle=title)
