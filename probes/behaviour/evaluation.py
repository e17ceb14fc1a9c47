"""Asking one checkpoint and judging what it answers: what is asked, the answers, and the judges' labels."""

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
    check_judge_name,
    cohens_kappa,
    majority,
)
from probes.models.view import ModelView
from probes.progress import Progress, Report, within
from probes.prompts import PromptSet, render

if TYPE_CHECKING:
    import pandas as pd

Done = Callable[[int, int], None]


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

    def __post_init__(self) -> None:
        for judge in self.judges:
            check_judge_name(judge)

    @property
    def questions(self) -> PromptSet:
        """All prompts that are asked, each once."""
        return PromptSet(self.prompts.prompts + self._look_alikes, self.prompts.sources)

    @property
    def labels(self) -> tuple[str, ...]:
        """`harmful`, `harmless` or `look_alike` for each question."""
        from probes.behaviour.rate_tables import LOOK_ALIKE

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


def answer_questions(
    host: ModelView, evaluation: Evaluation, done: Done | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
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


def judge_completions(
    completions: pd.DataFrame, judges: list[Judge], cache: JudgementCache, report: Report
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Add every judge's verdict to completions, and their majority.

    Returns:
        The completions (`tables.COMPLETION_COLUMNS`, and `judge:<name>` where there are several judges), and
        `{"judges", "completions", "unjudged", "kappa"}`.
    """
    from probes.behaviour import rate_tables as tables

    exchanges = [Exchange(*row) for row in completions[["text", "completion"]].itertuples(index=False, name=None)]
    said = {}
    for number, judge in enumerate(judges):
        share = within(report, number / len(judges), (number + 1) / len(judges))
        said[judge.name] = cache.ask(judge, exchanges, reporting(share, "judging", judge.name))
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
    return completions, _agreement(labels)


def with_questions(answers: pd.DataFrame, evaluation: Evaluation) -> pd.DataFrame:
    """Answers with the label and the text of what was asked."""
    return answers.assign(label=evaluation.labels, text=evaluation.questions.texts)


def _agreement(labels: dict[str, list[str]]) -> dict[str, Any]:
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


def _rows(prompts: PromptSet) -> list[list[str]]:
    return [[prompt.text, prompt.label] for prompt in prompts.prompts]


def reporting(report: Report, phase: str, note: str) -> Done:
    """A callback of (done, in all) that reports a phase."""
    return lambda done, of: report(Progress(phase, done, of, note))
