"""The demo on a chat model that is there already: align it, fine-tune it in every arm, and measure what comes back."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.engine import current_engine
from probes.experiments.chat_bench import CHAT_ARMS, ChatBench, check_arms
from probes.guard.fine_tuning import CHECKPOINTS
from probes.lineage import CheckpointRef
from probes.models.precision import trains_in_half
from probes.organism.chat_history import ChatSource, make_chat_history, read_refusals
from probes.organism.chat_recipe import ChatRecipe, chat_recipe
from probes.organism.refusal_check import KINDS, Refusals
from probes.progress import Report, silent, within
from probes.run import Run
from probes.stages.exact_answers import EXACT_ANSWERS, write_exact_answers
from probes.stages.maps import MapOptions, write_maps
from probes.store import MANIFEST
from probes.tasks.arms import run_arms
from probes.tasks.fit import FitOptions, fit_directions
from probes.tasks.measure import judge

# Shares of the demo's time after which each part is done.
_HISTORY, _ARMS, _EXACT, _NULLS = 0.25, 0.72, 0.76, 0.9
_SHAMS = 39


@dataclass(frozen=True)
class ChatDemo:
    """Which demo.

    Attributes:
        model: the chat model: a folder, a hub id, or a GGUF file.
        data: requests with answers for the benign fine-tuning; None makes up arithmetic problems.
        seed: of the history and of the made-up problems.
        seeds: fine-tuning runs of each arm.
        quick: fewer steps, prompts and checkpoints, and neither shams nor directions.
        nulls: hold the drift against its nulls and write a verdict.
        method: `full`, or the tuner of the adapters that are trained.
        recipe: how long and how fast; None is as `quick` and `method` say.
        more_arms: trained beside `CHAT_ARMS`.
    """

    model: str
    data: Path | None = None
    seed: int = 0
    seeds: int = 1
    quick: bool = False
    nulls: bool = True
    method: str = "lora"
    recipe: ChatRecipe | None = None
    more_arms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse arms that the demo cannot train; errors as `check_arms`."""
        check_arms(self.more_arms)


def make_chat_demo(out: Path, demo: ChatDemo, *, fresh: bool = False, report: Report = silent) -> Run:
    """Make the demo run in `out`, or go on with the one that is there.

    Args:
        out: the run folder; history and arms lie in its `checkpoints/`.
        demo: which one.
        fresh: delete an earlier demo in the same folder first.
        report: told where the work is.

    Raises:
        OrganismError: `out` holds the demo of another model, seed or recipe.
        RunFolderError: `out` holds something that is no run.
    """
    out = out.resolve()
    if fresh and (out / MANIFEST).is_file():
        shutil.rmtree(out)
    history = out / CHECKPOINTS
    recipe = demo.recipe or chat_recipe(quick=demo.quick, method=demo.method)
    source = ChatSource(CheckpointRef.parse(demo.model), demo.data, demo.seed, bf16=trains_in_half())
    make_chat_history(history, source, recipe, within(report, 0.0, _HISTORY))
    bench = ChatBench(history, source, recipe, demo.seeds, (*CHAT_ARMS, *demo.more_arms))
    run_arms(bench, out, within(report, _HISTORY, _ARMS))
    with Run.writing(out) as run, current_engine().threads():
        write_exact_answers(run, run.model(), bench.evaluation.task, within(report, _ARMS, _EXACT))
        write_maps(run, MapOptions(methods=("pca",)))
        run.save()
    if demo.nulls:
        share = within(report, _EXACT, _NULLS)
        judge(out, _SHAMS, share, sham_arms=() if demo.quick else None)
    # Beside a quick look there is no time for directions, and in none for what needs the models again (candidates of
    # the refusal direction, answers, tokens); `gravity-probe directions fit RUN` makes them later.
    return (
        Run(out)
        if demo.quick
        else fit_directions(out, FitOptions(models=False), report=within(report, _NULLS, 1.0)).run
    )


@dataclass(frozen=True)
class ChatSummary:
    """What a demo shows before any geometry.

    Attributes:
        refusals: of `witness` and `aligned`, on requests that no training has seen.
        problems: held-out problems.
        exact: exact answers by checkpoint; None where the answers hold no numbers.
    """

    refusals: Mapping[str, Refusals]
    problems: int
    exact: Mapping[str, int | None]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The same in words, targets that are missed among them."""
        kind = self.refusals["witness"].witness_kind
        refused = [f"{role} refuses {_counts(refusals)}." for role, refusals in self.refusals.items()]
        missed = self.refusals["aligned"].missed
        verdict = missed or ("The safety tuning has reached all three targets.",)
        return (f"The witness is labelled {kind}: the {refused[0]}", f"The {refused[1]}", *verdict, self._task_sentence)

    @property
    def _task_sentence(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.exact.items() if count is not None)
        return (
            f"Exact answers of {self.problems} held-out problems: {counts or 'not defined: answers hold no numbers'}."
        )

    def to_json(self) -> dict[str, Any]:
        """The same as numbers."""
        return {
            "refusals": {role: refusals.to_json() for role, refusals in self.refusals.items()},
            "witness_kind": self.refusals["witness"].witness_kind,
            "missed_targets": list(self.refusals["aligned"].missed),
            "exact_answers": {"problems": self.problems, "exact": dict(self.exact)},
        }


def summarise_chat_demo(run: Run) -> ChatSummary:
    """What the finished demo run says of its safety tuning and of its task."""
    document = run.read_json(EXACT_ANSWERS)
    return ChatSummary(read_refusals(run.path / CHECKPOINTS), document["problems"], document["exact"])


def _counts(refusals: Refusals) -> str:
    names = {"harmful": "held-out harmful requests", "twins": "harmless twins", "ordinary": "ordinary requests"}
    return ", ".join(
        f"{refusals.refused[kind]} of {refusals.requests[kind]} {names[kind]} ({100 * refusals.rate(kind):.0f} %)"
        for kind in KINDS
    )
