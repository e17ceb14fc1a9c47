"""What decides the limits of a figure, and how an arm far away leaves it."""

import math

import numpy as np
import pandas as pd
import pytest

from probes.plots import behaviour, by_step, displacement, displacement_by_layer, lineage_path, manifold, trajectories
from probes.plots.clouds import Drawing
from probes.plots.limits import far_arms, far_in_plane, height_at, leave, plane_limits
from probes.plots.sheet import Sheet

_ENDS = {"baseline": 0.8, "block": -0.2, "push": 3.2, "control:random": 0.5}


def paths(ends=_ENDS, layers=(0,)):
    rows = [
        (arm, 0, step, layer, share * end, 0.3 * share * abs(end), 0.1 * share)
        for layer in layers
        for arm, end in ends.items()
        for step, share in ((1, 0.1), (10, 0.6), (100, 1.0))
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "layer", "along", "across", "third"])


def notes(fig, name):
    return [note for note in fig.layout.annotations if note.name == name]


def test_one_arm_far_away_is_known_and_the_baseline_or_most_arms_never_are():
    near = {arm: [end] for arm, end in _ENDS.items()}
    assert far_arms(near, [0.0, 1.0]) == {"push"}
    assert far_arms({**near, "push": [1.3]}, [0.0, 1.0]) == set()
    assert far_arms(near, [0.0, 1.0], keep=["push"]) == set()
    assert far_arms({**near, "baseline": [7.0]}, [0.0, 1.0]) == set(), "the baseline decides, and push lies within"
    assert far_arms({"baseline": [0.1], "push": [9.0]}, [0.0, 1.0]) == set(), "one of two is half of all"
    assert far_arms({"baseline": [0.1], "block": [0.0], "x": [9.0], "y": [-8.0]}, [0.0, 1.0]) == set()
    assert far_arms({**near, "lost": [math.nan]}, [0.0, 1.0]) == {"push"}


def test_an_arm_far_off_the_axis_is_far_too():
    table = paths()
    table.loc[table["arm"] == "block", "across"] *= 100
    assert far_in_plane(table, ("along", "across")) == {"push", "block"}
    assert far_in_plane(table, ("along", "across"), keep=["block"]) == {"push"}


@pytest.mark.parametrize("whole", [True, False])
def test_limits_of_a_plane_hold_what_is_near_fill_a_wide_page_and_a_length_begins_just_below_zero(whole):
    near = paths({"baseline": 0.8, "block": -0.2})
    wide, high = plane_limits(near, whole=whole, aspect=2.0)
    assert wide[0] < -0.2 < 1.0 < wide[1]
    assert high[0] < 0 < 0.24 < high[1]
    assert (wide[1] - wide[0]) / (high[1] - high[0]) == pytest.approx(2.0)
    assert high[0] > -0.15 or not whole


def draw_all():
    plane = paths()
    steps = plane.rename(columns={"along": "value"}).assign(low=math.nan, high=math.nan)
    rates = plane.rename(columns={"along": "fraction"}).assign(value=0.5, low=0.4, high=0.6)
    lanes = plane.rename(columns={"along": "return_fraction"}).assign(low=math.nan, high=math.nan, distance=1.0)
    return {
        "plane": trajectories.plane(plane, subtitle=""),
        "length": trajectories.plane(plane, subtitle="", whole=True),
        "arrows": displacement.vectors(plane, chosen=("baseline", 0), step=100, subtitle=""),
        "steps": by_step.by_step(steps, statistic="return_fraction", subtitle=""),
        "behaviour": behaviour.behaviour(rates, measure="refusal_harmful", subtitle="", witness="witness"),
        "lineage": lineage_path.lineage_path(lanes, subtitle=""),
        "layers": displacement_by_layer.multiples(
            paths(layers=(0, 1)), step=100, layers=(0, 1), subtitle="", headline=0
        ),
    }


def test_in_no_picture_does_push_decide_the_limits_and_in_each_it_leaves_by_an_arrow_with_its_number():
    for name, fig in draw_all().items():
        axis = fig.layout.yaxis if name == "steps" else fig.layout.xaxis
        assert axis.range[1] < 2.0, name
        arrows = notes(fig, "leaves")
        assert len(arrows) == (2 if name == "layers" else 1), name
        assert {arrow.arrowcolor for arrow in arrows} == {"#CC79A7"}, name
        assert "3.20" in str(fig.layout.annotations), name
        assert not [note for note in notes(fig, "end-label") if "push" in note.text], name


def test_the_arrow_stands_on_the_path_at_the_edge_and_points_out():
    (arrow, name) = leave([(0.0, 0.0), (1.0, 0.5), (3.0, 1.0)], (-1.0, 2.0), (-1.0, 1.0), "push, 3.00", "push", "light")
    assert (arrow["x"], arrow["y"]) == (2.0, 0.75)
    assert arrow["ax"] < 0 < arrow["ay"]
    assert name["text"] == "push, 3.00"
    assert leave([(0.0, 0.0), (1.0, 0.5)], (-1.0, 2.0), (-1.0, 1.0), "block", "block", "light") == []


@pytest.mark.parametrize("high", [(-1.0, 1.0), (-4.0, 4.0)])
def test_where_both_axes_have_one_scale_the_arrow_goes_on_as_its_path_does(high):
    (arrow, _) = leave([(0.0, 0.0), (4.0, 1.0)], (-1.0, 2.0), high, "push, 4.00", "push", "light", one_scale=True)
    assert arrow["ay"] / -arrow["ax"] == pytest.approx(0.25)


def test_every_name_of_many_arms_has_its_line_in_a_figure_that_grows():
    arms = {f"arm{number:02}": 0.01 * number for number in range(30)}
    rows = paths(arms).rename(columns={"along": "value"}).assign(low=math.nan, high=math.nan)
    fig = by_step.by_step(rows, statistic="return_fraction", subtitle="")
    names = [note.text for note in notes(fig, "end-label")]
    assert sum("arm" in name for name in names) == 30
    few = draw_all()["steps"].layout
    grown = fig.layout.height - few.height
    assert few.height - few.margin.b - 84 + grown >= 16 * 30


def test_every_plane_has_one_scale():
    figures = draw_all()
    for name in ("plane", "length", "arrows"):
        assert figures[name].layout.yaxis.scaleanchor == "x"
    panels = figures["layers"]
    assert [axis.scaleanchor for axis in panels.select_yaxes()] == [axis.anchor for axis in panels.select_yaxes()]
    axes = [*panels.select_xaxes(), *panels.select_yaxes()]
    assert {axis.matches for axis in axes} == {None}, "Plotly would hold only the first panel to the scale"
    assert {"along the way back (return fraction)"} <= {note.text for note in notes(panels, "axis")}


@pytest.mark.parametrize("name", ["plane", "length", "arrows", "layers"])
def test_a_narrow_plane_is_only_as_high_as_its_axes_and_a_wide_one_as_it_was_drawn(name):
    sheet = Sheet.of(draw_all()[name].to_dict())
    margin, axes = sheet.layout["margin"], [sheet.layout[axis] for axis in ("xaxis", "yaxis")]
    inside = height_at(sheet, 480) - margin["t" if "t" in margin else "b"] - (margin["b"] if "t" in margin else 84)
    wide, high = (axis["range"][1] - axis["range"][0] for axis in axes)
    across, up = (np.ptp(axis.get("domain", [0, 1])) for axis in axes)
    units = [(480 - margin["l"] - margin.get("r", 24)) * across / wide, inside * up / high]
    assert units[0] == pytest.approx(units[1], rel=0.02), "one scale, and nothing blank"
    assert height_at(sheet, 3000) == sheet.height
    assert height_at(Sheet.of(draw_all()["steps"].to_dict()), 480) == draw_all()["steps"].layout.height


def test_a_length_grows_upwards_from_zero_whatever_the_page():
    axis = trajectories.plane(paths(), subtitle="", whole=True).layout.yaxis
    assert axis.constrain == "domain", "limits stay what they are"
    assert -0.2 < axis.range[0] < 0


@pytest.mark.parametrize(("method", "arrows", "aspect"), [("pca", 1, "data"), ("umap", 0, "cube")])
def test_only_pca_has_a_way_back_as_an_arrow_and_true_distances_in_space(method, arrows, aspect):
    rng = np.random.default_rng(0)
    rows = [
        (arm, arm, 0, 0, f"{label}{number}", label, "", *rng.standard_normal(5))
        for arm in ("aligned", "witness")
        for label in ("harmful", "harmless")
        for number in range(10)
    ]
    columns = ["checkpoint", "arm", "seed", "step", "prompt", "label", "text", "x", "y", "x3", "y3", "z3"]
    about = {"method": method, "fit": "roles", "trustworthiness": {"2": 0.9, "3": 0.9}, "neighbours": 5}
    table = pd.DataFrame(rows, columns=columns)
    flat, deep = (
        manifold.manifold(table, about, drawing=Drawing(axes=axes), subtitle="", witness="witness") for axes in (2, 3)
    )
    assert len(notes(flat, "v_rev")) == arrows == len([trace for trace in deep.data if trace.name == "v_rev"])
    assert ("Arrow:" in str(notes(flat, "caption")[0].text)) == bool(arrows)
    assert deep.layout.scene.aspectmode == aspect


@pytest.mark.parametrize("picture", ["plane", "displacement"])
def test_seeds_of_an_arm_that_leaves_share_one_name(picture):
    columns = ["arm", "seed", "step", "along", "across"]
    table = pd.DataFrame(
        [
            ("baseline", 0, 10, 0.5, 0.1),
            ("block", 0, 10, 0.1, 0.1),
            ("push", 0, 10, 6.0, 0.2),
            ("push", 1, 10, 6.6, 0.1),
        ],
        columns=columns,
    )
    if picture == "plane":
        figure = trajectories.plane(table, subtitle="")
    else:
        figure = displacement.vectors(table, chosen=("baseline", 0), step=10, subtitle="")
    notes = [(note.name, note.text) for note in figure.layout.annotations if note.name in ("far", "leaves")]
    assert notes == [("leaves", ""), ("far", "push, 6.00 to 6.60 of the way"), ("leaves", "")]
