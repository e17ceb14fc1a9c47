"""What a run holds: tables, directions, figures, and its model."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from jaxtyping import Float, Float32

from probes.errors import RunFolderError, UsageError
from probes.lineage import NO_WITNESS, Member
from probes.run.inputs import WITNESS, MeasuredFolder
from probes.statistics import Estimate
from probes.store import ACTIVATIONS, ALIGNED, RENAMED, activations_stage, current_name, files_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from probes.directions.vectors import Owner, Vectors
    from probes.models import ModelHost, UnopenedModel
    from probes.models.checkpoint_folders import CheckpointFolders

REVERSIONS = ("reversion", "reversion_did")  # directions that every run with a witness has
ABLATION = "ablated"  # the direction that is taken out of an ablated witness
DRIFT_COLUMNS = ("checkpoint", "arm", "seed", "step", "layer", "statistic", "value", "low", "high", "reason")
ByStep = dict[tuple[str, int, int], dict[int, dict[str, Estimate]]]  # (arm, seed, layer) -> step -> statistic


class Run(MeasuredFolder):
    """One run: open it to read with `Run(path)`, to write with `Run.writing(path)`."""

    def __repr__(self) -> str:
        model, config = self.manifest.model, self.manifest.config
        depth = f"{model.get('n_layers', '?')} layers × {model.get('d_model', '?')}"
        count = len(self.manifest.checkpoints)
        return (
            f"Run({self.manifest.name!r}, {self.manifest.status}, {count} checkpoints, {depth}, "
            f"headline layer {config.get('headline_layer', '?')})"
        )

    @classmethod
    @contextmanager
    def writing(cls, path: Path | str, *, name: str | None = None) -> Iterator[Self]:
        """As `RunFolder.writing`.

        Raises:
            RunFolderError: another process writes to it, it is packed, or the folder holds something that is no run.
        """
        with super().writing(path, name=name) as run:
            if run.manifest.omitted:
                raise RunFolderError(
                    f"{path} is a packed run, which is only read",
                    got=f"{len(run.manifest.omitted)} files left out",
                    next_step="Make the whole run: the commands are in its report.",
                )
            yield run

    # What it holds -------------------------------------------------------------------------------------------

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

    # Directions ----------------------------------------------------------------------------------------------

    @property
    def directions(self) -> list[str]:
        """Names of the directions at the aligned model: fitted, and brought from elsewhere."""
        return self.directions_at(ALIGNED)

    def directions_at(self, checkpoint: str) -> list[str]:
        """Names of the directions that are kept for a checkpoint."""
        from probes.directions import METHODS

        folder = self.direction_path("any", checkpoint).parent
        stems = {path.stem for path in folder.glob("*.safetensors")}
        methods = [name for name in METHODS if stems & files_of(name)]
        return methods + sorted(stems.difference(*map(files_of, methods)))

    def direction(self, name: str, checkpoint: str = ALIGNED) -> Vectors:
        """A direction as it is at a checkpoint.

        Raises:
            LineageError: the run has no such checkpoint.
            RunFolderError: it is not there (those that are, are named), is damaged or has changed.
        """
        from probes.directions.vectors import Vectors

        name = current_name(name)
        path = self.direction_path(name, checkpoint)
        self.check(path)
        if not path.is_file():
            if self.manifest.lineage:
                self.lineage.ref(checkpoint)
            reason = self._why_undefined(name, checkpoint)
            raise RunFolderError(
                f"{self.path} has no direction {name!r} at {checkpoint}",
                got=reason,
                expected=", ".join(self.directions_at(checkpoint)) or "none is fitted there",
                next_step=None if reason else f"Fit them: gravity-probe directions fit {self.path}.",
            )
        vectors = Vectors.read(path)
        return replace(vectors, name=RENAMED.get(vectors.name, vectors.name))

    def _why_undefined(self, name: str, checkpoint: str) -> str | None:
        """Why a direction that was looked for is not defined at a checkpoint; None where it was not looked for."""
        if name in REVERSIONS and not self.has_witness:
            return f"not defined: {NO_WITNESS}"
        if not self.has_table("direction_tracks"):
            return None
        filters = [("direction", "==", name), ("checkpoint", "==", checkpoint)]
        reasons = self.read_table("direction_tracks", columns=["reason"], filters=filters)["reason"].dropna()
        return str(reasons.iloc[0]) if len(reasons) else None

    def layer_of(self, vectors: Vectors) -> int:
        """The layer that a direction is meant for: its selection's, else its only one, else the headline layer."""
        if vectors.declared_layer is not None:
            return vectors.declared_layer
        return vectors.layers[0] if len(vectors.layers) == 1 else self.headline_layer

    @property
    def owner(self) -> Owner:
        """The model that the run's directions belong to: any checkpoint of its lineage, which shares one basis."""
        from probes.directions.vectors import Owner

        model, checkpoints = self.manifest.model, self.manifest.checkpoints
        return Owner(
            int(model["d_model"]),
            int(model["n_layers"]),
            frozenset(filter(None, (str(about.get("weights_sha256", "")) for about in checkpoints.values()))),
            str(checkpoints.get(ALIGNED, {}).get("place", "the run's model")),
        )

    # Its model -----------------------------------------------------------------------------------------------

    def model(self, device: str | None = None) -> ModelHost:
        """The aligned model, opened as the run's settings say; any checkpoint of the lineage can be put in its place.

        Args:
            device: where it runs, whole; None is as the run was measured, spread over several where it was.

        Raises:
            CheckpointError: it is no longer where it was, or cannot be read.
        """
        from probes.models import ModelHost, Placement

        settings = self.settings
        device_map = settings.device_map if device in (None, "auto") else None
        host = ModelHost(
            self.lineage.aligned,
            device=Placement(device or settings.device, device_map, settings.quantize),
            dtype=settings.dtype,
            allow_pickle=settings.allow_pickle,
            allow_unrelated=settings.allow_unrelated,
        )
        self.equip(host)
        return host

    def unopened_model(self, device: str | None = None) -> UnopenedModel:
        """The aligned model's tokenizer, context and hashes; its weights are loaded once they are needed.

        Args:
            device: as of `model`.

        Raises:
            CheckpointError: it is no longer where it was, or cannot be read.
        """
        from probes.models import UnopenedModel

        opener = functools.partial(self.model, device)
        unopened = UnopenedModel(self.lineage.aligned, opener, allow_pickle=self.settings.allow_pickle)
        self.equip(unopened)
        return unopened

    def equip(self, host: CheckpointFolders) -> None:
        """Tell a model that was opened for this lineage what the run knows of its witness by now."""
        witness = self.lineage.witness
        if witness is not None and not witness.is_estimate:
            mirrors = [str(member.ref.adapter) for member in self.members if member.reference == WITNESS]
            host.starts = dict.fromkeys(mirrors, witness)
        elif witness is not None and ABLATION in self.manifest.stages:
            host.ablation.direction = self.ablated_direction

    @property
    def ablated_direction(self) -> Float[np.ndarray, " d_model"]:
        """The refusal direction that is taken out of the aligned model where it stands in for the witness.

        Raises:
            RunFolderError: none is selected.
        """
        vectors = self.direction(ABLATION)
        return vectors.at(self.layer_of(vectors))[0]

    def tuned_member(self, checkpoint: str | None) -> Member:
        """A fine-tuned checkpoint by its name; None is the last step of the first trajectory.

        Raises:
            RunFolderError: the run has none.
            UsageError: it has, and this is none of them.
        """
        if not self.tuned:
            raise RunFolderError(f"{self.path} has no fine-tuned checkpoint")
        if checkpoint is None:
            first = self.lineage.trajectories[0]
            checkpoint = first.checkpoint_id(first.checkpoints[-1].step)
        by_name = {member.id: member for member in self.tuned}
        if checkpoint not in by_name:
            raise UsageError(
                "This is no fine-tuned checkpoint of the run", got=checkpoint, expected=", ".join(list(by_name)[-6:])
            )
        return by_name[checkpoint]

    # Stages --------------------------------------------------------------------------------------------------

    def input_of(self, need: str) -> Any:
        """The fingerprint of what a stage needs: a finished stage's, `activations`, those of every member, or
        `witness`, the witness's activations where there is one.

        Raises:
            RunFolderError: that stage is not finished.
        """
        if need == ACTIVATIONS:
            return sorted(self.keys.items())
        if need == WITNESS:
            return self.input_of(activations_stage(WITNESS)) if self.has_witness else NO_WITNESS
        if need == "measured":
            return sorted((member.id, self.keys[member.id]) for member in self.measured)
        made_from = self.made_from(need)
        if made_from is None:
            raise RunFolderError(f"{self.path} has no {need} yet", next_step="Run gravity-probe measure first.")
        return made_from
