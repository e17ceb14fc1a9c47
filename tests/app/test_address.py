"""A link shows what its sender sees: every control is in the address, and a fresh visit draws the same figures."""

import json
from pathlib import Path

import pytest

from app import widgets
from app.state import Selection

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "data" / "demo-run"
PLACE = {"choose-trajectory": ("block", 0), "choose-step": 20, "choose-layer": 1}
# What is changed on each page: a control by its key, and what is chosen there.
CHANGES = {
    "overview": {"choose-estimate": "differences"},
    "layers": {
        "choose-statistic": "refit",
        "choose-direction": "refusal",
        "choose-prompts": "densities",
        "choose-steps": ["5", "50"],
    },
    "manifold": {
        "choose-map": "umap",
        "choose-axes": "3d",
        "choose-shown": "trajectory",
        "choose-colour": "step",
        "choose-trails": True,
        "choose-play": True,
    },
    "displacement": {"choose-across": "main", "choose-arms": ["baseline", "block"], "choose-more": "layers"},
    "trajectories": {"choose-paths": "space", "choose-arms": ["baseline", "block"], "choose-play": True},
    "well": {"choose-well": "surface"},
    "compare": {"choose-one": "block-s0-000010", "choose-other": "baseline-s0-000050", "choose-answers": "lost"},
    "directions": {"choose-direction": "reversion", "choose-directions": "cosines", "choose-format": "csv"},
    "behaviour": {
        "choose-measure": "refusal_score_harmful",
        "choose-requests": "harmful",
        "choose-answered": "refused",
        "choose-words": "the",
    },
}
SPEAKING = {
    "manifold": {"map": "umap", "axes": "3d", "play": "yes"},
    "displacement": {"arms": "baseline,block"},
    "trajectories": {"arms": "baseline,block", "paths": "space"},
}


def address(at):
    return {name: value[0] if isinstance(value, list) else value for name, value in at.query_params.items()}


def figures(at):
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def tables(at):
    return [table.value.to_json() for table in at.dataframe]


def control(at, key):
    kinds = ("selectbox", "button_group", "segmented_control", "pills", "checkbox", "toggle", "text_input", "radio")
    for kind in kinds:
        for widget in getattr(at, kind, []):
            if widget.key == key:
                return widget
    raise AssertionError(f"there is no {key}")


@pytest.mark.parametrize("page", CHANGES)
def test_the_address_with_everything_changed_shows_a_fresh_visitor_the_same(visit, page):
    sender = visit(page, {})
    before = figures(sender), tables(sender)
    for key, value in PLACE.items():
        control(sender, key).set_value(value)
    sender.run()
    for key, value in CHANGES[page].items():
        control(sender, key).set_value(value).run()
        assert not sender.exception
    query = address(sender)
    assert SPEAKING.get(page, {}).items() <= query.items()
    receiver = visit(page, query)
    assert address(receiver) == query
    assert not [warning for warning in receiver.warning if "address" in warning.value]
    assert figures(receiver) == figures(sender)
    assert tables(receiver) == tables(sender)
    assert (figures(sender), tables(sender)) != before


def test_a_control_back_at_its_default_leaves_the_address(visit):
    at = visit("manifold", {"map": "umap", "axes": "3d"})
    control(at, "choose-map").set_value("pca").run()
    control(at, "choose-axes").set_value("2d").run()
    assert not {"map", "axes"} & set(address(at))


@pytest.mark.parametrize(
    ("page", "query", "words"),
    [
        ("manifold", {"map": "tsne"}, "map=tsne, which is not there; shown: PCA"),
        ("manifold", {"contours": "perhaps"}, "contours=perhaps"),
        ("trajectories", {"arms": "baseline,defence"}, "arms=defence, which is not there; shown: baseline"),
        ("layers", {"statistic": "none"}, "statistic=none"),
        ("layers", {"direction": "up"}, "direction=up"),
        ("layers", {"steps": "3"}, "steps=3"),
        ("compare", {"other": "nobody"}, "other=nobody"),
        ("behaviour", {"measure": "kindness"}, "measure=kindness"),
        ("overview", {"layer": "999"}, "layer=999, which this run does not have; shown: layer 2"),
        ("overview", {"layer": "two"}, "layer=two, which is no number"),
        ("overview", {"mapp": "umap"}, "mapp, which means nothing here"),
    ],
)
def test_what_an_address_asks_for_and_is_not_there_is_said_on_every_rerun(visit, page, query, words):
    at = visit(page, query)
    for _ in range(2):
        assert any(words in warning.value.replace("\\", "") for warning in at.warning)
        at.run()


def test_every_control_has_one_name_and_none_is_a_place():
    place = set(Selection(*["1"] * 9, view=(), unread=()).to_query())
    assert not place & widgets.NAMES
    assert len(place) == 9


def test_layers_are_stepped_through_and_kept_in_the_address(visit):
    at = visit("layers", {"layer": "-1"})
    assert at.button(key="layer-previous").disabled
    for layer in ("0", "1", "2", "3"):
        at.button(key="layer-next").click().run()
        assert address(at)["layer"] == layer
    assert at.button(key="layer-next").disabled
    at.button(key="layer-previous").click().run()
    assert address(at)["layer"] == "2"
