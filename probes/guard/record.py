"""The watch's run folder: begun with aligned and witness, grown by one checkpoint at each measurement.

It is a run folder like any other, so `gravity-probe summary` and the front end open it while training goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.activations import collect
from probes.behaviour.rate_tables import RATE_COLUMNS
from probes.behaviour.rates import mean_score
from probes.behaviour.refusal_score import refusal_scores, refusal_tokens
from probes.drift import check_prompts
from probes.errors import PromptError
from probes.guard.alarm import Reading
from probes.guard.model_in_training import LiveModel, undisturbed
from probes.guard.resuming import whole_checkpoints
from probes.lineage import ROLES, Lineage, Member, Trajectory
from probes.models.identity import weights_sha256
from probes.progress import Report, silent
from probes.prompts import PromptSet, Rendered, render
from probes.run import Run
from probes.stages.drift import drift_rows, estimates, with_types
from probes.stages.roles import write_roles
from probes.stages.views import write_places
from probes.statistics import Estimate
from probes.store import ALIGNED, activations_stage, fingerprint
from probes.store.settings import Settings

_STATISTICS = ("alignment", "return_fraction", "off_axis", "displacement_norm")


def begin_run(
    path: Path,
    lineage: Lineage,
    prompts: PromptSet,
    settings: Settings,
    config: dict[str, Any],
    report: Report = silent,
) -> Run:
    """Measure aligned and witness into the run folder `path`, or take up what is there.

    Raises:
        GravityError: a checkpoint, a prompt or the folder is not what it must be.
    """
    check_prompts(prompts.harmful)
    roles = Lineage(**{**dict(lineage), "trajectories": ()})
    with Run.writing(path) as run:
        if "directions" not in run.manifest.stages:
            run.begin(roles, settings, config)
            write_roles(run, run.model(), prompts, report)
    return Run(path)


class Record:
    """Measures the model in training and writes what it finds.

    Attributes:
        layer: the headline layer, at which readings are taken.
        saved: steps of which a whole checkpoint is on disk.
        rows: activations at that layer at the last measurement, [prompt, d_model].
    """

    def __init__(self, run: Run, output: Path, tokenizer: Any, *, arm: str, seed: int = 0, resumed_at: int = 0) -> None:
        """Take up a run that has begun.

        Args:
            run: the run folder that is written.
            output: where training saves its `checkpoint-N`.
            tokenizer: the aligned model's.
            arm: what this training is called.
            seed: of the training.
            resumed_at: training goes on from this step; what was recorded after it is dropped.
        """
        self._run, self._output, self._arm, self._seed = run, output, arm, seed
        self.layer = run.headline_layer
        self.rows = np.empty((0, 0))
        self._settings = run.settings
        self._noise = run.read_table("noise").set_index("layer")["noise"]
        self._prompts = run.prompts
        self._tokenizer = tokenizer
        self._rendered: Rendered | None = None
        self._tables = {name: self._earlier_rows(name, resumed_at) for name in ("drift", "behaviour")}
        self.saved = [checkpoint.step for checkpoint in whole_checkpoints(output) if checkpoint.step <= resumed_at]
        self._openings = _openings(tokenizer)

    def measure(self, live: LiveModel, step: int) -> Reading:
        """Read the model as it is now, and append it to the run.

        Raises:
            ActivationError: its activations are not finite.
        """
        rendered = self._render(live)
        with undisturbed(live.model, self._tokenizer):
            stream, embed = collect(
                live, rendered.token_ids, position=self._settings.position, batch_tokens=self._settings.batch_tokens
            )
            scores = refusal_scores(live, rendered.token_ids, self._openings) if self._openings else None
        labels = self._labels(step)
        places = labels | {"reference": ALIGNED}
        by_layer = [self._estimates(layer, embed if layer < 0 else stream[layer]) for layer in range(-1, len(stream))]
        rows = [
            row
            for layer, layer_estimates in enumerate(by_layer, start=-1)
            for row in drift_rows(places, layer, layer_estimates)
        ]
        self._append("drift", with_types(pd.DataFrame(rows)), step)
        rates = [] if scores is None else self._rates(labels, scores)
        if rates:
            self._append("behaviour", pd.DataFrame(rates, columns=list(RATE_COLUMNS)), step)
        self._write(str(labels["checkpoint"]), stream, embed, live)
        self.rows = stream[self.layer]
        return self._reading(step, by_layer[self.layer + 1], rates)

    def save(self, step: int) -> None:
        """A checkpoint of this step is on disk: it becomes part of the run's lineage."""
        self.saved = sorted({*self.saved, step})
        folder = self._output / f"checkpoint-{step}"
        run = Trajectory.from_folder(self._output, arm=self._arm, seed=self._seed)
        known = tuple(checkpoint for checkpoint in run.checkpoints if checkpoint.step in self.saved)
        lineage = Lineage(
            **{**dict(self._run.lineage), "trajectories": (run.model_copy(update={"checkpoints": known}),)}
        )
        digest = weights_sha256(next(checkpoint for checkpoint in known if checkpoint.step == step))
        with Run.writing(self._run.path) as open_run:
            open_run.place(lineage)
            name = run.checkpoint_id(step)
            open_run.manifest.checkpoints[name] = {"place": str(folder), "weights_sha256": digest, "key": ""}
            open_run.save()

    def finish(self) -> None:
        """Training has come to its end: every checkpoint's place and prompts on the way back are written."""
        with Run.writing(self._run.path) as run:
            checkpoints = self._labels_of_measured()
            with run.stage("views", fingerprint([labels["checkpoint"] for labels in checkpoints])):
                write_places(run, checkpoints)
            run.finish()

    def note(self, name: str, value: Any) -> None:
        """Write a document, such as the alarm's, into the run."""
        with Run.writing(self._run.path) as run:
            run.write_json(name, value)

    def _labels_of_measured(self) -> list[dict[str, str | int]]:
        """The labels of every role and of every step that was measured, saved as a checkpoint or not."""
        roles = [member.labels for member in self._run.members if member.is_role]
        drift = self._tables["drift"]
        if drift is None:
            return roles
        rows = drift[["checkpoint", "arm", "seed", "step"]].drop_duplicates().sort_values("step")
        rows = rows[~rows["arm"].isin(ROLES)]
        return [
            *roles,
            *({**row, "seed": int(row["seed"]), "step": int(row["step"])} for row in rows.to_dict("records")),
        ]

    def _render(self, live: LiveModel) -> Rendered:
        if self._rendered is None:
            self._rendered = render(self._prompts, self._tokenizer, live.context_length, self._run.rendering)
            digest = self._run.manifest.prompts["rendered_sha256"]
            if self._rendered.sha256 != digest:
                raise PromptError(
                    "The tokenizer in training renders the probe prompts in another way than the aligned model's",
                    next_step="Train with the aligned model's tokenizer and chat template.",
                )
        return self._rendered

    def _labels(self, step: int) -> dict[str, str | int]:
        name = Trajectory.model_construct(arm=self._arm, seed=self._seed, checkpoints=()).checkpoint_id(step)
        return Member(name, self._arm, self._seed, step, self._run.lineage.aligned).labels

    def _estimates(self, layer: int, tuned: np.ndarray) -> dict[str, Estimate]:
        aligned, witness = (self._run.activations(name, layer) for name in ("aligned", "witness"))
        return estimates(self._run, (aligned, witness, tuned), float(self._noise[layer]), self._settings)

    def _rates(self, labels: dict[str, str | int], scores: np.ndarray) -> list[dict[str, Any]]:
        rows = []
        for label, chosen in (("harmful", self._run.harmful), ("harmless", ~self._run.harmful)):
            mean = mean_score(scores[chosen])
            row = {"measure": f"refusal_score_{label}", "value": mean.value, "low": mean.low, "high": mean.high}
            rows.append({**labels, **row, "n": int(chosen.sum())})
        return rows

    def _reading(self, step: int, of_layer: dict[str, Estimate], rates: list[dict[str, Any]]) -> Reading:
        values: Any = [of_layer[name].value for name in _STATISTICS]
        score = next((row["value"] for row in rates if row["measure"] == "refusal_score_harmful"), None)
        return Reading(step, values[0], values[1], values[2], values[3], score)

    def _earlier_rows(self, name: str, resumed_at: int) -> pd.DataFrame | None:
        run = self._run
        if not run.has_table(name):
            return None
        frame = run.read_table(name)
        return frame[frame["step"] <= resumed_at]

    def _append(self, name: str, rows: pd.DataFrame, step: int) -> None:
        before = self._tables[name]
        if before is not None and len(before):
            rows = pd.concat([before[before["step"] != step], rows], ignore_index=True)
        self._tables[name] = rows

    def _write(self, checkpoint: str, stream: np.ndarray, embed: np.ndarray, live: LiveModel) -> None:
        shape = (len(stream), stream.shape[1], stream.shape[2])
        everything = list(range(shape[1]))
        with Run.writing(self._run.path) as run:
            about = {**run.activation_file("aligned").about, "key": ""}
            path = run.activations_path(checkpoint)
            with (
                run.stage(activations_stage(checkpoint), ""),
                run.writing_activations(path, shape, self._settings.store_dtype, about) as writer,
            ):
                for layer, values in enumerate([embed, *stream], start=-1):
                    writer.write(layer, everything, values)
            # The fingerprint that readers cache by changes with the stages, so each measurement is one.
            with run.stage("watch", fingerprint([checkpoint, str(live.model.dtype)])):
                for name, frame in self._tables.items():
                    if frame is not None:
                        run.write_table(name, frame)


def _openings(tokenizer: Any) -> tuple[int, ...]:
    """Tokens that begin a refusal; none where the tokenizer knows no such word, and then there is no refusal score."""
    try:
        return refusal_tokens(tokenizer)
    except PromptError:
        return ()
