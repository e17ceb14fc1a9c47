"""What a notebook begins with: open a run, measure checkpoints into a new one, steer an answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UsageError
from probes.lineage import Lineage, Place
from probes.prompts import PromptSet
from probes.run import Run
from probes.store.settings import Settings

if TYPE_CHECKING:
    from probes.tasks.steer import Steered

Prompts = str | Path | Iterable[str]


def open(path: Path | str) -> Run:  # `probes.open`
    """Open a run folder to read it.

    Raises:
        RunFolderError: it is no run, is damaged, or was written by another format version.
    """
    return Run(path)


def measure(
    aligned: Place,
    witness: Place | None,
    checkpoints: Place | Sequence[Place],
    harmful: Prompts,
    harmless: Prompts,
    *,
    out: Path | str | None = None,
    group_column: str | None = None,
    **settings: Any,
) -> Run:
    """Measure fine-tuned checkpoints into a run folder; what is there already is not done again.

    Args:
        aligned: the model that fine-tuning started from: a folder, a hub id (`org/name@revision`), or a reference.
        witness: the earlier, more permissive state, likewise; None where there is none, and what needs one is not
            defined; `ablated` for the aligned model read with its refusal direction ablated, an estimate.
        checkpoints: one or several, `REF` or `STEP=REF`, or a Trainer output folder with its `checkpoint-N`.
        harmful: harmful probe prompts: texts, or a file in any known format.
        harmless: harmless ones.
        out: the run folder; None is `runs/<name of the aligned model>`.
        group_column: the column of the prompt files with each prompt's topic; None is `topic`, where there is one.
        settings: any setting of `gravity-probe measure`, e.g. `nulls=False`, `seed=1`.

    Raises:
        GravityError: a checkpoint, a prompt, a setting or the folder is not what it must be.
    """
    from probes.tasks.measure import measure as write_run

    lineage = Lineage.of(aligned, witness, checkpoints)
    prompts = PromptSet.of_classes(harmful, harmless, group_column=group_column)
    return write_run(lineage, prompts, out or Path("runs") / lineage.name, Settings.load(None, settings))


def steer(
    run: Run | Path | str, direction: str, prompt: str, *, layers: int | Sequence[int] | None = None, **settings: Any
) -> Steered:
    """Answer a prompt as it is, under a direction of a run, and under a random direction of the same norm.

    Args:
        run: the run or its folder; its checkpoints are still where they were.
        direction: a fitted or imported direction, as it is at the aligned model.
        prompt: one request, which gets the aligned model's chat template.
        layers: where the direction acts; None is the layer that its selection chose, else the run's headline layer.
        settings: any other field of `probes.tasks.steer.Steering`: `checkpoint`, `mode` (`add`, `ablate` or `clamp`),
            `coefficient` (in units of the direction's norm), `max_new_tokens`, `seed`, `device`.

    Raises:
        UsageError: there is no such setting, or see `probes.tasks.steer.steer`.
        GravityError: likewise.
    """
    from dataclasses import fields

    from probes.tasks.steer import Steering
    from probes.tasks.steer import steer as answer

    known = [field.name for field in fields(Steering) if field.name not in ("direction", "layers")]
    if unknown := sorted(set(settings) - set(known)):
        raise UsageError("Steering has no such setting", got=unknown[0], expected=", ".join(known))
    places = (layers,) if isinstance(layers, int) else None if layers is None else tuple(layers)
    opened = run if isinstance(run, Run) else Run(run)
    return answer(opened, prompt, Steering(direction, layers=places, **settings))
