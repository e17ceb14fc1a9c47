"""The figures of maps, displacements, pairs, behaviour and curves: what must be in them, on planted tables."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from probes.plots import animation, behaviour, by_layer, displacement, manifold, roc, spectrum, style, trajectories
from probes.plots.clouds import COLOURS, Drawing
from probes.plots.displacement import Cone
from probes.plots.displacement_by_layer import evenly
from probes.plots.sheet import Sheet

ABOUT = {
    "method": "pca",
    "fit": "roles",
    "seed": 0,
    "trustworthiness": {"2": 0.9, "3": 0.95},
    "neighbours": 5,
    "explained": [0.5, 0.3, 0.1],
}


@pytest.fixture
def places():
    """A map of the roles and of one trajectory of three steps."""
    rng = np.random.default_rng(0)
    rows = []
    for arm, step in [("aligned", 0), ("witness", 0), ("baseline", 1), ("baseline", 10), ("baseline", 100)]:
        for index in range(40):
            label = "harmful" if index % 2 else "harmless"
            x, y, *deep = rng.standard_normal(5) + (5 if arm == "witness" else 0)
            rows.append((f"{arm}{step}", arm, 0, step, f"p{index}", label, f"<b>{index}", x, y, *deep))
    columns = ["checkpoint", "arm", "seed", "step", "prompt", "label", "text", "x", "y", "x3", "y3", "z3"]
    return pd.DataFrame(rows, columns=columns)


def draw_map(places, **how):
    return manifold.manifold(places, ABOUT, drawing=Drawing(**how), subtitle="run", witness="witness")


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("axes", [2, 3])
def test_every_prompt_is_in_the_map_once(places, axes, colour):
    fig = draw_map(places, axes=axes, colour=colour)
    kind = "scatter" if axes == 2 else "scatter3d"
    clouds = [trace for trace in fig.data if trace.type == kind and trace.hovertext is not None]
    assert sum(len(trace.x) for trace in clouds) == len(places)
    assert "0.900" in fig.layout.annotations[0].text or axes == 3
    assert not any("<b>1" in text for trace in clouds for text in trace.hovertext)


def test_many_points_are_drawn_by_the_graphics_card(places):
    many = pd.concat([places] * (style.WEBGL_FROM // len(places) + 1))
    assert {trace.type for trace in draw_map(many).data if trace.hovertext is not None} == {"scattergl"}


def test_the_axes_stay_whatever_is_shown(places):
    some = places[places["arm"] == "aligned"]
    fig = manifold.manifold(some, ABOUT, drawing=Drawing(), subtitle="", witness="w", whole=places)
    assert fig.layout.xaxis.range == draw_map(places).layout.xaxis.range


def test_a_moving_map_has_a_frame_a_step_and_fixed_axes(places):
    fig = draw_map(places, moving=True)
    assert [frame.name for frame in fig.frames] == ["1", "10", "100"]
    assert {len(frame.data) for frame in fig.frames} == {2}
    assert [len(trace.x) for trace in fig.frames[0].data] == [20, 20]
    assert len(fig.layout.sliders[0].steps) == 3


def test_thinning_keeps_every_checkpoint_and_class_alike(places):
    thinned = manifold.thin(places, 60)
    assert len(thinned) <= 60 + 10
    assert thinned.groupby(["checkpoint", "label"]).size().nunique() == 1
    assert len(manifold.thin(places, 1000)) == len(places)


def test_half_of_the_points_lie_inside_the_contour(places):
    cloud = np.random.default_rng(1).standard_normal((200, 2))
    x, y, z, half = manifold._density(cloud)
    inside = z[np.searchsorted(y, cloud[:, 1]) - 1, np.searchsorted(x, cloud[:, 0]) - 1] > half
    assert 0.42 < inside.mean() < 0.58
    assert z.sum() * (x[1] - x[0]) * (y[1] - y[0]) == pytest.approx(1, abs=0.03)


def test_the_curve_is_scikit_learns_and_ties_fall_together():
    rng = np.random.default_rng(0)
    scores, positive = np.round(rng.standard_normal(60), 1), rng.random(60) < 0.4
    false, true, area = roc.curve(scores, positive)
    assert area == pytest.approx(roc_auc_score(positive, scores))
    expected = roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose((false, true), expected[:2])


def test_the_spectrum_says_its_participation_ratio():
    rows = pd.DataFrame(
        {
            "checkpoint": "a",
            "arm": "aligned",
            "of": "activations",
            "component": [1, 2],
            "share": [0.6, 0.4],
            "participation_ratio": 1.923,
        }
    )
    fig = spectrum.spectrum(rows, [("a", "aligned")], of="activations", subtitle="")
    assert "PR 1.9" in " ".join(note.text for note in fig.layout.annotations)


def test_the_cone_is_the_angle_of_its_cosine():
    assert Cone("sham_drift", 0.5, "largest of 39").angle == pytest.approx(math.pi / 3)
    table = pd.DataFrame({"arm": ["baseline"], "seed": 0, "step": 10, "along": 1.0, "across": 1.0})
    fig = displacement.vectors(
        table, chosen=("baseline", 0), step=10, subtitle="", cone=Cone("sham_drift", 0.5, "largest of 39")
    )
    edge = next(trace for trace in fig.data if trace.name == "edge")
    assert math.atan2(edge.y[1], edge.x[1]) == pytest.approx(math.pi / 3)
    assert "sham drift (largest of 39): 60°" in " ".join(note.text for note in fig.layout.annotations)


def test_layers_are_chosen_evenly_and_the_wanted_ones_are_kept():
    assert evenly(range(5), 2) == [0, 1, 2, 3, 4]
    chosen = evenly(range(33), 17, 19)
    assert len(chosen) <= 12
    assert {0, 17, 19, 32} <= set(chosen)


def test_paths_grow_from_the_origin_step_by_step():
    table = pd.DataFrame(
        {"arm": "baseline", "seed": 0, "step": [1, 10], "along": [0.1, 0.5], "across": [0.0, 0.2], "third": 0.0}
    )
    for draw in (trajectories.plane, trajectories.space):
        fig = draw(table, subtitle="", moving=True)
        assert [frame.name for frame in fig.frames] == ["0", "1", "10"]
        assert [len(frame.data[0].x) for frame in fig.frames] == [1, 2, 3]


def test_a_play_button_never_starts_by_itself(places):
    sheet = Sheet.of(draw_map(places).to_dict())
    animation.play(sheet, [], [1], "light")
    assert sheet.figure().layout.updatemenus[0].buttons[0].args[0] is None


def test_the_honest_n_is_that_of_trajectories():
    rows = pd.DataFrame(
        {
            "arm": "baseline",
            "seed": [0, 0, 0, 1],
            "step": [1, 2, 3, 1],
            "value": [0.1, 0.2, 0.3, 0.4],
            "fraction": [0.0, 0.1, 0.2, 0.3],
        }
    )
    association = behaviour.association(rows)
    assert (association.over_checkpoints, association.checkpoints, association.trajectories) == (
        pytest.approx(1.0),
        4,
        2,
    )
    assert "these runs and no others" in association.words
    assert "not defined" in behaviour.association(rows.assign(value=1.0)).words


def test_the_mirror_begins_at_the_witness_and_counts_in_no_correlation_of_the_return():
    table = pd.DataFrame(
        {"arm": ["baseline", "mirror"], "seed": 0, "step": 10, "along": [0.5, 0.9], "across": 0.1, "third": 0.0}
    )
    for draw in (trajectories.plane, trajectories.space):
        paths = {trace.name: tuple(trace.x) for trace in draw(table, subtitle="").data}
        assert paths["baseline s0"] == (0.0, 0.5)
        assert paths["mirror s0"] == (1.0, 0.9)
    rows = pd.DataFrame({"arm": ["baseline"] * 3, "seed": 0, "step": [1, 2, 3], "value": [0.1, 0.2, 0.3]})
    rows = rows.assign(fraction=rows["value"], low=0.0, high=1.0)
    mirror = rows.assign(arm="mirror", value=1.0)
    plain, mirrored = (
        behaviour.behaviour(shown, measure="harmful_compliance", subtitle="", witness="witness")
        for shown in (rows, pd.concat([rows, mirror]))
    )
    assert plain.data == mirrored.data
    captions = [
        " ".join(note.text.replace("<br>", " ") for note in fig.layout.annotations) for fig in (plain, mirrored)
    ]
    assert "over 3 checkpoints" in captions[0]
    assert "over 3 checkpoints" in captions[1]
    assert ["The mirror is left out" in caption for caption in captions] == [False, True]


def test_pairs_are_drawn_with_their_references():
    columns = ("distance", "cosine", "cka", "overlap", "overlap_random", "angle_least", "angle_most", "transfer")
    rows = pd.DataFrame({"layer": [0, 1], **{name: [0.5, 0.7] for name in (*columns, "transfer_back")}})
    fig = by_layer.by_layer(rows, subtitle="", names=("a", "<b>"), layer=1)
    assert {"distance", "overlap_random", "transfer_back"} <= {trace.name for trace in fig.data}
    assert "&lt;b&gt;" in fig.layout.title.text
    angle = next(trace for trace in fig.data if trace.name == "angle_most")
    assert list(angle.y) == pytest.approx([math.degrees(0.5), math.degrees(0.7)])
