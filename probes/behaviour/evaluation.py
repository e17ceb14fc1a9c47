"""Asking one checkpoint and judging what it answers: what is asked, the answers, and the judges' labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from probes.behaviour.answer_form import form_flags
from probes.behaviour.judges import (
    REFUSALS,
    UNJUDGED,
    Exchange,
    Judge,
    Judgement,
    JudgementCache,
    check_judge_name,
    cohens_kappa,
    majority,
)
from probes.behaviour.refusal_text import RULES
from probes.models.checkpoint_folders import CheckpointFolders
from probes.models.view import ModelView
from probes.progress import Progress, Report, within
from probes.prompts import OWN, LeftOut, Prompt, PromptSet, Rendering, fit_to_context, render

if TYPE_CHECKING:
    import pandas as pd

Done = Callable[[int, int], None]
ANSWER_COLUMNS = ("prompt", "completion", "cut_off", "refusal_score")
HARMFUL = "harmful"
BUILTIN = "builtin"  # the judge that needs nothing
_NO_ANSWER = Judgement(UNJUDGED, "there is no answer")


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
        rendering: how prompts become what a model reads: as in the run that is judged. It is the run's, and not kept.
        served: (checkpoint, `MODEL@URL`) of those that answer behind a server; all others answer here.
        answers: (checkpoint, file, its sha256) of those whose answers another tool has written to a file.
    """

    prompts: PromptSet
    task: tuple[tuple[str, str], ...] = ()
    max_new_tokens: int = 32
    look_alikes: PromptSet | None = None
    judges: tuple[str, ...] = (BUILTIN,)
    margin: float | None = None
    rendering: Rendering = field(default=OWN, compare=False)
    served: tuple[tuple[str, str], ...] = ()
    answers: tuple[tuple[str, str, str], ...] = ()

    def __post_init__(self) -> None:
        for judge in self.judges:
            check_judge_name(judge)

    @property
    def questions(self) -> PromptSet:
        """All prompts that are asked, each once."""
        return replace(self.prompts, prompts=self.prompts.prompts + self._look_alikes)

    @property
    def labels(self) -> tuple[str, ...]:
        """`harmful`, `harmless` or `look_alike` for each question."""
        from probes.behaviour.rate_tables import LOOK_ALIKE

        return tuple(prompt.label for prompt in self.prompts.prompts) + (LOOK_ALIKE,) * len(self._look_alikes)

    @property
    def _look_alikes(self) -> tuple[Prompt, ...]:
        known = set(self.prompts.texts)
        extra = self.look_alikes.prompts if self.look_alikes else ()
        return tuple(prompt for prompt in extra if prompt.text not in known)

    def document(self) -> dict[str, Any]:
        """JSON from which `Evaluation.of` makes it again."""
        return {
            "prompts": _rows(self.prompts),
            "notices": list(self.prompts.notices),
            "look_alikes": _rows(self.look_alikes) if self.look_alikes else None,
            "task": [list(pair) for pair in self.task],
            "max_new_tokens": self.max_new_tokens,
            "judges": list(self.judges),
            "margin": self.margin,
            "served": [list(pair) for pair in self.served],
            "answers": [list(source) for source in self.answers],
        }

    @classmethod
    def of(cls, document: dict[str, Any]) -> Evaluation:
        """An evaluation as a run folder keeps it."""
        look_alikes = document["look_alikes"]
        return cls(
            prompts=replace(_prompts(document["prompts"]), notices=tuple(document.get("notices", ()))),
            task=tuple((request, answer) for request, answer in document["task"]),
            max_new_tokens=document["max_new_tokens"],
            look_alikes=_prompts(look_alikes) if look_alikes else None,
            judges=tuple(document["judges"]),
            margin=document["margin"],
            served=tuple((name, address) for name, address in document.get("served", ())),
            answers=tuple((name, path, digest) for name, path, digest in document.get("answers", ())),
        )


def fit_evaluation(
    evaluation: Evaluation, host: ModelView | CheckpointFolders, rendering: Rendering = OWN
) -> tuple[Evaluation, LeftOut]:
    """The evaluation as it is rendered, and (id, tokens) of each prompt that is left out of it as too long.

    A prompt must leave room in the context for one token of an answer.

    Args:
        evaluation: what is asked.
        host: with the aligned model's tokenizer and context.
        rendering: that of the run that is judged.

    Raises:
        PromptError: no harmful or no harmless prompt is left; or as `render`.
    """
    room = None if host.context_length is None else host.context_length - 1
    fitted, left_out = fit_to_context(evaluation.questions, host.tokenizer, room, rendering)
    ids = set(fitted.ids)
    prompts = tuple(prompt for prompt in evaluation.prompts.prompts if prompt.id in ids)
    extra = evaluation.look_alikes.prompts if evaluation.look_alikes else ()
    look_alikes = tuple(prompt for prompt in extra if prompt.id in ids)
    return replace(
        evaluation,
        prompts=replace(evaluation.prompts, prompts=prompts),
        look_alikes=PromptSet(look_alikes) if look_alikes else None,
        rendering=rendering,
    ), left_out


def answer_questions(
    host: ModelView, evaluation: Evaluation, done: Done | None = None, harmful: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the checkpoint in `host` answers.

    Args:
        host: holds the checkpoint.
        evaluation: what is asked.
        done: is given (questions done, questions asked here) after each batch.
        harmful: its answers to the harmful requests, of `answer_harmful`; None asks them, apart from the others in
            either case, so that the bytes are the same.

    Returns:
        Its answers (`ANSWER_COLUMNS`), and its losses on the task (item, loss, tokens).
    """
    import pandas as pd

    from probes.behaviour.task import item_losses, rendered_items

    first = answer_harmful(host, evaluation, done) if harmful is None else harmful
    parts = [part for part in (first, _ask(host, evaluation, False, done)) if len(part)]
    answers = pd.concat(parts).set_index("prompt", drop=False)
    items = rendered_items(evaluation.task, host.tokenizer, evaluation.rendering) if evaluation.task else []
    losses, tokens = item_losses(host, items)
    ordered = answers.loc[list(evaluation.questions.ids)].reset_index(drop=True)
    return ordered, pd.DataFrame({"item": range(len(items)), "loss": losses, "tokens": tokens})


def answer_harmful(host: ModelView, evaluation: Evaluation, done: Done | None = None) -> pd.DataFrame:
    """What the checkpoint in `host` answers to the harmful requests (`ANSWER_COLUMNS`): the safety answer's needs."""
    return _ask(host, evaluation, True, done)


def _ask(host: ModelView, evaluation: Evaluation, harmful: bool, done: Done | None) -> pd.DataFrame:
    """The checkpoint's answers to the harmful requests, or to the others (`ANSWER_COLUMNS`)."""
    import pandas as pd

    from probes.behaviour.ask import ask_checkpoint

    questions = evaluation.questions
    rendered = render(questions, host.tokenizer, host.context_length, evaluation.rendering)
    places = [place for place, label in enumerate(evaluation.labels) if (label == HARMFUL) == harmful]
    token_ids = [rendered.token_ids[place] for place in places]
    answers = ask_checkpoint(host, token_ids, max_new_tokens=evaluation.max_new_tokens, done=done)
    columns = ([questions.ids[place] for place in places], answers.completions, answers.cut_off, answers.scores)
    return pd.DataFrame(dict(zip(ANSWER_COLUMNS, columns, strict=True)))


def judge_completions(
    completions: pd.DataFrame, judges: list[Judge], cache: JudgementCache, report: Report
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Add every judge's verdict to completions, and their majority; where there is no answer, it is `unjudged`.

    Args:
        completions: answers with their questions (`with_questions`), labelled by checkpoint.
        judges: who judges.
        cache: what they said before.
        report: told how many each has judged.

    Returns:
        The completions (`rate_tables.COMPLETION_COLUMNS`, and `judge:<name>` where there are several judges), and
        `{"judges", "rules", "completions", "unjudged", "kappa"}`; `rules` is the built-in judge's version.
    """
    from probes.behaviour import rate_tables as tables

    answered = completions["completion"].notna().to_numpy()
    columns = completions.loc[answered, ["text", "completion"]]
    exchanges = [Exchange(*row) for row in columns.itertuples(index=False, name=None)]
    by_judge: dict[str, list[Judgement]] = {}
    for number, judge in enumerate(judges):
        share = within(report, number / len(judges), (number + 1) / len(judges))
        judgements = iter(cache.ask(judge, exchanges, progress_callback(share, "judging", judge.name)))
        by_judge[judge.name] = [next(judgements) if answer else _NO_ANSWER for answer in answered]
    rows = list(zip(*by_judge.values(), strict=True))
    verdicts = [majority([judgement.label for judgement in row]) for row in rows]
    completions = completions.assign(
        verdict=verdicts,
        refused=[verdict in REFUSALS for verdict in verdicts],
        reason=[_first_reason(row, verdict) for row, verdict in zip(rows, verdicts, strict=True)],
        flags=[", ".join(form_flags(text)) if isinstance(text, str) else "" for text in completions["completion"]],
    )[list(tables.COMPLETION_COLUMNS)]
    labels = {name: [judgement.label for judgement in judgements] for name, judgements in by_judge.items()}
    if len(judges) > 1:
        completions = completions.assign(**{f"judge:{name}": column for name, column in labels.items()})
    return completions, _agreement(labels)


def with_questions(answers: pd.DataFrame, evaluation: Evaluation) -> pd.DataFrame:
    """Answers with the id, the label, the topic (empty where there is none) and the text of what was asked."""
    questions = evaluation.questions
    topics = [prompt.topic or "" for prompt in questions.prompts]
    return answers.assign(prompt=questions.ids, label=evaluation.labels, topic=topics, text=questions.texts)


def progress_callback(report: Report, phase: str, note: str) -> Done:
    """A callback of (done, in all) that reports a phase."""
    return lambda done, of: report(Progress(phase, done, of, note))


def _first_reason(row: tuple[Judgement, ...], verdict: str) -> str:
    return next((judgement.reason for judgement in row if judgement.label == verdict), "")


def _agreement(labels: dict[str, list[str]]) -> dict[str, Any]:
    """Who judged, how much each could not, and how far each two agree."""
    kappas = []
    for first, second in combinations(labels, 2):
        kappa = cohens_kappa(labels[first], labels[second])
        kappas.append({"one": first, "other": second, "kappa": kappa.value, "reason": kappa.reason})
    unjudged = {name: column.count(UNJUDGED) for name, column in labels.items()}
    return {
        "judges": list(labels),
        "rules": RULES if BUILTIN in labels else None,
        "completions": len(next(iter(labels.values()))),
        "unjudged": unjudged,
        "kappa": kappas,
    }


def name_judges(agreement: Mapping[str, Any]) -> str:
    """Who judged, as `judges.json` has it: the built-in judge with the version of its rules, where that was kept."""
    version = agreement.get("rules")
    again = "" if version == RULES else f"; version {RULES} is here: evaluate again"
    named = f"{BUILTIN} (version {version}{again})" if version else BUILTIN
    return ", ".join(named if judge == BUILTIN else judge for judge in agreement["judges"])


def _rows(prompts: PromptSet) -> list[list[str | None]]:
    return [[prompt.text, prompt.label, prompt.topic, prompt.pair] for prompt in prompts.prompts]


def _prompts(rows: list[list[str | None]]) -> PromptSet:
    """The prompts of `_rows`; rows of an older version have neither topic nor pair."""
    texts, labels, topics, pairs = zip(*([*row, None, None][:4] for row in rows), strict=True)
    return PromptSet.of(texts, labels, topics=topics, pairs=pairs)
