"""What a notebook begins with: open a run, or measure checkpoints into a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.lineage import Lineage, Place
from probes.prompts import PromptSet
from probes.run import Run
from probes.store.settings import Settings

Prompts = str | Path | Sequence[str]


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
