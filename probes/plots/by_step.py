"""A statistic or a rate by optimiser step: every arm and seed, with intervals, references and the nulls' limits."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.lineage import EARLIER, MIRROR, ROLES
from probes.plots import style
from probes.plots.labels import LINE, EndLabel, label_ends
from probes.plots.limits import far_arms, leave, make_room_above
from probes.plots.sheet import Sheet
from probes.plots.step_axis import StepAxis
from probes.plots.style import InkName
from probes.statistics import limit_label, null_name, statistic_of

ISOTROPIC = "isotropic"
_HEIGHT, _TOP, _BOTTOM = 400, 84, 64
_ENDLESS = ("return_fraction", "did_return_fraction", "off_axis", "displacement_norm")
_ALONG = ("alignment", "return_fraction")
_BREATH = 0.06  # of the span, above and below what is drawn


def by_step(
    rows: pd.DataFrame,
    *,
    statistic: str,
    subtitle: str,
    nulls: pd.DataFrame | None = None,
    ink: InkName = "light",
) -> go.Figure:
    """Draw one statistic or behaviour measure by step.

    Args:
        rows: arm, seed, step, value, low, high of that statistic at one layer; rows of the roles `aligned`,
            `witness` and `pretrained` (step 0) become a point at 0 and reference lines.
        statistic: its key in `probes.statistics`.
        subtitle: run, layer and direction.
        nulls: null, step, limit, draws of one trajectory for that statistic. The isotropic null is left out when it is
            the only one: it cannot fail in a real activation space.
        ink: light or dark page.
    """
    about = statistic_of(statistic)
    rows = rows[rows["value"].notna()]
    nulls = _worth_showing(nulls)
    caption = about.meaning + "\n" + _reading(rows, nulls, statistic)
    fig = style.figure(about.title, subtitle, ink, height=_HEIGHT, caption=caption, below=_BOTTOM)
    axis = StepAxis.of([0, *rows["step"]])
    trajectories = rows[~rows["arm"].isin(ROLES)]
    far = _far(rows, trajectories, statistic)
    limits = _limits(rows[~rows["arm"].isin(far)], nulls, statistic)
    labels = _draw_nulls(fig, nulls, axis, ink)
    labels += _draw_references(fig, rows, ink, statistic)
    for arm in style.in_order(trajectories["arm"])[::-1]:
        label = _draw_arm(fig, trajectories[trajectories["arm"] == arm], arm, axis, ink)
        if arm not in far:
            labels.append(label)
            continue
        path = trajectories[trajectories["arm"] == arm].sort_values(["seed", "step"])
        way = [
            (axis.position(int(step)), float(value)) for step, value in zip(path["step"], path["value"], strict=True)
        ]
        text = f"{label.text}, {style.decimal(label.y)} at the last step"
        fig.add_annotations(leave(way, axis.range, limits, text, arm, ink))
    _draw_aligned(fig, rows, axis, statistic, ink)
    axis.apply(fig, style.INKS[ink])
    fig.update_yaxes(title={"text": about.axis}, range=list(limits), nticks=6)
    if limits[0] < 0 < limits[1]:
        fig.add_hline(y=0, line={"color": style.INKS[ink].rule, "width": 1}, layer="below")
    fig.update_layout(margin={"r": 30 + 7 * max((_length(label.text) for label in labels), default=0)})
    plot = _HEIGHT - _TOP - _BOTTOM
    taller = max(
        0, math.ceil(LINE * len(labels)) - plot
    )  # many arms: each has a name, and names are not to leave the plot
    fig.update_layout(height=fig.height + taller)
    label_ends(fig, labels, limits, plot + taller, axis.range)
    make_room_above(fig)
    return fig.figure()


def _far(rows: pd.DataFrame, trajectories: pd.DataFrame, statistic: str) -> set[str]:
    """The arms far away, of a statistic that has no end."""
    if statistic not in _ENDLESS:
        return set()
    values = {str(arm): list(own) for arm, own in trajectories.groupby("arm")["value"]}
    roles = [0.0, *rows[rows["arm"].isin(ROLES)]["value"], *([] if statistic == "displacement_norm" else [1.0])]
    return far_arms(values, roles)


def _length(text: str) -> int:
    return len(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def _worth_showing(nulls: pd.DataFrame | None) -> pd.DataFrame | None:
    if nulls is None:
        return None
    nulls = nulls[nulls["limit"].notna()]
    return None if set(nulls["null"].unique()) <= {ISOTROPIC} else nulls


def _reading(rows: pd.DataFrame, nulls: pd.DataFrame | None, statistic: str) -> str:
    parts = []
    if rows[["low", "high"]].notna().all(axis=1).any():
        single = rows[~rows["arm"].isin(ROLES)].groupby(["arm", "seed"])["step"].nunique().eq(1)
        parts.append(
            f"{'Bars' if single.all() else 'Bands and bars' if single.any() else 'Bands'}: 95 % intervals over prompts."
        )
    if rows.groupby("arm")["seed"].nunique().gt(1).any():
        parts.append("One line a seed.")
    if statistic.removeprefix("did_").startswith(_ALONG) and (rows["arm"] == MIRROR).any():
        parts.append("The mirror: from the witness towards the aligned model.")
    if nulls is not None:
        grey = "Grey: below the highest limit of the nulls; thin" if nulls["step"].nunique() > 1 else "Thin"
        parts.append(f"{grey} lines: each null's own limit, as named at its end.")
    return " ".join(parts)


def _limits(rows: pd.DataFrame, nulls: pd.DataFrame | None, statistic: str) -> tuple[float, float]:
    values = [value for column in ("value", "low", "high") for value in rows[column] if _finite(value)]
    if nulls is not None:
        values += list(nulls["limit"])
    if statistic_of(statistic).limits == (0, 1):
        return -0.04, 1.04
    if statistic.endswith("return_fraction"):
        values += [0.0, 1.0]
    if statistic != "task_loss":
        values.append(0.0)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = _BREATH * ((high - low) or 1.0)
    return low - pad, high + pad


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _draw_nulls(fig: Sheet, nulls: pd.DataFrame | None, axis: StepAxis, ink: InkName) -> list[EndLabel]:
    if nulls is None:
        return []
    colours = style.INKS[ink]
    highest = nulls.groupby("step")["limit"].max().sort_index()
    places = [axis.position(step) for step in highest.index]
    floor = [min(0.0, value) for value in highest]
    fig.add(
        "scatter",
        name="nulls",
        x=places + places[::-1],
        y=[*highest, *floor[::-1]],
        mode="none",
        fill="toself",
        fillcolor=colours.band,
        hoverinfo="skip",
    )
    labels = []
    for name, rows in nulls.groupby("null"):
        rows = rows.sort_values("step")
        title, label = style.plain(null_name(str(name))), limit_label(int(rows["draws"].iloc[-1]))
        fig.add(
            "scatter",
            name=f"null:{name}",
            x=[axis.position(step) for step in rows["step"]],
            y=rows["limit"],
            mode="lines" if len(rows) > 1 else "markers",
            line={"color": style.fade(colours.muted, 0.7), "width": 1, "dash": "2px,2px"},
            marker={"symbol": "line-ew-open", "size": 14, "color": colours.muted},
            customdata=rows["step"],
            hovertemplate=f"{title}<br>{label} %{{y:.3f}} at step %{{customdata}}<extra></extra>",
        )
        labels.append(EndLabel(float(rows["limit"].iloc[-1]), f"{title} {label}", colours.muted, 12))
    return labels


def _draw_references(fig: Sheet, rows: pd.DataFrame, ink: InkName, statistic: str) -> list[EndLabel]:
    """Where the witness and the pretrained model lie: thin lines across, with their marks at the left end."""
    if "alignment" in statistic or statistic in {"task_loss", "share_moved", "reliability"}:
        return []
    labels = []
    for role in EARLIER:
        own = rows[rows["arm"] == role]
        if own.empty:
            continue
        mark, value = style.mark_of(role), float(own["value"].iloc[0])
        fig.add_hline(y=value, line={"color": style.fade(mark.colour, 0.7), "width": 1.2}, layer="below")
        fig.add(
            "scatter",
            name=role,
            x=[StepAxis.of([0, *rows["step"]]).zero],
            y=[value],
            mode="markers",
            marker={"color": mark.colour, "symbol": mark.symbol, "size": 10, "line": style.edge(mark, ink)},
            hovertemplate=f"{role}<br>%{{y:.3f}}<extra></extra>",
        )
        labels.append(EndLabel(value, role, style.legible(mark.colour, style.INKS[ink])))
    return labels


def _draw_aligned(fig: Sheet, rows: pd.DataFrame, axis: StepAxis, statistic: str, ink: InkName) -> None:
    """The aligned model at step 0: measured for a behaviour, 0 by definition for a displacement."""
    aligned = rows[rows["arm"] == "aligned"]
    if not aligned.empty:
        value = float(aligned["value"].iloc[0])
    elif statistic in {"return_fraction", "did_return_fraction", "off_axis", "displacement_norm"}:
        value = 0.0
    else:
        return
    mark = style.mark_of("aligned")
    fig.add(
        "scatter",
        name="aligned",
        x=[axis.zero],
        y=[value],
        mode="markers",
        cliponaxis=False,
        marker={"color": mark.colour, "symbol": mark.symbol, "size": 11, "line": style.edge(mark, ink)},
        hovertemplate="aligned, step 0<br>%{y:.3f}<extra></extra>",
    )


def _draw_arm(fig: Sheet, rows: pd.DataFrame, arm: str, axis: StepAxis, ink: InkName) -> EndLabel:
    mark, seeds = style.mark_of(arm), sorted(rows["seed"].unique())
    several = len(seeds) > 1
    for seed in seeds:
        run = rows[rows["seed"] == seed].sort_values("step")
        places = [axis.position(step) for step in run["step"]]
        _draw_band(fig, run, places, arm, mark.colour, 0.07 if several else 0.15)
        fig.add(
            "scatter",
            name=f"{arm} s{seed}",
            x=places,
            y=run["value"],
            mode="lines+markers",
            legendgroup=arm,
            line={"color": mark.colour, "dash": mark.dash, "width": mark.width * (0.7 if several else 1)},
            marker={"symbol": mark.symbol, "size": _size(len(run), several), "color": mark.colour},
            error_y=_bar(run, mark.colour),
            opacity=0.75 if several else 1,
            customdata=[_hover(row) for row in run.itertuples()],
            hovertemplate=f"{style.plain(arm)}, seed {seed}<br>%{{customdata}}<extra></extra>",
        )
    last, end = rows.sort_values("step").groupby("seed")["value"].last(), axis.position(int(rows["step"].max()))
    text = style.plain(arm) + (f" ({len(seeds)} seeds)" if several else "")
    return EndLabel(float(last.mean()), text, style.legible(mark.colour, style.INKS[ink]), x=end)


def _bar(run: pd.DataFrame, colour: str) -> dict[str, Any]:
    """The interval of a single step, where there is no band; hidden where there is one."""
    about = {"type": "data", "symmetric": False, "thickness": 1.4, "width": 0, "color": style.fade(colour, 0.5)}
    ends = {"array": run["high"] - run["value"], "arrayminus": run["value"] - run["low"]}
    return {**about, **ends, "visible": len(run) == 1}


def _size(steps: int, several: bool) -> int:
    """Of a mark, pixels: a single step is seen by its mark alone."""
    return 9 if steps == 1 else 5 if several else 7


def _hover(row: object) -> str:
    value, low, high, step = (getattr(row, name) for name in ("value", "low", "high", "step"))
    interval = f" [{style.decimal(low)}, {style.decimal(high)}]" if _finite(low) and _finite(high) else ""
    return f"step {step}: {style.decimal(value, 3)}{interval}"


def _draw_band(fig: Sheet, run: pd.DataFrame, places: list[float], arm: str, colour: str, opacity: float) -> None:
    known = [_finite(low) and _finite(high) for low, high in zip(run["low"], run["high"], strict=True)]
    if sum(known) < 2:
        return
    x = [place for place, known_here in zip(places, known, strict=True) if known_here]
    low, high = list(run["low"][known]), list(run["high"][known])
    fig.add(
        "scatter",
        name=f"band {arm}",
        x=x + x[::-1],
        y=high + low[::-1],
        mode="none",
        fill="toself",
        fillcolor=style.fade(colour, opacity),
        hoverinfo="skip",
        legendgroup=arm,
    )
