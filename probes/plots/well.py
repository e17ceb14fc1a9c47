"""The wells drawn as maps, with every arm's path laid into them; how deep they are is in `well_depth`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.lineage import MIRROR, ROLES
from probes.plots import labels, style
from probes.plots.displacement import ALONG, MAIN
from probes.plots.displacement_by_layer import COLUMNS, name_axes, small_multiples
from probes.plots.limits import Limits, far_in_plane, far_names, leave, make_room_above, one_scale, plane_limits
from probes.plots.style import InkName
from probes.plots.well_depth import CEILING, GRID, Well, make_well

_HEIGHT, _ASPECT = 560, 2.1
SCALES = {
    "light": [(0.0, "#1D3C5A"), (0.25, "#4C7FA6"), (0.6, "#B9D0E0"), (1.0, "#F7F7F5")],
    "dark": [(0.0, "#9CCBEA"), (0.25, "#4C7FA6"), (0.6, "#264256"), (1.0, "#171B1F")],
}
_CAPTION = (
    "Depth: −log density of harmful prompts, in nats above the deepest place, cut at {ceiling:.0f}. The density is "
    "half that of the aligned model's prompts, half that of the {earlier}'s; Gaussian kernels, Scott's bandwidth "
    "({bandwidths} of their spreads). Basin: at least half a nat below its rim. A density is not a force: a path down "
    "a slope is no proof that the slope moved it. Paths: each arm's mean over harmful prompts, step by step."
)


def contour(
    prompts: pd.DataFrame,
    paths: pd.DataFrame,
    *,
    subtitle: str,
    witness: str = "witness",
    until: int | None = None,
    ink: InkName = "light",
) -> go.Figure:
    """Draw the well of one layer as a map of equal depths, for print too.

    Args:
        prompts: arm, label, projection, across of the roles at that layer.
        paths: arm, seed, step, along, across of every checkpoint there, roles included.
        subtitle: run and layer.
        witness: the witness's label.
        until: the last step that is drawn, in the limits of all; None: all are.
        ink: light or dark page.
    """
    wide, high, far = limits_of(prompts, paths, _ASPECT)
    if until is not None:
        paths = paths[paths["arm"].isin(ROLES) | (paths["step"] <= until)]
    well = make_well(prompts, wide, high)
    fig = style.figure(title_of(well), subtitle, ink, height=_HEIGHT, caption=caption_of(well))
    colours = style.INKS[ink]
    if well is not None:
        fig.add_traces([{**_map(well, ink), "colorbar": {**style.colour_bar(colours), **_BAR_TITLE, "len": 0.8}}])
    ends: list[labels.Spot] = []
    notes: list[dict[str, Any]] = []
    last = paths.sort_values("step").groupby(["arm", "seed"], as_index=False).last() if far else paths[:0]
    names_of_far, every = far_names(last), ways(paths)
    for arm, seed, path in every:
        fig.add_traces([_path(arm, seed, path)])
        x, y = list(path["along"]), list(path["across"])
        if arm in far and not (wide[0] <= x[-1] <= wide[1] and high[0] <= y[-1] <= high[1]):
            notes += leave(list(zip(x, y, strict=True)), wide, high, names_of_far[arm, seed], arm, ink, one_scale=True)
        elif arm not in {spot.text for spot in ends}:
            ends.append(labels.Spot(x[-1], y[-1], style.plain(arm), colours.text))
    fig.add_traces(_roles(paths))
    near = paths[~paths["arm"].isin(far)]
    near_ways = [(list(way["along"]), list(way["across"])) for arm, _, way in every if arm not in far]
    roles = [
        labels.Spot(row.along, row.across, witness if row.arm == "witness" else row.arm, colours.text)
        for row in paths[paths["arm"].isin(ROLES)].itertuples()
    ]

    def boxes(scale: labels.Scale) -> list[labels.Boxes]:
        return [
            labels.marks(zip(near["along"], near["across"], strict=True), scale),
            *(labels.line(along, across, scale) for along, across in near_ways),
            labels.left_of(wide[0], scale),
            labels.above_and_below(high, scale),
        ]

    names = labels.beside([*roles, *ends], boxes, labels.pixels_a_unit(wide, high, _HEIGHT - 148))
    fig.add_annotations([*notes, *labels.over(names, colours.background)])
    make_room_above(fig)
    fig.update_xaxes(title={"text": ALONG}, range=list(wide), nticks=8)
    fig.update_yaxes(title={"text": MAIN}, range=list(high), nticks=8)
    one_scale(fig)
    fig.update_layout(margin={"r": 84})
    return fig.figure()


_BAR_TITLE = {"title": {"text": "depth (nats)", "font": {"size": 12}, "side": "right"}}


def multiples(
    prompts: pd.DataFrame,
    paths: pd.DataFrame,
    *,
    layers: Sequence[int],
    subtitle: str,
    headline: int,
    ink: InkName = "light",
) -> go.Figure:
    """Draw the well of every layer as a small map, all to one scale.

    Args:
        prompts: layer and the columns that `contour` reads.
        paths: likewise.
        layers: which, at most twelve.
        subtitle: run.
        headline: the layer declared in advance.
        ink: light or dark page.
    """
    rows, colours = -(-len(layers) // COLUMNS), style.INKS[ink]
    parts = {layer: (prompts[prompts["layer"] == layer], paths[paths["layer"] == layer]) for layer in layers}
    every = [limits_of(*part, 1.15) for part in parts.values()]
    wide = (min(limits[0][0] for limits in every), max(limits[0][1] for limits in every))
    high = (min(limits[1][0] for limits in every), max(limits[1][1] for limits in every))
    wells = {layer: make_well(part[0], wide, high, GRID // 2) for layer, part in parts.items()}
    base = style.figure(
        "The wells, layer by layer",
        subtitle,
        ink,
        height=150 + 190 * rows,
        caption=caption_of(next((well for well in wells.values() if well is not None), None)),
        below=56,
        left=52,
    )
    grid = small_multiples(rows, [_panel_title(layer, wells[layer], headline) for layer in layers])
    for place, layer in enumerate(layers):
        own, well = parts[layer][1], wells[layer]
        traces = [{**_map(well, ink), "showscale": False}] if well is not None else []
        traces += [_path(arm, seed, path, small=True) for arm, seed, path in ways(own)] + _roles(own, small=True)
        cell = divmod(place, COLUMNS)
        grid.add_traces(traces, rows=[cell[0] + 1] * len(traces), cols=[cell[1] + 1] * len(traces))
    for axis in grid.axes("y"):
        axis.update(scaleanchor=axis["anchor"], constrain="domain", constraintoward="top", range=list(high), nticks=4)
    grid.update_xaxes(constrain="domain", range=list(wide), nticks=4)
    grid.update_annotations(font={"size": 12, "color": colours.muted})
    name_axes(grid, rows, colours)
    return style.dress(grid, base, margin={"t": 104}).figure()


def limits_of(prompts: pd.DataFrame, paths: pd.DataFrame, aspect: float) -> tuple[Limits, Limits, set[str]]:
    """Limits that hold the roles' prompts and every arm but those far away, and those arms."""
    far = far_in_plane(paths, ("along", "across"))
    own = prompts[prompts["arm"].isin(ROLES) & (prompts["label"] == "harmful")]
    places = own.rename(columns={"projection": "along"})[["along", "across"]]
    near = paths[~paths["arm"].isin(far)][["along", "across"]]
    return *plane_limits(pd.concat([places, near]), whole=False, aspect=aspect), far


def ways(paths: pd.DataFrame) -> list[tuple[str, int, pd.DataFrame]]:
    """Each trajectory with its checkpoints by step, from where its training began; roles have none.

    That is the aligned model, at the origin, and for the mirror the witness.
    """
    start = pd.DataFrame([{"step": 0, "along": 0.0, "across": 0.0}])
    witness = paths.loc[paths["arm"] == "witness", ["step", "along", "across"]].head(1).assign(step=0)
    arms = style.in_order(set(paths["arm"].unique()) - set(ROLES))[::-1]
    return [
        (arm, int(seed), pd.concat([begun, own.sort_values("step")[list(start)]], ignore_index=True))
        for arm in arms
        for begun in [witness if arm == MIRROR and len(witness) else start]
        for seed, own in paths[paths["arm"] == arm].groupby("seed")
    ]


def title_of(well: Well | None) -> str:
    """How many basins there are, in words."""
    if well is None:
        return "No well: too few harmful prompts here"
    return "Where harmful prompts lie: " + {1: "one basin"}.get(well.basins, f"{well.basins} basins")


def _panel_title(layer: int, well: Well | None, headline: int) -> str:
    basins = "" if well is None else f": {well.basins} basin" + ("" if well.basins == 1 else "s")
    return f"layer {layer}{' ★' if layer == headline else ''}{basins}"


def caption_of(well: Well | None) -> str:
    """What is drawn, by which estimator, and what it is not."""
    if well is None:
        return "A density needs at least eight harmful prompts of the aligned model and of those before it."
    bandwidths = " and ".join(style.decimal(factor) for factor in well.bandwidths)
    return _CAPTION.format(ceiling=CEILING, earlier="'s and the ".join(well.earlier), bandwidths=bandwidths)


def _map(well: Well, ink: InkName) -> dict[str, Any]:
    """Equal depths, half a nat apart."""
    return {
        "type": "contour",
        "name": "well",
        "x": well.along,
        "y": well.across,
        "z": well.depth,
        "autocontour": False,
        "contours": {"start": 0.0, "end": CEILING, "size": 0.5, "coloring": "fill"},
        "zmin": 0.0,
        "zmax": CEILING,
        "colorscale": SCALES[ink],
        "line": {"width": 0.4, "color": style.fade(style.INKS[ink].background, 0.8)},
        "hovertemplate": "along %{x:.2f}, main off-axis %{y:.2f}<br>depth %{z:.1f} nats<extra></extra>",
    }


def _path(arm: str, seed: int, path: pd.DataFrame, *, small: bool = False) -> dict[str, Any]:
    """A trajectory in the plane, its marks growing with the step."""
    mark, count = style.mark_of(arm), len(path) - 1
    sizes = [0.0, *((3 if small else 6) + (3 if small else 7) * (rank + 1) / max(count, 1) for rank in range(count))]
    return {
        "type": "scatter",
        "name": f"{arm} s{seed}",
        "x": path["along"],
        "y": path["across"],
        "mode": "lines+markers",
        "line": {"color": mark.colour, "width": 1.6 if small else 2.6, "dash": mark.dash},
        "marker": {
            "color": mark.colour,
            "symbol": mark.symbol,
            "size": sizes,
            "opacity": 1,
            "line": {"width": 0.8, "color": "#FFFFFF"},
        },
        "customdata": [f"{step:,}" for step in path["step"]],
        "hovertemplate": f"<b>{style.plain(arm)}</b>, seed {seed}, step %{{customdata}}<br>"
        "along %{x:.3f}, main off-axis %{y:.3f}<extra></extra>",
    }


def _roles(paths: pd.DataFrame, *, small: bool = False) -> list[dict[str, Any]]:
    return [
        {
            "type": "scatter",
            "name": row.arm,
            "x": [row.along],
            "y": [row.across],
            "mode": "markers",
            "marker": {
                "color": mark.colour,
                "symbol": mark.symbol,
                "size": 7 if small else 14,
                "line": {"width": 1 if small else 2, "color": "#FFFFFF"},
            },
            "hovertemplate": f"<b>{row.arm}</b><extra></extra>",
        }
        for row in paths[paths["arm"].isin(ROLES)].itertuples()
        for mark in [style.mark_of(row.arm)]
    ]
