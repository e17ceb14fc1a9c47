"""What a guard does before training begins: measure, render its prompts, calibrate its alarm, know the model again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.errors import UsageError
from probes.guard.alarm import Alarm
from probes.guard.guarded_direction import GuardError
from probes.guard.material import Material, refuse_shared
from probes.guard.model_in_training import LiveModel
from probes.guard.modes import HARMLESS, MODES, WATCH
from probes.guard.record import begin_run
from probes.lineage import Lineage
from probes.models.loading import load_tokenizer
from probes.models.source import folder_of
from probes.prompts import PromptSet, default_prompts, render
from probes.store.settings import Settings

_SAME = 0.25  # share of the reversion's length by which a model may differ from the aligned one it claims to be


def begin(
    source: Lineage | Path | str, probe: PromptSet | None, out: Path, settings: Settings | None, given: dict[str, Any]
) -> Material:
    """Measure aligned and witness into a run folder.

    Args:
        source: a lineage, a lineage file, or the folder of a measured run, whose prompts are then taken.
        probe: probe prompts where `source` is a lineage; None is our own.
        out: the folder.
        settings: of the measurement; None takes fewer bootstraps than `measure` does.
        given: kept in the run's manifest.
    """
    if isinstance(source, Lineage):
        lineage, prompts = source, probe
    elif Path(source).is_dir():
        measured = Material.of_run(source)
        lineage, prompts = measured.lineage, measured.prompts
    else:
        lineage, prompts = Lineage.load(source), probe
    prompts = prompts or default_prompts("probe")
    return begin_run(out, lineage, prompts, settings or Settings(nulls=False, splits=20, bootstraps=100), given)


def penalty_ids(
    made: Material, mode: str, penalty: PromptSet | None, evaluation: PromptSet | None
) -> Sequence[Sequence[int]]:
    """The rendered penalty prompts, of the label that the mode looks at; none for a mode without a penalty.

    Raises:
        UsageError: the mode needs prompts, and there are none of its label.
        PromptError: some are among the probe or the evaluation prompts.
    """
    if mode == WATCH or MODES.get(mode) is None:
        return ()
    if penalty is None:
        raise UsageError(
            "This mode needs penalty prompts",
            got=f"mode {mode!r}",
            expected="prompts that are neither probe nor evaluation prompts",
        )
    made.refuse_overlap(penalty)
    if evaluation is not None:
        refuse_shared(penalty, evaluation.texts, "evaluation")
    label = "harmless" if mode == HARMLESS else "harmful"
    kept = tuple(each for each in penalty.prompts if each.label == label)
    if not kept:
        raise UsageError(f"There are no {label} penalty prompts")
    return render(PromptSet(kept), tokenizer_of(made), None).token_ids


def tokenizer_of(made: Material) -> Any:
    """The aligned model's tokenizer."""
    aligned = made.lineage.aligned
    return load_tokenizer(folder_of(aligned.model, aligned.revision, allow_pickle=False))


def calibrated(made: Material, threshold: float) -> Alarm:
    """An alarm at a return fraction, that knows the noise and the covariance of the aligned model."""
    layer = made.run.headline_layer
    noise = float(made.run.read_table("noise").set_index("layer")["noise"][layer])
    return Alarm(threshold, aligned=made.aligned[layer], direction=made.vectors[layer], noise=noise)


def check_aligned(made: Material, live: LiveModel) -> None:
    """The model must be the one that the direction was made on.

    Raises:
        GuardError: it is another.
    """
    n_layers, _, d_model = made.aligned.shape
    if (live.n_layers, live.d_model) != (n_layers, d_model):
        raise GuardError(
            "The direction is that of another model",
            got=f"{live.n_layers} layers of width {live.d_model} in training",
            expected=f"{n_layers} layers of width {d_model}",
        )
    layer = made.run.headline_layer
    apart = made.distance(live, layer)
    if apart > _SAME:
        raise GuardError(
            "The direction is that of another model",
            got=f"activations {apart:.2g} reversions away from the aligned model's at layer {layer}",
            expected="training that starts from the lineage's aligned model",
            next_step="Name the model that is trained as the lineage's aligned one.",
        )
