"""What a checkpoint does against how far it went back, with the correlation and its honest n."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.lineage import MIRROR, ROLES
from probes.plots import labels, style
from probes.plots.labels import Spot
from probes.plots.limits import Limits, far_arms, leave
from probes.plots.sheet import Sheet
from probes.plots.style import InkName
from probes.statistics import statistic_of

_HEIGHT = 500
_NO_MIRROR = " The mirror is left out: it begins at the witness."
ENOUGH = 5  # trajectories below which a correlation over them says nothing


@dataclass(frozen=True)
class Association:
    """Rank correlation of a behaviour with the return fraction.

    Attributes:
        over_checkpoints: Spearman's ρ over every checkpoint; None where fewer than three, or nothing varies.
        checkpoints: how many; they are not independent, as each trajectory gives several.
        over_trajectories: the same over the last step of each trajectory.
        trajectories: how many: the n that counts.
    """

    over_checkpoints: float | None
    checkpoints: int
    over_trajectories: float | None
    trajectories: int

    @property
    def words(self) -> str:
        """One sentence, with what the number is worth."""
        if self.over_checkpoints is None:
            return "A correlation is not defined: too few checkpoints, or nothing varies."
        text = (
            f"Spearman ρ = {style.decimal(self.over_checkpoints)} over {self.checkpoints} checkpoints, which are not "
            f"independent: they come from {self.trajectories} "
            + ("trajectory" if self.trajectories == 1 else "trajectories")
        )
        if self.over_trajectories is None or self.trajectories < ENOUGH:
            return text + f". With fewer than {ENOUGH} trajectories this describes these runs and no others."
        return text + f"; over their last steps ρ = {style.decimal(self.over_trajectories)} (n = {self.trajectories})."


def association(rows: pd.DataFrame) -> Association:
    """The rank correlation of `value` with `fraction`; rows as for `behaviour`, without roles and mirror."""
    rows = rows.dropna(subset=["value", "fraction"])
    last = rows.sort_values("step").groupby(["arm", "seed"]).tail(1)
    return Association(_spearman(rows), len(rows), _spearman(last), len(last))


def _spearman(rows: pd.DataFrame) -> float | None:
    if len(rows) < 3 or rows["value"].nunique() < 2 or rows["fraction"].nunique() < 2:
        return None
    return float(rows["value"].rank().corr(rows["fraction"].rank()))


def behaviour(rows: pd.DataFrame, *, measure: str, subtitle: str, witness: str, ink: InkName = "light") -> go.Figure:
    """Draw a behaviour measure against the return fraction.

    Args:
        rows: arm, seed, step, value, low, high, fraction; roles at step 0; the mirror, whose fraction is of the way
            from the witness to the aligned model, is left out.
        measure: its key in `probes.statistics`.
        subtitle: run, layer and direction.
        witness: the witness's label.
        ink: light or dark page.
    """
    about, mirrored = statistic_of(measure), (rows["arm"] == MIRROR).any()
    rows = rows[rows["arm"] != MIRROR]
    tuned = rows[~rows["arm"].isin(ROLES)]
    caption = f"{about.meaning}\n{association(tuned).words}" + (_NO_MIRROR if mirrored else "")
    fig = style.figure(f"{about.title} against the way back", subtitle, ink, height=_HEIGHT, caption=caption)
    for place in (0, 1):
        fig.add_vline(x=place, line={"color": style.INKS[ink].rule, "width": 1}, layer="below")
    far = far_arms({str(arm): list(own) for arm, own in tuned.groupby("arm")["fraction"]}, [0.0, 1.0])
    limits = _wide(rows[~rows["arm"].isin(far)]), _limits(rows, about.limits)
    names = {"witness": witness}
    arms = {arm: rows[rows["arm"] == arm].sort_values("step") for arm in style.in_order(rows["arm"])[::-1]}
    for arm, own in arms.items():
        fig.add_traces([_path(arm, seed, run, names.get(arm, arm), ink) for seed, run in own.groupby("seed")])
        if arm in far:
            fig.add_annotations(_leave(arm, own, limits, ink))
    ends = [_end(arm, own, names.get(arm, arm), ink) for arm, own in arms.items() if arm not in far]
    _names(fig, ends, rows, limits)
    fig.update_xaxes(title={"text": "return fraction (0 aligned, 1 witness)"}, nticks=8, range=list(limits[0]))
    fig.update_yaxes(title={"text": about.axis}, range=list(limits[1]))
    letters = [0, *(len(arm) + 9 for arm in far), *(len(spot.text) for spot in ends)]
    fig.update_layout(margin={"r": 30 + 7 * max(letters)})
    return fig.figure()


def _path(arm: str, seed: int, run: pd.DataFrame, name: str, ink: InkName) -> dict[str, Any]:
    """One training's checkpoints, with their intervals and marks that grow with the step; a role is one mark."""
    mark, role = style.mark_of(arm), arm in ROLES
    return {
        "type": "scatter",
        "name": f"{arm} s{seed}",
        "x": run["fraction"],
        "y": run["value"],
        "mode": "markers" if role else "lines+markers",
        "line": {"color": style.fade(mark.colour, 0.45), "width": 1.2, "dash": mark.dash},
        "marker": {
            "color": mark.colour,
            "symbol": mark.symbol,
            "size": [14.0] if role else [6 + 7 * (rank + 1) / len(run) for rank in range(len(run))],
            "line": style.edge(mark, ink) if role else {"width": 0},
        },
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": (run["high"] - run["value"]).clip(lower=0),
            "arrayminus": (run["value"] - run["low"]).clip(lower=0),
            "thickness": 1,
            "width": 0,
            "color": style.fade(mark.colour, 0.4),
        },
        "customdata": run["step"],
        "hovertemplate": f"<b>{style.plain(name)}</b>, seed {seed}, step %{{customdata}}<br>"
        "return fraction %{x:.3f}<br>%{y:.3f}<extra></extra>",
    }


def _leave(arm: str, own: pd.DataFrame, limits: tuple[Limits, Limits], ink: InkName) -> list[dict[str, Any]]:
    """Where an arm far away leaves the plot, and how far it goes."""
    text = f"{style.plain(arm)}, at {style.decimal(float(own['fraction'].iloc[-1]))}"
    return leave(list(zip(own["fraction"], own["value"], strict=True)), *limits, text, arm, ink, outside=True)


def _end(arm: str, own: pd.DataFrame, name: str, ink: InkName) -> Spot:
    """The last mark of an arm, beside which its name stands."""
    colour = style.legible(style.mark_of(arm).colour, style.INKS[ink])
    return Spot(float(own["fraction"].iloc[-1]), float(own["value"].iloc[-1]), style.plain(name), colour)


def _limits(rows: pd.DataFrame, fixed: tuple[float, float] | None) -> tuple[float, float]:
    if fixed == (0.0, 1.0):
        return -0.06, 1.06
    values = [value for column in ("value", "low", "high") for value in rows[column].dropna()] or [0.0, 1.0]
    room = 0.08 * ((max(values) - min(values)) or 1.0)
    return min(values) - room, max(values) + room


def _wide(rows: pd.DataFrame) -> Limits:
    places = [0.0, 1.0, *rows["fraction"].dropna()]
    room = 0.1 * (max(places) - min(places))
    return min(places) - room, max(places) + room


def _names(fig: Sheet, ends: list[Spot], rows: pd.DataFrame, limits: tuple[Limits, Limits]) -> None:
    """Every arm and role beside its last mark."""
    known = rows.dropna(subset=["fraction", "value"]).sort_values("step")

    def boxes(scale: labels.Scale) -> list[labels.Boxes]:
        ways = [(list(way["fraction"]), list(way["value"])) for _, way in known.groupby(["arm", "seed"])]
        return [
            *(labels.marks(zip(x, y, strict=True), scale) for x, y in ways),
            *(labels.line(x, y, scale) for x, y in ways if len(x) > 1),
            labels.left_of(limits[0][0], scale),
            labels.above_and_below(limits[1], scale),
        ]

    spots = [spot for spot in ends if math.isfinite(spot.x) and math.isfinite(spot.y)]
    fig.add_annotations(labels.beside(spots, boxes, labels.pixels_apart(*limits, _HEIGHT - 148)))
