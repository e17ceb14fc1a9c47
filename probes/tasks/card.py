"""A block for a model card: what a run says of one arm, to be pasted as it stands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probes.behaviour.evaluation import name_judges
from probes.errors import RunFolderError, UsageError
from probes.lineage import NO_WITNESS, Trajectory
from probes.run import Run
from probes.statistics import Estimate, decimal, percent, typeset
from probes.tasks.report import how_to_reproduce
from probes.tasks.summarise import behaviour_by_step
from probes.verdict.sentences import QUALIFIER_WORDS

_DASH = "–"
_MAIN = "baseline"
_HEADER = "---\ntags:\n- gravity-probe\n---\n"  # of a card that has none yet
_QUALIFIERS = {
    "off_refusal_axis": "off the refusal axis?",
    "mirror": "more than its mirror?",
    "continued": "more than continued alignment?",
}
_RATES = {
    "refusal_harmful": "refuses harmful requests",
    "harmful_compliance": "complies with harmful requests",
    "over_refusal": "refuses harmless look-alikes",
    "refusal_harmless": "refuses harmless requests",
}


@dataclass(frozen=True)
class _Row:
    """What a run says of the last checkpoint of one trajectory.

    Attributes:
        trajectory: the training.
        step: of its last checkpoint.
        safety: its entry of `safety.json`; empty where it was not judged.
        verdict: its entry of `verdict.json`; empty where there is none.
        statistics: at the headline layer, by name; empty where nothing was measured.
        behaviour: measures by name, of the aligned model and of the checkpoint.
    """

    trajectory: Trajectory
    step: int
    safety: Mapping[str, Any]
    verdict: Mapping[str, Any]
    statistics: Mapping[str, Estimate]
    behaviour: tuple[Mapping[str, float], Mapping[str, float]]


def card_markdown(run: Run, arm: str | None = None) -> str:
    """The block: a YAML header, the safety answer, a table, what was not tested, and the command.

    Args:
        run: a measured run; what it does not hold is said to be untested.
        arm: the training whose last checkpoints the card is of, a column a seed; None is the baseline, or the first.

    Raises:
        UsageError: the run has no such arm.
        RunFolderError: it has no trajectory.
    """
    rows = _rows(run, arm)
    name = rows[0].trajectory.arm
    parts = [
        _HEADER,
        f"## Safety after fine-tuning: {_cell(name)}\n",
        *(f"{sentence}\n" for sentence in _answers(rows)),
        "\n".join(_table(run, rows)) + "\n",
        "**Not tested, or not decided**\n",
        "\n".join(f"- {_line(sentence)}" for sentence in _list_untested(run, rows)) + "\n",
        *_notices(run),
        _measured_with(run),
    ]
    return "\n".join(parts)


def _rows(run: Run, arm: str | None) -> list[_Row]:
    trajectories = run.lineage.trajectories
    arms = list(dict.fromkeys(trajectory.arm for trajectory in trajectories))
    if not arms:
        raise RunFolderError(f"{run.path} has no fine-tuned checkpoint to write a card of")
    if arm is None:
        arm = _MAIN if _MAIN in arms else arms[0]
    if arm not in arms:
        raise UsageError("The run has no such arm", got=repr(arm), expected=", ".join(arms))
    answers = _by_place(run.read_json("safety")) if run.has_json("safety") else {}
    verdicts, layer = _by_place(run.verdicts), run.headline_layer
    estimates = run.estimates(layer) if run.has_table("drift") else {}
    behaviour = behaviour_by_step(run)
    rows = []
    for trajectory in trajectories:
        place, step = (trajectory.arm, trajectory.seed), trajectory.checkpoints[-1].step
        if trajectory.arm == arm:
            statistics = estimates.get((*place, layer), {}).get(step, {})
            measures = (behaviour.get(("aligned", 0, 0), {}), behaviour.get((*place, step), {}))
            known = answers.get(place, {}), verdicts.get(place, {})
            rows.append(_Row(trajectory, step, *known, statistics, measures))
    return rows


def _by_place(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {(str(entry["arm"]), int(entry["seed"])): entry for entry in entries}


def _answers(rows: Sequence[_Row]) -> Iterator[str]:
    """Did this fine-tune break safety? In the words of the summary, a sentence a seed."""
    for row in rows:
        text = row.safety.get("text") or "Not judged: no harmful request was asked."
        yield f"**{_seed_name(row)}:** {_line(typeset(str(text)))}"


def _table(run: Run, rows: Sequence[_Row]) -> Iterator[str]:
    yield f"| | {' | '.join(map(_seed_name, rows))} |"
    yield "|---|" + "---|" * len(rows)
    for label, cell in _cells(run):
        cells = [cell(row) for row in rows]
        if any(text != _DASH for text in cells):
            yield f"| {label} | {' | '.join(map(_cell, cells))} |"


def _cells(run: Run) -> Iterator[tuple[str, Callable[[_Row], str]]]:
    """Labels of the lines, and what stands there for a seed."""
    yield "safety", lambda row: str(row.safety.get("answer", _DASH))
    for measure, label in _RATES.items():
        yield f"{label}, before → after", _change(measure, percent)
    yield "loss on the fine-tuning task (nats per token), before → after", _change("task_loss", decimal)
    layer = run.headline_layer
    witness = run.lineage.witness_label
    yield f"return fraction at layer {layer} (0: aligned, 1: {witness})", _statistic("return_fraction")
    yield f"alignment with the way back at layer {layer}", _statistic("alignment_crossfit")
    yield "evidence level (of 6)", _level
    for name, label in _QUALIFIERS.items():
        yield label, _qualifier(name)


def _change(measure: str, write: Callable[[float | None], str]) -> Callable[[_Row], str]:
    def show(row: _Row) -> str:
        before, after = (measures.get(measure) for measures in row.behaviour)
        return _DASH if after is None else f"{write(before)} → {write(after)}"

    return show


def _statistic(name: str) -> Callable[[_Row], str]:
    def show(row: _Row) -> str:
        estimate = row.statistics.get(name)
        if estimate is None or estimate.value is None:
            return _DASH
        return f"{decimal(estimate.value)} (95 % interval {decimal(estimate.low)} to {decimal(estimate.high)})"

    return show


def _level(row: _Row) -> str:
    level = row.verdict.get("level")
    return _DASH if level is None else f"{level}, {row.verdict.get('name', '')}"


def _qualifier(name: str) -> Callable[[_Row], str]:
    def show(row: _Row) -> str:
        entry = row.verdict.get(name)
        if not isinstance(entry, Mapping):
            return _DASH
        words = QUALIFIER_WORDS.get(str(entry.get("answer")), _DASH)
        if entry.get("difference") is None:
            return words
        low, high = decimal(entry["low"]), decimal(entry["high"])
        return f"{words}: difference {decimal(entry['difference'])} ({low} to {high})"

    return show


def _list_untested(run: Run, rows: Sequence[_Row]) -> list[str]:
    """What nobody may read into the numbers above, each sentence once."""
    sentences = []
    if not all(row.safety for row in rows):
        sentences.append("Behaviour: not every seed's answers were judged.")
    if not any("task_loss" in row.behaviour[1] for row in rows):
        sentences.append("The loss on the fine-tuning task.")
    if not run.has_witness:
        sentences.append(f"The way back, its tests and its level: not defined, {NO_WITNESS}.")
    elif not all(row.verdict for row in rows):
        sentences.append("The evidence level: no test against a null was made.")
    for row in rows:
        sentences += [typeset(str(sentence)) for sentence in row.verdict.get("untested", ())]
    sentences.append("Jailbreaks, many-turn conversations, tools, and other languages than those of the prompts.")
    return list(dict.fromkeys(sentences))


def _notices(run: Run) -> Iterator[str]:
    if run.notices:
        yield "**Notices of the run**\n"
        yield "\n".join(f"- {_line(notice)}" for notice in run.notices) + "\n"


def _measured_with(run: Run) -> str:
    """Judges, prompts, and the command with its version."""
    judges = name_judges(run.read_json("judges")) if run.has_json("judges") else "none"
    prompts = run.read_table("prompts", columns=["label"])["label"].value_counts().to_dict()
    counts = " and ".join(f"{number} {label}" for label, number in sorted(prompts.items()))
    commands = "\n".join(how_to_reproduce(run.manifest, shlex.quote(run.manifest.name)))
    return (
        f"Measured with Gravity Probe {run.manifest.tool_version}; judge of the answers: {_line(judges)}; "
        f"directions from {counts} probe prompts.\n\n```\n{commands}\n```\n"
    )


def _seed_name(row: _Row) -> str:
    return f"seed {row.trajectory.seed}, step {row.step}"


def _line(text: str) -> str:
    """Text of a run as one line of Markdown, in which nothing of it is markup."""
    flat = " ".join(text.split()).replace("\\", "\\\\")
    for mark in "`*_<[":
        flat = flat.replace(mark, f"\\{mark}")
    return flat


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
