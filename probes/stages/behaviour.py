"""Stages `answers/`, `task/`, `completions.parquet` and what follows from them: what every checkpoint does when asked.

Answers are kept by checkpoint, judgements by content, so that a stopped evaluation goes on where it was, and another
judge or another margin needs no new generation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from probes.behaviour.answering import answer_again, answering_record, base_flip_rate, prompt_frame
from probes.behaviour.evaluation import (
    BUILTIN,
    HARMFUL,
    Evaluation,
    answer_questions,
    fit_evaluation,
    judge_completions,
    progress_callback,
    with_questions,
)
from probes.behaviour.judges import UNJUDGED, Exchange, Judge, Judgement, JudgementCache, open_judge
from probes.behaviour.refusal_text import RULES
from probes.behaviour.swapped import swap_by_refusals
from probes.engine import current_engine
from probes.errors import StatisticsError
from probes.lineage import Member
from probes.models import ModelHost
from probes.models.checkpoint_folders import CheckpointFolders
from probes.progress import Progress, Report, silent, within
from probes.prompts import Prompt, PromptSet
from probes.run import Run
from probes.stages.answer_sources import AnswerSource, open_sources
from probes.stages.first_answers import (
    JUDGEMENTS,
    VERSION,
    answers_inputs,
    answers_key,
    first_stage,
    read_first_answers,
    refuse_overlap,
)
from probes.stages.jobs import StageJob, compute_parts, write_all
from probes.stages.rendering import left_out_sentence
from probes.stages.safety_answers import BASE_FLIPS, last_safety_answers
from probes.store import ALIGNED, fingerprint

if TYPE_CHECKING:
    import pandas as pd

_REPEATS = 3  # shuffled repeats behind the base flip rate
_JUDGED_AT_ONCE = 128  # answers, by one worker
_GENERATING = 0.9  # share of the stage's time by which answers are there


def write_behaviour(
    run: Run, model: CheckpointFolders, evaluation: Evaluation, report: Report, judges: list[Judge] | None = None
) -> None:
    """Ask every checkpoint, judge what it answers, and write rates, differences and flips.

    Args:
        run: with the checkpoints' hashes in its manifest.
        model: the run's, which is opened where somebody has to answer.
        evaluation: what is asked and who judges.
        report: told after every checkpoint and every few judgements.
        judges: the evaluation's judges, already open; None opens them.

    Raises:
        PromptError: a question is among the run's probe prompts (they are named).
        JudgeError: a judge cannot be opened.
    """
    refuse_overlap(run, evaluation)
    sources = open_sources(run, evaluation)
    judges = judges if judges is not None else [open_judge(name) for name in evaluation.judges]
    run.write_json("evaluation", evaluation.document())
    evaluation, left_out = fit_evaluation(evaluation, model, run.rendering)
    run.note("evaluation turns", " ".join(evaluation.prompts.notices) or None)
    run.note("evaluation prompts", left_out_sentence(left_out, "evaluation"))
    answers = write_answers(run, model, evaluation, sources, within(report, 0.0, _GENERATING))
    if _asks_again(evaluation, sources):
        _write_base_flips(run, evaluation, judges[0], answers[0])
    else:  # they are of other answers, or of another judge
        for stage in (BASE_FLIPS, *map(_again_stage, range(_REPEATS))):
            run.forget(stage)
    inputs = [answers, list(evaluation.judges), evaluation.margin, [list(pair) for pair in left_out]]
    topics = [prompt.topic for prompt in evaluation.questions.prompts]  # the same texts may be labelled otherwise
    inputs += [RULES] if BUILTIN in evaluation.judges else []
    made_from = fingerprint([VERSION, *inputs, list(evaluation.questions.ids), list(evaluation.labels), topics])
    if run.holds("behaviour", made_from) and run.has_json("safety") and not _may_judge_more(run, judges):
        return
    with run.stage("behaviour", made_from):
        tables = {member.id: run.read_table(f"answers/{member.id}") for member in run.members}
        frame = prompt_frame(model.tokenizer, run.rendering)
        length, places = evaluation.max_new_tokens, {name: source.place for name, source in sources.items()}
        run.write_json("answering", answering_record(length, tables, frame=frame, left_out=left_out, places=places))
        run.note("answers of files", _unanswered_sentence(evaluation, tables))
        _write_tables(run, evaluation, judges, within(report, _GENERATING, 1.0))


def write_answers(
    run: Run, model: CheckpointFolders, evaluation: Evaluation, sources: Mapping[str, AnswerSource], report: Report
) -> list[str]:
    """Write `answers/<checkpoint>` and `task/<checkpoint>` where they are not there yet; returns their fingerprints.

    What is answered elsewhere is taken from there, in this process. The aligned model is asked again beside the others.
    """
    inputs, keys = answers_inputs(model, evaluation), []
    local, elsewhere = list[StageJob](), list[StageJob]()
    for member in run.members:
        weights = run.manifest.checkpoints[member.id]["weights_sha256"]
        source = sources.get(member.id)
        keys.append(answers_key(inputs, weights, *(() if source is None else source.identity)))
        if not run.holds(f"answers/{member.id}", keys[-1]):
            work = _Answering(member, evaluation, source, keys[-1])
            jobs = local if source is None else elsewhere
            jobs.append(StageJob(f"Answers of {member.id}", f"answers/{member.id}", keys[-1], work))
    if _asks_again(evaluation, sources):
        local += _jobs_asking_again(run, evaluation, keys[0])
    share = len(elsewhere) / max(1, len(elsewhere) + len(local))
    if elsewhere:
        with current_engine().at_home().in_use():
            write_all(run, model, elsewhere, within(report, 0.0, share))
    if local:
        write_all(run, model, local, within(report, share, 1.0))
    for member in run.members:
        run.forget(first_stage(member.id))
    return keys


@dataclass(frozen=True)
class _Answering:
    """One checkpoint's answers, here or from where it answers."""

    member: Member
    evaluation: Evaluation
    source: AnswerSource | None
    key: str

    def __call__(self, run: Run, model: ModelHost, report: Report) -> None:
        """Write them."""
        name = self.member.id
        report(Progress("asking", 0, 1, name))
        done = progress_callback(report, "asking", name)
        if self.source is None:
            model.put(self.member.ref)
            first = read_first_answers(run, self.evaluation, self.member, self.key)
            answers, losses = answer_questions(model, self.evaluation, done, first)
        else:
            answers, losses = self.source.answer(self.evaluation, done)
        run.write_table(f"answers/{name}", answers)
        run.write_table(f"task/{name}", losses)


def _asks_again(evaluation: Evaluation, sources: Mapping[str, AnswerSource]) -> bool:
    """Whether the base flip rate is measured: asking others twice costs more than it tells."""
    return evaluation.judges[0] == BUILTIN and ALIGNED not in sources


def _jobs_asking_again(run: Run, evaluation: Evaluation, answers: str) -> list[StageJob]:
    """Stages with the aligned model's repeated answers, where the base flip rate of `answers` is not there yet."""
    if not _harmful(evaluation) or run.holds(BASE_FLIPS, _flips_key(evaluation, answers)):
        return []
    made_from = _again_key(evaluation, answers)
    repeats = [repeat for repeat in range(_REPEATS) if not run.holds(_again_stage(repeat), made_from)]
    names = [f"Answers of {ALIGNED}, again {repeat + 1}" for repeat in repeats]
    return [
        StageJob(name, _again_stage(repeat), made_from, _AnsweringAgain(evaluation, repeat))
        for name, repeat in zip(names, repeats, strict=True)
    ]


def _harmful(evaluation: Evaluation) -> tuple[Prompt, ...]:
    return tuple(prompt for prompt in evaluation.prompts.prompts if prompt.label == HARMFUL)


def _again_key(evaluation: Evaluation, answers: str) -> str:
    return fingerprint([VERSION, answers, [prompt.id for prompt in _harmful(evaluation)]])


def _flips_key(evaluation: Evaluation, answers: str) -> str:
    return fingerprint([VERSION, RULES, answers, [prompt.id for prompt in _harmful(evaluation)]])


def _write_base_flips(run: Run, evaluation: Evaluation, judge: Judge, answers: str) -> None:
    """Write `base_flips.json`: the share of harmful requests at which the aligned model, asked again, flips.

    `answers` is the fingerprint of what the model answered at first.
    """
    harmful, made_from, rate = _harmful(evaluation), _flips_key(evaluation, answers), None
    if not harmful or run.holds(BASE_FLIPS, made_from):
        return
    with run.stage(BASE_FLIPS, made_from):
        table = with_questions(run.read_table(f"answers/{ALIGNED}"), evaluation).set_index("prompt")["completion"]
        again = [run.read_table(_again_stage(repeat))["completion"].tolist() for repeat in range(_REPEATS)]
        with contextlib.suppress(StatisticsError):  # no answer could be judged
            rate = base_flip_rate(PromptSet(harmful), [table[prompt.id] for prompt in harmful], again, judge)
        run.write_json(BASE_FLIPS, {"rate": rate, "repeats": _REPEATS, "rules": RULES})


def _again_stage(repeat: int) -> str:
    """Where repeated answers are, to be judged again by other rules; no checkpoint's own answers are called so."""
    return f"answers/{ALIGNED}.again-{repeat + 1}"


@dataclass(frozen=True)
class _AnsweringAgain:
    """The aligned model's answers to harmful requests in batches that are shuffled."""

    evaluation: Evaluation
    repeat: int

    def __call__(self, run: Run, model: ModelHost, report: Report) -> None:
        """Write them."""
        import pandas as pd

        report(Progress("asking again", 0, 1, ALIGNED))
        model.put(run.lineage.aligned)
        length, rendering = self.evaluation.max_new_tokens, self.evaluation.rendering
        prompts = PromptSet(_harmful(self.evaluation))
        answers = answer_again(model, prompts, self.repeat, max_new_tokens=length, rendering=rendering)
        run.write_table(_again_stage(self.repeat), pd.DataFrame({"completion": answers}))


def _write_tables(run: Run, evaluation: Evaluation, judges: list[Judge], report: Report) -> None:
    import pandas as pd

    completions = pd.concat(
        [
            with_questions(run.read_table(f"answers/{member.id}"), evaluation).assign(**member.labels)
            for member in run.members
        ],
        ignore_index=True,
    )
    cache, several = JudgementCache(run.path / JUDGEMENTS), _judges_of_workers(run, judges)
    completions, agreement = judge_completions(completions, several, cache, report)
    run.write_json("judges", agreement)
    run.write_table("completions", completions)
    tables = {name: partial(_table, name, evaluation) for name in ("contrasts", "behaviour", "flips")}
    for name, table in zip(tables, compute_parts(run, tables, silent), strict=True):
        run.write_table(name, table)
    _keep_notices(run, completions)
    answers = last_safety_answers(run).items()
    entries = [{"arm": arm, "seed": seed, **answer.to_json(), "text": answer.text} for (arm, seed), answer in answers]
    run.write_json("safety", entries)


def _table(name: str, evaluation: Evaluation, run: Run, _: Report) -> pd.DataFrame:
    """One of the tables that follow from `completions.parquet` and the losses."""
    import pandas as pd

    from probes.behaviour import rate_tables as tables

    completions = run.read_table("completions")
    if name == "flips":
        return tables.flips(completions)
    losses = pd.concat(
        [run.read_table(f"task/{member.id}").assign(**member.labels) for member in run.members], ignore_index=True
    )
    if name == "contrasts":
        return tables.contrasts(completions, losses, margin=evaluation.margin)
    return tables.rates(completions, losses, evaluation.judges)


@dataclass
class _AmongWorkers:
    """The judge by wording, who needs nothing but time, asked by all workers of this machine at once."""

    run: Run
    name: str = BUILTIN
    identity: str | None = None

    def label(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement for each exchange, in order."""
        starts = range(0, len(exchanges), _JUDGED_AT_ONCE)
        parts = {
            f"Judging from {start}": partial(_label, exchanges[start : start + _JUDGED_AT_ONCE]) for start in starts
        }
        for judgements in compute_parts(self.run, parts, silent):
            yield from judgements


def _label(exchanges: Sequence[Exchange], _: Run, __: Report) -> list[Judgement]:
    return list(open_judge(BUILTIN).label(exchanges))


def _judges_of_workers(run: Run, judges: Sequence[Judge]) -> list[Judge]:
    """The same judges; alone in this process, the one by wording tells its progress better."""
    if current_engine().in_process:
        return list(judges)
    return [_AmongWorkers(run) if judge.name == BUILTIN else judge for judge in judges]


def _unanswered_sentence(evaluation: Evaluation, answers: Mapping[str, pd.DataFrame]) -> str | None:
    """How many questions the files of answers leave open; None where none."""
    missing = {name: int(answers[name]["completion"].isna().sum()) for name, _, _ in evaluation.answers}
    counts = ", ".join(f"{name}: {count} of {len(answers[name])}" for name, count in missing.items() if count)
    return f"Questions without an answer in the file of answers are unjudged ({counts})." if counts else None


def _keep_notices(run: Run, completions: pd.DataFrame) -> None:
    """Say in the manifest where aligned and witness look swapped by what they refuse; it counts more than scores."""
    harmful = completions[(completions["label"] == "harmful") & (completions["verdict"] != UNJUDGED)]
    refused = harmful.pivot_table(index="prompt", columns="checkpoint", values="refused", aggfunc="first")
    if not {ALIGNED, "witness"} <= set(refused.columns):
        return
    roles = refused[[ALIGNED, "witness"]].dropna().astype(bool)
    if len(roles):
        run.note("refusals", swap_by_refusals(roles[ALIGNED].to_numpy(), roles["witness"].to_numpy()))


def _may_judge_more(run: Run, judges: Sequence[Judge]) -> bool:
    """Whether a judge that may answer otherwise when asked again left an answer open; the built-in one never does."""
    record = run.read_json("answering")["checkpoints"].values()
    missing = sum(checkpoint["missing"] for checkpoint in record)
    unjudged = run.read_json("judges")["unjudged"]
    return any(judge.identity is not None and unjudged.get(judge.name, 0) > missing for judge in judges)
