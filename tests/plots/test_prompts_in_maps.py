"""Prompts in a map: trails over the steps, two maps side by side, colours by prompt, and what is selected."""

import numpy as np
import pandas as pd
import pytest

from probes.plots import clouds, manifold, prompt_marks
from probes.plots.clouds import Drawing
from probes.plots.displacement import Cone
from probes.plots.map_pair import set_beside
from probes.plots.prompt_arrows import prompt_arrows
from probes.plots.prompt_marks import colour_prompts, hover_text, mark_selected
from probes.plots.sheet import Sheet
from tests.plots.test_pictures import ABOUT

STEPS = (1, 10, 100)


@pytest.fixture
def places():
    """A map in which prompt p moves by (step, p) from the aligned model."""
    rows = []
    for arm, step in [("aligned", 0), ("witness", 0), *(("baseline", step) for step in STEPS)]:
        for number in range(20):
            spot = (step + number, number, step, number, 0.5 * number)
            label = "harmful" if number % 2 else "harmless"
            rows.append((f"{arm}{step}", arm, 0, step, f"p{number}", label, f"text {number}", *spot))
    columns = ["checkpoint", "arm", "seed", "step", "prompt", "label", "text", "x", "y", "x3", "y3", "z3"]
    return pd.DataFrame(rows, columns=columns)


def draw(places, **how):
    return manifold.manifold(places, ABOUT, drawing=Drawing(**how), subtitle="run", witness="witness")


def trail_of(fig):
    (trace,) = [trace for trace in fig.data if str(trace.name).startswith("trails")]
    return trace


@pytest.mark.parametrize("axes", [2, 3])
def test_a_trail_leads_from_the_aligned_model_over_every_step(places, axes):
    trace = trail_of(draw(places, axes=axes, trails=("p3", "p4")))
    column = clouds.columns_of(axes)[0]
    for prompt, start in (("p3", 0), ("p4", 5)):
        own = places[(places["prompt"] == prompt) & (places["arm"] != "witness")].sort_values("step")
        assert list(trace.x[start : start + 4]) == list(own[column])
    assert np.isnan(trace.x[4])
    assert list(trace.customdata[:4]) == ["0", "1", "10", "100"]


def test_trails_grow_when_the_steps_are_played(places):
    fig = draw(places, moving=True, trails=("p3",))
    lengths = [sum(not np.isnan(x) for x in frame.data[-1].x) for frame in fig.frames]
    assert lengths == [2, 3, 4]
    assert [frame.name for frame in fig.frames] == [str(step) for step in STEPS]


def test_without_trails_nothing_is_added(places):
    assert not [trace for trace in draw(places).data if str(trace.name).startswith("trails")]


def test_two_checkpoints_side_by_side_have_one_scale(places):
    halves = [draw(places[places["arm"] == arm]) for arm in ("aligned", "baseline")]
    ranges = [fig.layout.xaxis.range for fig in halves]
    fig = set_beside(*halves, ("a", "b"), "light", one_map=True)
    assert fig.layout.xaxis2.matches == "x"
    assert fig.layout.yaxis2.matches == "y"
    assert tuple(fig.layout.xaxis.range) == tuple(fig.layout.xaxis2.range)
    assert fig.layout.xaxis.range[0] == min(low for low, _ in ranges)
    right = [trace for trace in fig.data if trace.xaxis == "x2" and trace.meta == prompt_marks.PROMPTS]
    assert {trace.name.split()[0] for trace in right} == {"baseline"}
    assert fig.layout.xaxis.domain[1] < fig.layout.xaxis2.domain[0]


def test_two_layers_side_by_side_keep_their_own_scales(places):
    larger = places.assign(x=places["x"] * 50, y=places["y"] * 50)
    fig = set_beside(draw(places), draw(larger), ("a", "b"), "light", one_map=False)
    assert fig.layout.xaxis2.matches is None
    assert fig.layout.yaxis2.scaleanchor == "x2"
    assert fig.layout.xaxis2.range[1] > 40 * fig.layout.xaxis.range[1]


def test_in_space_each_map_has_a_scene(places):
    fig = set_beside(draw(places, axes=3), draw(places, axes=3), ("a", "b"), "light", one_map=True)
    assert fig.layout.scene.domain.x[1] < fig.layout.scene2.domain.x[0]
    assert {trace.scene for trace in fig.data if trace.type == "scatter3d"} >= {"scene2"}


def test_sixteen_topics_are_told_apart_by_colour_and_mark(places):
    table = pd.concat([places.assign(topic=f"topic {number}") for number in range(16)])
    for ink in ("light", "dark"):
        marks = [entry[1:] for entry in prompt_marks.legend(table, "topic", ink)]
        assert len(set(marks)) == 16


def test_projections_are_coloured_from_the_aligned_model_to_the_witness(places):
    table = colour_prompts(places.head(4).assign(projection=[-1.0, 0.0, 1.0, np.nan]), "projection", "light")
    below, aligned, witness, unknown = table["colour"]
    assert below == aligned == "#0072B2"
    assert witness == "#E69F00"
    assert unknown not in (aligned, witness)


def test_what_is_selected_stands_out_in_every_trace(places):
    sheet = Sheet.of(draw(places).to_dict())
    mark_selected(sheet, [])
    assert all(trace.selectedpoints is None for trace in sheet.figure().data)
    mark_selected(sheet, ["p3", "p4"])
    for trace in sheet.figure().data:
        if trace.meta == prompt_marks.PROMPTS:
            assert {trace.customdata[place] for place in trace.selectedpoints} <= {"p3", "p4"}


def test_hover_text_is_whole_wrapped_and_harmless():
    text = hover_text("word " * 60 + "<script>", {"a": "yes " * 30, "b": ""})
    assert text.count("word") == 60
    assert "<script>" not in text
    assert max(map(len, text.split("<br>"))) < 80
    assert text.endswith("(nothing)")


def test_the_nulls_cone_moves_with_the_steps_of_the_prompts():
    rows = {"prompt": ["a", "b"], "label": ["harmful", "harmless"], "text": ["x", "y"]}
    before = pd.DataFrame({**rows, "projection": [0.0, 0.1], "across": [0.0, 0.2]})
    steps = {step: before.assign(projection=before["projection"] + step / 10) for step in (1, 10)}
    cones = {1: Cone("random_difference", 0.5, "99 %"), 10: Cone("random_difference", 0.9, "99 %")}
    by_step = {step: (steps[step], cones[step]) for step in steps}
    fig = prompt_arrows(before, steps[10], arm="baseline", subtitle="", cone=cones[10], by_step=by_step)
    angles = []
    for frame in fig.frames:
        edge = next(trace for trace in frame.data if trace.name == "cone")
        angles.append(np.cos(np.arctan2(edge.y[0], edge.x[0])))
    assert angles == pytest.approx([0.5, 0.9])
    ends = [next(trace for trace in frame.data if trace.name == "harmful").x[0] for frame in fig.frames]
    assert ends == pytest.approx([0.1, 1.0])
    still = prompt_arrows(before, steps[1], arm="baseline", subtitle="")
    assert not still.frames
    assert not next(trace for trace in still.data if trace.name == "cone").x
