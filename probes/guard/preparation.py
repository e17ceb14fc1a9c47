"""What a guard does before training begins: measure, render its prompts, calibrate its alarm, know the model again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from probes.errors import UsageError
from probes.guard.alarm import Alarm
from probes.guard.guarded_direction import GuardError
from probes.guard.material import distance, refuse_overlap, refuse_shared
from probes.guard.model_in_training import LiveModel
from probes.guard.modes import HARMLESS, MODES, WATCH
from probes.guard.record import begin_run
from probes.lineage import Lineage
from probes.models.loading import load_tokenizer
from probes.models.source import folder_of
from probes.prompts import PromptSet, default_prompts, read_prompts, render
from probes.run import Run
from probes.store import ALIGNED
from probes.store.settings import Settings

Source = Run | Lineage | Path | str
_SAME = 0.25  # share of the reversion's length by which a model may differ from the aligned one it claims to be


Prompts = PromptSet | Iterable[str] | str | Path


def prompt_set(prompts: Prompts | None) -> PromptSet | None:
    """Prompts as a set: texts are harmful prompts, a path is a file in any known format, harmful where it is silent.

    Raises:
        UsageError: the file is absent or in no known format.
        PromptError: it is damaged or empty, or a text has two labels.
    """
    if prompts is None or isinstance(prompts, PromptSet):
        return prompts
    if isinstance(prompts, str | Path):
        return prompts_of_file(prompts)
    return PromptSet.read(prompts, "harmful")


def prompts_of_file(path: str | Path, group_column: str | None = None) -> PromptSet:
    """Prompts of a file in any known format, harmful where it is silent, with topics and pairs; errors as `prompt_set`.

    `group_column` is the column with each prompt's topic; None is `topic`, where there is one.
    """
    recognised = read_prompts(path, group_column=group_column)
    labels = [label or "harmful" for label in recognised.labels]
    sources = ((str(path), recognised.format),)
    return PromptSet.of(recognised.texts, labels, sources, topics=recognised.topics, pairs=recognised.pairs)


def open_source(source: Source) -> Run | Lineage:
    """What a guard is made from: a measured run, or a lineage that is still to be measured."""
    if isinstance(source, Run | Lineage):
        return source
    return Run(source) if Path(source).is_dir() else Lineage.load(source)


def begin(
    source: Run | Lineage, probe: PromptSet | None, out: Path, settings: Settings | None, config: dict[str, Any]
) -> Run:
    """Measure aligned and witness into a run folder.

    Args:
        source: a lineage, or a measured run, whose prompts are then taken.
        probe: probe prompts where `source` is a lineage; None is our own.
        out: the folder.
        settings: of the measurement; None takes fewer bootstraps than `measure` does.
        config: kept in the run's manifest.
    """
    lineage, prompts = (source.lineage, source.prompts) if isinstance(source, Run) else (source, probe)
    lineage.need_witness("Watching and guarding a training")
    prompts = prompts or default_prompts("probe")
    return begin_run(out, lineage, prompts, settings or Settings(nulls=False, splits=20, bootstraps=100), config)


def needs_prompts(mode: str) -> bool:
    """Whether a mode has penalty prompts."""
    return mode != WATCH and MODES.get(mode) is not None


def refuse_overlap_early(
    source: Run | Lineage,
    mode: str,
    probe: PromptSet | None,
    penalty: PromptSet | None,
    evaluation: PromptSet | None,
) -> None:
    """Refuse penalty prompts that have another use too, before anything is measured.

    Args:
        source: a lineage, or a measured run, whose prompts are then the probe prompts.
        mode: of the guard; without a penalty nothing is looked at.
        probe: probe prompts where `source` is a lineage; None is our own.
        penalty: penalty prompts; None is none.
        evaluation: evaluation prompts; None is none.

    Raises:
        PromptError: some are among the probe or the evaluation prompts.
    """
    if penalty is not None and needs_prompts(mode):
        probe = source.prompts if isinstance(source, Run) else probe or default_prompts("probe")
        refuse_shared(penalty, probe.texts, "probe")
        refuse_shared(penalty, () if evaluation is None else evaluation.texts, "evaluation")


def penalty_ids(run: Run, mode: str, penalty: PromptSet | None) -> Sequence[Sequence[int]]:
    """The rendered penalty prompts, of the label that the mode looks at; none for a mode without a penalty.

    Raises:
        UsageError: the mode needs prompts, and there are none of its label.
        PromptError: some are among the prompts that the run was measured or evaluated on.
    """
    if not needs_prompts(mode):
        return ()
    if penalty is None:
        raise UsageError(
            "This mode needs penalty prompts",
            got=f"mode {mode!r}",
            expected="prompts that are neither probe nor evaluation prompts",
        )
    refuse_overlap(run, penalty)
    label = "harmless" if mode == HARMLESS else "harmful"
    prompts = tuple(prompt for prompt in penalty.prompts if prompt.label == label)
    if not prompts:
        raise UsageError(f"There are no {label} penalty prompts")
    return render(PromptSet(prompts), tokenizer_of(run), None, run.rendering).token_ids


def tokenizer_of(run: Run) -> Any:
    """The aligned model's tokenizer."""
    aligned = run.lineage.aligned
    return load_tokenizer(folder_of(aligned.model, aligned.revision, allow_pickle=False))


def set_alarm(run: Run, threshold: float) -> Alarm:
    """An alarm at a return fraction, that knows the noise of a repeated pass."""
    return Alarm(threshold, noise=float(run.read_table("noise").set_index("layer")["noise"][run.headline_layer]))


def check_aligned(run: Run, live: LiveModel) -> None:
    """The model must be the one that the direction was made on.

    Raises:
        GuardError: it is another.
    """
    n_layers, _, d_model = run.activation_file(ALIGNED).shape
    if (live.n_layers, live.d_model) != (n_layers, d_model):
        raise GuardError(
            "The direction is that of another model",
            got=f"{live.n_layers} layers of width {live.d_model} in training",
            expected=f"{n_layers} layers of width {d_model}",
        )
    layer = run.headline_layer
    apart = distance(run, live, layer)
    if apart > _SAME:
        raise GuardError(
            "The direction is that of another model",
            got=f"activations {apart:.2g} reversions away from the aligned model's at layer {layer}",
            expected="training that starts from the lineage's aligned model",
            next_step="Name the model that is trained as the lineage's aligned one.",
        )
