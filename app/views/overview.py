"""Overview: the verdict, the well, the lineage to scale, behaviour against the return, and interventions."""

from __future__ import annotations

import html
import math
import re
from typing import Any

import pandas as pd
import streamlit as st

from app import cache, cached_figures, charts, components, in_turn, intervening, returning, stepping, wells
from app.components import Context
from probes.lineage import MIRROR, NO_WITNESS
from probes.nulls import NO_FURTHER_PASS
from probes.plots import style
from probes.statistics import ALPHA, STATISTICS, null_name, statistic_of

RUNGS = 6


def show(run: Context) -> None:
    """Draw the page."""
    if not run.has_witness:
        _show_without_witness(run)
        return
    verdicts = _verdicts(run)
    _answer(run, verdicts)
    with components.section():
        _well(run)
    in_turn.pause()
    with components.section():
        _lineage(run)
    with components.section():
        _behaviour(run)
    with components.section():
        _interventions(run)
    components.note(
        "Alignment and return by step with their nulls, the refusal probe and all numbers: on the page Trajectories."
    )


def _lineage(run: Context) -> None:
    """The return of every arm to scale; why, where the layer has none."""
    rows = cache.drift(run.key, run.layer)
    if stepping.says_undefined(run, rows[rows["statistic"] == "return_fraction"], "return_fraction"):
        return
    figure = cached_figures.lineage_figure(run.key, run.layer, run.subtitle(), run.witness, run.ink)
    charts.chart(
        figure,
        cache.lineage_rows(run.key, run.layer),
        name="lineage",
        alt="Return fraction of each arm between the aligned model at 0 and the witness at 1",
    )


def _well(run: Context) -> None:
    """Where harmful prompts lie and the arms go; nothing where there is no density, which the page Well explains."""
    if not wells.lacking(run):
        wells.draw(run, "contours")


def _show_without_witness(run: Context) -> None:
    """The answer first: did this fine-tune break safety? Then what else needs no witness."""
    answer, arm = _entry_of(_safety_answers(run), run), _name(run)
    if answer is None:
        components.header("Overview", f"{arm}: safety is not judged yet", "Let the checkpoints answer, and it is:")
        components.command(f"gravity-probe evaluate {run.command_path}")
    else:
        components.header("Overview", f"{arm}: safety {answer['answer']}")
        _why(answer["text"])
    components.notices(run)
    components.note(f"The way back, its tests and its level are not defined: {NO_WITNESS}.")
    with components.section():
        stepping.probe_section(run)
    in_turn.pause()
    for section in (stepping.steps_without_witness, _behaviour, stepping.all_numbers):
        with components.section():
            section(run)


def _verdicts(run: Context) -> list[dict[str, Any]]:
    with components.section():
        return cache.verdicts(run.key)
    return []


def _answer(run: Context, verdicts: list[dict[str, Any]]) -> None:
    """Safety in one line, the level in one, the numbers they are about, and every trajectory's level."""
    answers, arm = _safety_answers(run), _name(run)
    verdict, safety = _entry_of(verdicts, run), _entry_of(answers, run)
    rows = cache.drift(run.key, run.layer)
    fraction, alignment = (_estimate(rows, run, name) for name in ("return_fraction", "alignment_crossfit"))
    if verdict is None:
        way = f"from the {run.witness} to the aligned model" if run.arm == MIRROR else f"back to the {run.witness}"
        level = f"{arm} went {_percent(fraction)} of the way {way}"
        lead = "This number has not been held against a null, so it is no verdict."
    else:
        level, lead = f"{arm}: {_spoken(verdict.get('name', 'no name'))}", f"Evidence level {_level(verdict)}."
    if safety is None:
        components.header("Overview", level, lead)
    elif verdict is None:
        components.header("Overview", f"{arm}: safety {safety['answer']}", f"{level}. {lead}")
    else:
        name = _spoken(verdict.get("name", "no name"))
        components.header("Overview", f"{arm}: safety {safety['answer']}", f"Evidence level {_level(verdict)}: {name}.")
    components.notices(run)
    _why(*(_spoken(entry["text"]) for entry in (safety, verdict) if entry and entry.get("text")))
    if verdict is not None and "alignment" in verdict and "trajectory" not in verdict:
        components.missing(
            "This verdict was written by an earlier version, and speaks of the trajectory's mean alignment.",
            f"gravity-probe verdict {run.command_path}",
        )
    _numbers(run, fraction, alignment)
    if verdicts:
        _ladder(verdicts, answers)
    else:
        components.missing("No verdict has been written for this run.", f"gravity-probe verdict {run.command_path}")


def _why(*paragraphs: str) -> None:
    """The answers' own paragraphs, behind a fold."""
    if paragraphs:
        with st.expander("Why"):
            for text in paragraphs:
                components.paragraph(text)


def _numbers(run: Context, fraction: dict[str, Any], alignment: dict[str, Any]) -> None:
    """The numbers at the selected step and layer, and a word where those are not what was judged."""
    place = f"at step {run.step:,}, {components.layer_name(run.layer)}"
    numbers = [
        (style.decimal(fraction["value"]), f"return fraction {place}{_interval(fraction)}"),
        (
            style.decimal(alignment["value"]),
            f"alignment with the way back, cross-fitted, {place}{_interval(alignment)}",
        ),
    ]
    with components.section():
        numbers += _beyond_nulls(run)
    with components.section():
        numbers += _alarm(run)
    with components.section():
        numbers += _refusal(run)
    st.html('<div class="gp-numbers">' + "".join(_number(*entry) for entry in numbers) + "</div>")
    last, headline = run.catalogue.steps[run.arm, run.seed][-1], run.catalogue.headline
    if (run.step, run.layer) != (last, headline):
        components.note(
            f"Safety and level are judged at the last step, {last:,}, the level at the pre-registered "
            f"{components.layer_name(headline)}; the numbers are of the step and layer chosen in the sidebar."
        )


def _name(run: Context) -> str:
    """The selected arm, as a line begins with it."""
    several = sum(arm == run.arm for arm, _ in run.catalogue.trajectories) > 1
    return run.arm.capitalize() + (f", seed {run.seed}" if several else "")


def _level(verdict: dict[str, Any]) -> str:
    return f"{verdict['level']} of {RUNGS}" if verdict.get("level") else "not defined"


def _entry_of(entries: list[dict[str, Any]], run: Context) -> dict[str, Any] | None:
    """What was said of the selected trajectory; None where nothing was."""
    return next((entry for entry in entries if _is_selected(entry, run)), None)


def _safety_answers(run: Context) -> list[dict[str, Any]]:
    """Did this fine-tune break safety? The answer for every trajectory that was judged."""
    with components.section():
        return list(cache.document(run.key, "safety") or [])
    return []


def _spoken(text: object) -> str:
    """Text of a verdict with the names of nulls and statistics as words."""
    return re.sub(r"\b[a-z]+(_[a-z0-9]+)+\b", lambda name: name.group().replace("_", " "), str(text))


def _is_selected(entry: dict[str, Any], run: Context) -> bool:
    return (entry.get("arm"), entry.get("seed", 0)) == (run.arm, run.seed)


def _rows_of_trajectory(rows: pd.DataFrame, run: Context) -> pd.DataFrame:
    """The rows of the selected trajectory."""
    return rows[(rows["arm"] == run.arm) & (rows["seed"] == run.seed)]


def _estimate(rows: pd.DataFrame, run: Context, statistic: str) -> dict[str, Any]:
    own = _rows_of_trajectory(rows, run)
    chosen = own[(own["step"] == run.step) & (own["statistic"] == statistic)]
    return chosen.iloc[0].to_dict() if len(chosen) else {"value": math.nan, "low": math.nan, "high": math.nan}


def _percent(estimate: dict[str, Any]) -> str:
    value = estimate["value"]
    return "an undefined part" if value is None or not math.isfinite(value) else f"{style.decimal(100 * value, 0)} %"


def _interval(estimate: dict[str, Any]) -> str:
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f", 95 % interval {style.decimal(low)} to {style.decimal(high)}"


def _beyond_nulls(run: Context) -> list[tuple[str, str]]:
    """The first step beyond the verdict's tests, at the verdict's level; the shams are of the last step alone."""
    rows = _rows_of_trajectory(cache.tests(run.key, run.layer), run)
    rows = rows[rows["null"].isin(NO_FURTHER_PASS) & rows["p"].notna()]
    if rows.empty:
        return []
    level, steps = run.manifest.config.get("alpha", ALPHA), rows.groupby("step")
    beyond = [int(step) for step, part in steps if (part["p"] <= level).all()]
    nulls = ", ".join(null_name(name) for name in dict.fromkeys(rows["null"]))
    uncorrected = f", not corrected for the {steps.ngroups} steps" if steps.ngroups > 1 else ""
    words = f"of the verdict's tests at {components.layer_name(run.layer)}, p ≤ {level:g} ({nulls}){uncorrected}; "
    words += "its shams are of the last step alone"
    if beyond:
        return [(f"step {min(beyond):,}", f"first beyond all {words}")]
    return [("no step", f"was beyond all {words}")]


def _alarm(run: Context) -> list[tuple[str, str]]:
    """Where the guard that watched this training rang, in its own words."""
    alarm = cache.document(run.key, "alarm")
    own = isinstance(alarm, dict) and "step" in alarm and len(run.catalogue.trajectories) == 1
    return [(f"step {int(alarm['step']):,}", f"the guard's alarm rang: {alarm.get('said', '')}")] if own else []


def _refusal(run: Context) -> list[tuple[str, str]]:
    if not cache.has_table(run.key, "behaviour"):
        return []
    rows = cache.table(run.key, "behaviour", None, (("measure", "==", "refusal_harmful"),))
    own = _rows_of_trajectory(rows, run)
    own = own[own["step"] == run.step]["value"]
    before = rows[rows["arm"] == ("witness" if run.arm == MIRROR else "aligned")]["value"]
    if own.empty:
        return []
    text = f"of harmful requests refused at step {run.step:,}"
    if len(before):
        text += f"; {style.percent(before.iloc[0])} before fine-tuning"
    return [(style.percent(own.iloc[0]), text)]


def _number(value: str, text: str) -> str:
    return f'<div class="gp-number"><b>{html.escape(value)}</b><span>{components.in_html(text)}</span></div>'


def _ladder(verdicts: list[dict[str, Any]], safety_answers: list[dict[str, Any]]) -> None:
    """Every trajectory's safety and level; seeds of one arm that came to the same share a line."""
    answers = {(str(entry.get("arm")), entry.get("seed", 0)): entry for entry in safety_answers}
    lines: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry in sorted(verdicts, key=lambda entry: str(entry.get("seed", 0))):
        safety = answers.get((str(entry.get("arm")), entry.get("seed", 0)), {})
        same = tuple(str(entry.get(part) or "") for part in ("arm", "level", "name", "decided_by"))
        lines.setdefault((*same, str(safety.get("answer", ""))), []).append({**entry, "safety": safety})
    order = style.in_order(same[0] for same in lines)
    ranked = sorted(lines, key=lambda same: (order.index(same[0]), same[1]))
    safety_head = "<th>safety</th><th>refusal rate</th>" if answers else ""
    head = f"<tr><th>arm</th><th>seed</th>{safety_head}<th colspan=2>evidence level, of 6</th>"
    head += "<th>decided by</th><th>p</th></tr>"
    rows = "".join(_ladder_row(lines[same], has_safety=bool(answers)) for same in ranked)
    box = '<div class="gp-wide" tabindex="0" role="region" aria-label="Every trajectory">'
    st.html(f'{box}<table class="gp-ladder">{head}{rows}</table></div>')


def _ladder_row(entries: list[dict[str, Any]], *, has_safety: bool) -> str:
    first = entries[0]
    arm, level = str(first["arm"]), first.get("level")
    level = level if isinstance(level, int) and 1 <= level <= RUNGS else 0
    colour = style.mark_of(arm).colour
    rungs = "".join(f'<i style="background:{colour}"></i>' if rung < level else "<i></i>" for rung in range(RUNGS))
    chances = [entry["p"] for entry in entries if isinstance(entry.get("p"), int | float)]
    cells = [html.escape(arm), html.escape(", ".join(str(entry.get("seed", 0)) for entry in entries))]
    if has_safety:
        cells += [html.escape(str(first["safety"].get("answer", "–"))), _refusals(entries)]
    cells += [
        f'<span class="gp-rungs" title="level {level} of {RUNGS}">{rungs}</span>&ensp;{level or "–"}',
        html.escape(_spoken(first.get("name", ""))),
        html.escape(_test_name(str(first.get("decided_by") or "–"))),
    ]
    shown = ("at most " if len(entries) > 1 else "") + f"{max(chances):.3g}" if chances else "–"
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + f'<td class="n">{shown}</td></tr>'


def _refusals(entries: list[dict[str, Any]]) -> str:
    """What share of harmful requests is refused after fine-tuning: of several seeds, from the least to the most."""
    rates = sorted(float(rate) for entry in entries if (rate := entry["safety"].get("refusal_after")) is not None)
    ends = dict.fromkeys(style.percent(rate) for rate in (rates[:1] + rates[-1:]))
    return " to ".join(ends).replace(" %", "\u00a0%") or "–"


def _test_name(name: str) -> str:
    """A null's or a statistic's name in words."""
    return statistic_of(name).title.lower() if name in STATISTICS else null_name(name)


def _rate(run: Context) -> str | None:
    """The rate that is shown; None, with the command said, where no answers were judged."""
    has_rows = cache.has_table(run.key, "behaviour")
    rate = returning.first_rate(cache.table(run.key, "behaviour", ("measure",))["measure"]) if has_rows else None
    if rate is None:
        components.missing(
            "No answers were generated in this run, so refusals and compliance cannot be shown."
            + (" Its refusal scores are on the page Behaviour." if has_rows else ""),
            f"gravity-probe evaluate {run.command_path}",
            "The command generates text with every checkpoint and judges it.",
        )
    return rate


def _behaviour(run: Context) -> None:
    """What the models do, by step and against the return."""
    st.header("Behaviour", anchor=False)
    rate = _rate(run)
    if rate is not None:
        if run.has_witness:
            returning.against_return(run, rate)
        returning.by_step(run, rate)


def _interventions(run: Context) -> None:
    """Whether the motion along the reversion is what changes behaviour."""
    st.header("Interventions", anchor=False)
    intervening.mediation(run, run.catalogue.checkpoints[run.arm, run.seed, run.step])


show(components.context())
