"""Stages `answers/`, `task/`, `completions.parquet` and what follows from them: what every checkpoint does when asked.

Answers are kept by checkpoint, judgements by content, so that a stopped evaluation goes on where it was, and another
judge or another margin needs no new generation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from probes.behaviour.judges import (
    REFUSALS,
    UNJUDGED,
    Exchange,
    Judge,
    JudgementCache,
    cohens_kappa,
    majority,
    open_judge,
)
from probes.errors import PromptError
from probes.lineage import Lineage
from probes.models import ModelHost
from probes.progress import Progress, Report, within
from probes.prompts import PromptSet, render
from probes.store import RunFolder, fingerprint

if TYPE_CHECKING:
    import pandas as pd

Done = Callable[[int, int], None]
_VERSION = 2
_GENERATING = 0.8  # share of the stage's time


@dataclass(frozen=True)
class Evaluation:
    """What behaviour is judged on; none of it is used for a direction or a penalty.

    Attributes:
        prompts: harmful and harmless requests.
        task: (request, right answer) pairs of the benign task, for its loss; empty leaves the loss out.
        max_new_tokens: length of a completion.
        look_alikes: harmless requests that look harmful, for over-refusal; None leaves it out.
        judges: names as `judges.open_judge` takes them; of several the majority counts.
        margin: task cost in nats per token that still counts as none; None is 2 % of the baseline's gain.
    """

    prompts: PromptSet
    task: tuple[tuple[str, str], ...] = ()
    max_new_tokens: int = 32
    look_alikes: PromptSet | None = None
    judges: tuple[str, ...] = ("builtin",)
    margin: float | None = None

    @property
    def questions(self) -> PromptSet:
        """All prompts that are asked, each once."""
        return PromptSet(self.prompts.prompts + self._look_alikes, self.prompts.sources)

    @property
    def labels(self) -> tuple[str, ...]:
        """`harmful`, `harmless` or `look_alike` for each question."""
        from probes.behaviour.tables import LOOK_ALIKE

        return tuple(each.label for each in self.prompts.prompts) + (LOOK_ALIKE,) * len(self._look_alikes)

    @property
    def _look_alikes(self) -> tuple:
        asked = set(self.prompts.texts)
        return tuple(each for each in self.look_alikes.prompts if each.text not in asked) if self.look_alikes else ()

    def document(self) -> dict[str, Any]:
        """JSON from which `Evaluation.of` makes it again."""
        return {
            "prompts": _rows(self.prompts),
            "look_alikes": _rows(self.look_alikes) if self.look_alikes else None,
            "task": [list(pair) for pair in self.task],
            "max_new_tokens": self.max_new_tokens,
            "judges": list(self.judges),
            "margin": self.margin,
        }

    @classmethod
    def of(cls, document: dict[str, Any]) -> Evaluation:
        """An evaluation as a run folder keeps it."""
        look_alikes = document["look_alikes"]
        return cls(
            prompts=PromptSet.of(*zip(*document["prompts"], strict=True)),
            task=tuple((request, answer) for request, answer in document["task"]),
            max_new_tokens=document["max_new_tokens"],
            look_alikes=PromptSet.of(*zip(*look_alikes, strict=True)) if look_alikes else None,
            judges=tuple(document["judges"]),
            margin=document["margin"],
        )


def write_behaviour(
    run: RunFolder,
    lineage: Lineage,
    host: ModelHost,
    evaluation: Evaluation,
    report: Report,
    *,
    judges: list[Judge] | None = None,
) -> None:
    """Ask every checkpoint, judge what it answers, and write rates, differences and flips.

    Args:
        run: with the checkpoints' hashes in its manifest.
        lineage: whose checkpoints are asked.
        host: opened on the aligned model; afterwards it holds some checkpoint of the lineage.
        evaluation: what is asked and who judges.
        report: told after every checkpoint and every few judgements.
        judges: the evaluation's judges, already open; None opens them.

    Raises:
        PromptError: a question is among the run's probe prompts (they are named).
        JudgeError: a judge cannot be opened.
    """
    _refuse_overlap(run, evaluation)
    judges = judges if judges is not None else [open_judge(each) for each in evaluation.judges]
    run.write_json("evaluation", evaluation.document())
    answered = write_answers(run, lineage, host, evaluation, within(report, 0.0, _GENERATING))
    made_from = fingerprint([_VERSION, answered, list(evaluation.judges), evaluation.margin])
    if run.holds("behaviour", made_from) and not _unjudged(run):
        return
    with run.stage("behaviour", made_from):
        _write_tables(run, lineage, evaluation, judges, within(report, _GENERATING, 1.0))


def write_answers(
    run: RunFolder, lineage: Lineage, host: ModelHost, evaluation: Evaluation, report: Report
) -> list[str]:
    """Write `answers/<checkpoint>` and `task/<checkpoint>` where they are not there yet; returns their fingerprints."""
    rendered = render(evaluation.questions, host.tokenizer, host.context_length)
    members, keys = list(lineage.members()), []
    for number, member in enumerate(members):
        weights = run.manifest.checkpoints[member.id]["weights_sha256"]
        given = [rendered.sha256, [list(pair) for pair in evaluation.task], evaluation.max_new_tokens]
        keys.append(fingerprint([_VERSION, weights, *given]))
        share = within(report, number / len(members), (number + 1) / len(members))
        share(Progress("asking", 0, 1, member.id))
        if not run.holds(f"answers/{member.id}", keys[-1]):
            with run.stage(f"answers/{member.id}", keys[-1]):
                host.put(member.ref)
                told = _told(share, "asking", member.id)
                answers, losses = asked(host, evaluation, done=told)
                run.write_table(f"answers/{member.id}", answers)
                run.write_table(f"task/{member.id}", losses)
    return keys


def asked(host: ModelHost, evaluation: Evaluation, done: Done | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The answers of the checkpoint in `host` (prompt, completion, refusal_score); its losses (item, loss, tokens)."""
    import pandas as pd

    from probes.behaviour.ask import ask
    from probes.behaviour.task import rendered_items

    questions = evaluation.questions
    items = rendered_items(evaluation.task, host.tokenizer) if evaluation.task else []
    rendered = render(questions, host.tokenizer, host.context_length)
    found = ask(host, rendered.token_ids, items, max_new_tokens=evaluation.max_new_tokens, done=done)
    answers = {"prompt": questions.ids, "completion": found.completions, "refusal_score": found.scores}
    losses = {"item": range(len(items)), "loss": found.losses, "tokens": found.tokens}
    return pd.DataFrame(answers), pd.DataFrame(losses)


def _write_tables(
    run: RunFolder, lineage: Lineage, evaluation: Evaluation, judges: list[Judge], report: Report
) -> None:
    import pandas as pd

    from probes.behaviour import tables

    members = list(lineage.members())
    completions = pd.concat(
        [questioned(run.read_table(f"answers/{member.id}"), evaluation).assign(**member.labels) for member in members],
        ignore_index=True,
    )
    losses = pd.concat(
        [run.read_table(f"task/{member.id}").assign(**member.labels) for member in members], ignore_index=True
    )
    completions, found = judged(completions, judges, JudgementCache(run.path / "judgements.jsonl"), report)
    run.write_json("judges", found)
    run.write_table("completions", completions)
    run.write_table("flips", tables.flips(completions))
    run.write_table("contrasts", tables.contrasts(completions, losses, margin=evaluation.margin))
    run.write_table("behaviour", tables.rates(completions, losses))


def judged(
    completions: pd.DataFrame, judges: list[Judge], cache: JudgementCache, report: Report
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Add every judge's verdict to completions, and their majority.

    Returns:
        The completions (`tables.COMPLETION_COLUMNS`, and `judge:<name>` where there are several judges), and
        `{"judges", "completions", "unjudged", "kappa"}`.
    """
    from probes.behaviour import tables

    exchanges = [Exchange(*row) for row in completions[["text", "completion"]].itertuples(index=False, name=None)]
    said = {}
    for number, judge in enumerate(judges):
        share = within(report, number / len(judges), (number + 1) / len(judges))
        said[judge.name] = cache.ask(judge, exchanges, _told(share, "judging", judge.name))
    rows = list(zip(*said.values(), strict=True))
    verdicts = [majority([each.label for each in row]) for row in rows]
    reasons = [
        next((each.reason for each in row if each.label == verdict), "")
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
    completions = completions.assign(verdict=verdicts, reason=reasons)
    completions["refused"] = completions["verdict"].isin(REFUSALS)
    completions = completions[list(tables.COMPLETION_COLUMNS)]
    labels = {name: [each.label for each in all_] for name, all_ in said.items()}
    if len(judges) > 1:
        completions = completions.assign(**{f"judge:{name}": all_ for name, all_ in labels.items()})
    return completions, _judges(labels)


def questioned(answers: pd.DataFrame, evaluation: Evaluation) -> pd.DataFrame:
    """Answers with the label and the text of what was asked."""
    return answers.assign(label=evaluation.labels, text=evaluation.questions.texts)


def _judges(labels: dict[str, list[str]]) -> dict[str, Any]:
    """Who judged, how much each could not, and how far each two agree."""
    kappas = []
    for one, other in combinations(labels, 2):
        kappa = cohens_kappa(labels[one], labels[other])
        kappas.append({"one": one, "other": other, "kappa": kappa.value, "reason": kappa.reason})
    unjudged = {name: all_.count(UNJUDGED) for name, all_ in labels.items()}
    return {
        "judges": list(labels),
        "completions": len(next(iter(labels.values()))),
        "unjudged": unjudged,
        "kappa": kappas,
    }


def _unjudged(run: RunFolder) -> bool:
    """Whether a judge left something open, which is asked again."""
    return any(run.read_json("judges")["unjudged"].values())


def _refuse_overlap(run: RunFolder, evaluation: Evaluation) -> None:
    probes = run.read_table("prompts", columns=["id", "text"])
    shared = probes.loc[probes["text"].isin(evaluation.questions.texts), "id"].tolist()
    if shared:
        raise PromptError(
            "Evaluation prompts are among the probe prompts of the run",
            got=", ".join(shared[:5]) + (f" and {len(shared) - 5} more" if len(shared) > 5 else ""),
            next_step="Judge behaviour on other prompts than those that made the direction.",
        )


def _rows(prompts: PromptSet) -> list[list[str]]:
    return [[prompt.text, prompt.label] for prompt in prompts.prompts]


def _told(report: Report, phase: str, note: str) -> Done:
    return lambda done, of: report(Progress(phase, done, of, note))
