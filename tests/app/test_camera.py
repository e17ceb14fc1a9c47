"""Camera and zoom of a picture are in the address, and it is drawn from there for a fresh visitor."""

import json
from pathlib import Path

import pytest

from app import camera, zoom

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "data" / "demo-run"
TURNED = {
    "eye": {"x": 0.5, "y": -1.25, "z": 2.0},
    "center": {"x": 0.0, "y": 0.1, "z": 0.0},
    "up": {"x": 0.0, "y": 0.0, "z": 1.0},
}


def scene(at):
    return json.loads(at.get("plotly_chart")[0].proto.spec)["layout"]["scene"]


def test_a_camera_comes_back_from_the_address():
    assert camera.read(camera.write("well-surface", TURNED)) == ("well-surface", TURNED)


@pytest.mark.parametrize("text", ["", "well", "well:1,2", "well:1,2,3,4,5,6,7,8,up", "well:1,2,3,4,5,6,7,8,nan"])
def test_what_is_no_camera_is_not_read(text):
    assert camera.read(text) is None


@pytest.mark.parametrize(
    ("page", "query", "picture"),
    [
        ("manifold", {"axes": "3d"}, "manifold-3"),
        ("well", {"well": "surface"}, "well-surface"),
        ("trajectories", {"paths": "space"}, "trajectories-space"),
    ],
)
def test_a_fresh_visitor_sees_it_from_where_the_sender_looked(visit, page, query, picture):
    assert scene(visit(page, query)).get("camera") != TURNED
    at = visit(page, {**query, "camera": camera.write(picture, TURNED)})
    assert {part: scene(at)["camera"][part] for part in TURNED} == TURNED
    elsewhere = visit(page, {**query, "camera": camera.write("another", TURNED)})
    assert scene(elsewhere).get("camera") != TURNED


def test_an_address_with_no_camera_in_it_is_told_so(visit):
    at = visit("well", {"camera": "up"})
    assert any("camera" in warning.value and "no camera" in warning.value for warning in at.warning)


@pytest.mark.parametrize("text", ["", "map", "map:0,1", "map:0,1,0,up", "map:0,1,0,nan", "map:1,0,0,1"])
def test_what_is_no_zoom_is_not_read(text):
    assert zoom.read(text) is None


def test_a_zoom_is_shares_of_the_figures_own_axes_and_a_map_seen_whole_has_none(visit):
    at = visit("manifold", {})
    home = [json.loads(at.get("plotly_chart")[0].proto.spec)["layout"][axis]["range"] for axis in ("xaxis", "yaxis")]
    half = (0.25, 0.75, 0.0, 0.5)
    assert zoom.read(zoom.write("manifold-2", half)) == ("manifold-2", half)
    at = visit("manifold", {"zoom": zoom.write("manifold-2", half)})
    layout = json.loads(at.get("plotly_chart")[0].proto.spec)["layout"]
    for (low, high), axis, (start, end) in zip(home, ("xaxis", "yaxis"), (half[:2], half[2:]), strict=True):
        expected = [low + start * (high - low), low + end * (high - low)]
        assert layout[axis]["range"] == pytest.approx(expected)
    assert zoom.write("manifold-2", (-0.2, 1.2, 0.0, 1.0)) == ""
    assert zoom.write("manifold-2", (-0.2, 1.2, -0.2, 1.2)) != ""


def test_two_layers_side_by_side_are_zoomed_to_the_same_shares_each_of_its_own_map(visit):
    whole, half = (
        json.loads(visit("manifold", {"beside": "layers", **more}).get("plotly_chart")[0].proto.spec)["layout"]
        for more in ({}, {"zoom": zoom.write("manifold-2-pair", (0.25, 0.75, 0.0, 0.5))})
    )
    assert whole["xaxis"]["range"] != whole["xaxis2"]["range"]
    for panel in ("", "2"):
        low, high = whole[f"xaxis{panel}"]["range"]
        assert half[f"xaxis{panel}"]["range"] == pytest.approx([0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high])
        low, high = whole[f"yaxis{panel}"]["range"]
        assert half[f"yaxis{panel}"]["range"] == pytest.approx([low, 0.5 * (low + high)])
    titles = [note["text"] for note in whole["annotations"] if note.get("name") == "panel"]
    assert len({title.split("trustworthiness")[1] for title in titles}) == 2, "each map has its own"
