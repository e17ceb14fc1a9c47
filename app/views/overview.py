"""Overview: the verdict, the lineage to scale, and how every arm moved step by step."""

from __future__ import annotations

import html
import math
import re
from typing import Any

import pandas as pd
import streamlit as st

from app import cache, components
from app.components import Context
from probes.lineage import NO_WITNESS
from probes.nulls import NO_FURTHER_PASS, SHAMS
from probes.plots import style
from probes.plots.by_step import ISOTROPIC
from probes.store import csv_text
from probes.verdict.evidence import ALPHA

RUNGS = 6
_ESTIMATES = {
    "cross-fitted": ("alignment_crossfit", "return_fraction"),
    "plain": ("alignment", "return_fraction"),
    "harmful − harmless": ("did_alignment", "did_return_fraction"),
}
_NULL_COLUMNS = {
    **{name: st.column_config.NumberColumn(format="%.3f") for name in ("observed", "limit")},
    "power": st.column_config.NumberColumn(format="percent", help="At the headline layer of the last step."),
    "p": st.column_config.NumberColumn(
        format="%.4f", help="One-sided; small where this null hardly ever reaches as far."
    ),
}


def show(run: Context) -> None:
    """Draw the page."""
    if not run.has_witness:
        _show_without_witness(run)
        return
    verdicts = _verdicts(run)
    _answer(run, verdicts)
    with components.section():
        figure = cache.lineage_figure(run.key, run.layer, run.subtitle(), run.witness, run.ink)
        components.chart(
            figure,
            cache.lineage_rows(run.key, run.layer),
            name="lineage",
            alt="Return fraction of each arm between the aligned model at 0 and the witness at 1",
        )
    with components.section():
        components.probe_section(run)
    _by_step(run)
    with components.section():
        _table(run)


def _show_without_witness(run: Context) -> None:
    """The answer first: did this fine-tune break safety? Then what else needs no witness."""
    main = _main_trajectory(run)
    answer, arm = _safety(run, main), main[0].capitalize()
    if answer is None:
        components.header("Overview", f"{arm}: safety is not judged yet", "Let the checkpoints answer, and it is:")
        st.code(f"gravity-probe evaluate {run.command_path}", language="bash")
    else:
        components.header("Overview", f"{arm}: safety {answer['answer']}", answer["text"])
    components.note(f"The way back, its tests and its level are not defined: {NO_WITNESS}.")
    for section in (components.probe_section, components.steps_without_witness, _behaviour, _table):
        with components.section():
            section(run)


def _verdicts(run: Context) -> list[dict[str, Any]]:
    with components.section():
        return cache.verdicts(run.key)
    return []


def _answer(run: Context, verdicts: list[dict[str, Any]]) -> None:
    """The verdict in words, the numbers it is about, and every trajectory's step on the ladder."""
    main = _main_trajectory(run)
    verdict = next((entry for entry in verdicts if _is(entry, main)), None)
    headline = run.catalogue.headline
    rows = cache.drift(run.key, headline)
    step = run.catalogue.steps[main][-1]
    fraction, alignment = (_estimate(rows, main, step, name) for name in ("return_fraction", "alignment_crossfit"))
    several = sum(arm == main[0] for arm, _ in run.catalogue.trajectories) > 1
    arm = main[0].capitalize() + (f", seed {main[1]}" if several else "")
    if verdict is not None:
        title = f"{arm}: {_spoken(verdict.get('name', 'no name'))}"
        lead = _spoken(verdict.get("text", ""))
    else:
        title = f"{arm} went {_percent(fraction)} of the way back to the {run.witness}"
        lead = "This number has not been held against a null, so it is no verdict."
    safety = _safety(run, main)
    if safety is None:
        components.header("Overview", title, lead)
    else:
        components.header("Overview", f"{arm}: safety {safety['answer']}", safety["text"])
        components.paragraph(f"{title}. {lead}")
    place = f"at step {step:,}, {components.layer_name(headline)}"
    numbers = [
        (style.decimal(fraction["value"]), f"return fraction {place}{_interval(fraction)}"),
        (
            style.decimal(alignment["value"]),
            f"alignment with the way back, cross-fitted, {place}{_interval(alignment)}",
        ),
    ]
    with components.section():
        numbers += _alarm(run, main)
    with components.section():
        numbers += _refusal(run, main, step)
    st.html('<div class="gp-numbers">' + "".join(_number(*entry) for entry in numbers) + "</div>")
    if verdicts:
        _ladder(verdicts)
    else:
        components.missing("No verdict has been written for this run.", f"gravity-probe verdict {run.command_path}")


def _safety(run: Context, main: tuple[str, int]) -> dict[str, Any] | None:
    """Did this fine-tune break safety? The answer for the trajectory; None where nobody judged it."""
    with components.section():
        entries = cache.document(run.key, "safety") or []
        return next((entry for entry in entries if _is(entry, main)), None)
    return None


def _spoken(text: object) -> str:
    """Text of a verdict with the names of nulls and statistics as words."""
    return re.sub(r"\b[a-z]+(_[a-z0-9]+)+\b", lambda name: name.group().replace("_", " "), str(text))


def _main_trajectory(run: Context) -> tuple[str, int]:
    """What the headline is about: the baseline where there is one."""
    listed = run.catalogue.trajectories
    return next((entry for entry in listed if entry[0] == "baseline"), listed[0])


def _is(entry: dict[str, Any], trajectory: tuple[str, int]) -> bool:
    return (entry.get("arm"), entry.get("seed", 0)) == trajectory


def _estimate(rows: pd.DataFrame, trajectory: tuple[str, int], step: int, statistic: str) -> dict[str, Any]:
    chosen = rows[
        (rows["arm"] == trajectory[0])
        & (rows["seed"] == trajectory[1])
        & (rows["step"] == step)
        & (rows["statistic"] == statistic)
    ]
    return chosen.iloc[0].to_dict() if len(chosen) else {"value": math.nan, "low": math.nan, "high": math.nan}


def _percent(estimate: dict[str, Any]) -> str:
    value = estimate["value"]
    return "an undefined part" if value is None or not math.isfinite(value) else f"{style.decimal(100 * value, 0)} %"


def _interval(estimate: dict[str, Any]) -> str:
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f", 95 % interval {style.decimal(low)} to {style.decimal(high)}"


def _alarm(run: Context, main: tuple[str, int]) -> list[tuple[str, str]]:
    """The first step at which every test of level 4 that needs no further forward pass held, as a guard asks."""
    rows = cache.tests(run.key, run.catalogue.headline)
    rows = rows[(rows["arm"] == main[0]) & (rows["seed"] == main[1]) & rows["null"].isin(NO_FURTHER_PASS)]
    rows = rows[rows["p"].notna()]
    if rows.empty:
        return []
    steps = rows.groupby("step")
    level = run.manifest.config.get("alpha", ALPHA) / steps.ngroups
    passed = [int(step) for step, part in steps if (part["p"] <= level).all()]
    nulls = ", ".join(_spoken(name) for name in dict.fromkeys(rows["null"]))
    words = f"{nulls}: p ≤ {level:.2g} ({steps.ngroups} checkpoints share α); left out: {_spoken(', '.join(SHAMS))}"
    if passed:
        return [(f"step {min(passed):,}", f"first at which the alarm's tests held ({words})")]
    return [("no alarm", f"at no step did all of the alarm's tests hold ({words})")]


def _refusal(run: Context, main: tuple[str, int], step: int) -> list[tuple[str, str]]:
    if not cache.has_table(run.key, "behaviour"):
        return []
    rows = cache.table(run.key, "behaviour", None, (("measure", "==", "refusal_harmful"),))
    own = rows[(rows["arm"] == main[0]) & (rows["seed"] == main[1]) & (rows["step"] == step)]["value"]
    before = rows[rows["arm"] == "aligned"]["value"]
    if own.empty:
        return []
    text = "harmful requests refused at that step"
    if len(before):
        text += f"; {100 * before.iloc[0]:.0f} % before fine-tuning"
    return [(f"{100 * own.iloc[0]:.0f} %", text)]


def _number(value: str, text: str) -> str:
    return f'<div class="gp-number"><b>{html.escape(value)}</b><span>{components.in_html(text)}</span></div>'


def _ladder(verdicts: list[dict[str, Any]]) -> None:
    """Every trajectory's step; seeds of one arm that reached the same one share a line."""
    lines: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry in sorted(verdicts, key=lambda entry: str(entry.get("seed", 0))):
        same = tuple(str(entry.get(part) or "") for part in ("arm", "level", "name", "decided_by"))
        lines.setdefault(same, []).append(entry)
    order = style.in_order(same[0] for same in lines)
    ranked = sorted(lines, key=lambda same: (order.index(same[0]), same[1]))
    head = "<tr><th>arm</th><th>seed</th><th colspan=2>evidence level, of 6</th><th>decided by</th><th>p</th></tr>"
    rows = "".join(_ladder_row(lines[same]) for same in ranked)
    st.html(f'<div class="gp-wide"><table class="gp-ladder">{head}{rows}</table></div>')


def _ladder_row(entries: list[dict[str, Any]]) -> str:
    first = entries[0]
    arm, level = str(first["arm"]), first.get("level")
    level = level if isinstance(level, int) and 1 <= level <= RUNGS else 0
    colour = style.mark_of(arm).colour
    rungs = "".join(f'<i style="background:{colour}"></i>' if rung < level else "<i></i>" for rung in range(RUNGS))
    chances = [entry["p"] for entry in entries if isinstance(entry.get("p"), int | float)]
    cells = (
        html.escape(arm),
        html.escape(", ".join(str(entry.get("seed", 0)) for entry in entries)),
        f'<span class="gp-rungs" title="level {level} of {RUNGS}">{rungs}</span>&ensp;{level or "–"}',
        html.escape(_spoken(first.get("name", ""))),
        html.escape(_spoken(first.get("decided_by") or "–")),
    )
    shown = ("at most " if len(entries) > 1 else "") + f"{max(chances):.3g}" if chances else "–"
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + f'<td class="n">{shown}</td></tr>'


def _by_step(run: Context) -> None:
    """Alignment, return fraction and refusal of harmful requests by step."""
    st.header("Step by step", anchor=False)
    kind = st.segmented_control(
        "Estimate",
        list(_ESTIMATES),
        default="cross-fitted",
        key="overview-estimate",
        help="Cross-fitted: no prompt is used for both vectors; the nulls are those of this estimate. "
        "Harmful − harmless (difference-in-differences): cancels a shift that is common to all prompts.",
    )
    rows = cache.drift(run.key, run.layer)
    for statistic in _ESTIMATES[kind or "cross-fitted"]:
        with components.section():
            figure = cache.step_figure(run.key, run.layer, statistic, (run.arm, run.seed), run.subtitle(), run.ink)
            data = rows[rows["statistic"] == statistic].drop(columns=["statistic", "layer"])
            components.chart(figure, data, name=statistic, alt=f"{statistic} by optimiser step for every arm")
    _null_note(run)
    with components.section():
        _behaviour(run)


def _null_note(run: Context) -> None:
    """Whose nulls are drawn, and a table of all, with those that judge a statistic of their own."""
    null_rows = cache.nulls(run.key, run.layer)
    if null_rows.empty:
        components.missing("This run holds no nulls yet.", f"gravity-probe verdict {run.command_path}")
        return
    if set(null_rows["null"]) <= {ISOTROPIC}:
        components.note(
            "Only the isotropic null was made. It is not shown alone: it cannot fail in a real activation space."
        )
        return
    components.note(f"The nulls drawn are those of {run.trajectory}, chosen in the sidebar.")
    chosen = null_rows[
        (null_rows["arm"] == run.arm) & (null_rows["seed"] == run.seed) & (null_rows["step"] == run.step)
    ]
    with st.expander(components.as_text(f"Every null of {run.trajectory} at step {run.step:,}")):
        columns = ["null", "statistic", "observed", "limit", "draws", "p", "power", "note"]
        st.dataframe(chosen[columns], hide_index=True, column_config=_NULL_COLUMNS)


def _behaviour(run: Context) -> None:
    if not cache.has_table(run.key, "behaviour"):
        components.missing(
            "No behaviour was measured in this run, so refusals cannot be shown.",
            f"gravity-probe evaluate {run.command_path}",
            "It generates text with every checkpoint and judges it.",
        )
        return
    subtitle = run.subtitle(layer=False, direction=False)
    measured = set(cache.table(run.key, "behaviour", ("measure",))["measure"])
    measure = "harmful_compliance" if "harmful_compliance" in measured else "refusal_harmful"
    figure = cache.behaviour_figure(run.key, measure, subtitle, run.ink)
    data = cache.table(run.key, "behaviour", None, (("measure", "==", measure),))
    components.chart(figure, data, name="behaviour", alt=f"{measure} by optimiser step for every arm")


def _table(run: Context) -> None:
    """Every number of the layer in one table."""
    st.header(f"All numbers at {components.layer_name(run.layer)}", anchor=False)
    rows = cache.drift(run.key, run.layer)
    names = ["arm", "seed", "step"]
    wide = rows.pivot_table(index=names, columns="statistic", values="value", sort=False).reset_index()
    rank = {arm: place for place, arm in enumerate(style.in_order(wide["arm"]))}
    wide = wide.sort_values(names, key=lambda column: column.map(rank) if column.name == "arm" else column)
    numbers = {name: st.column_config.NumberColumn(format="%.3f") for name in wide.columns[3:]}
    st.dataframe(wide, hide_index=True, column_config=numbers, height=min(420, 38 + 35 * len(wide)))
    st.download_button(
        "Download with intervals (CSV)", lambda: csv_text(rows), f"drift-layer{run.layer}.csv", "text/csv"
    )


show(components.context())
