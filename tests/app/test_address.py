"""A link shows what its sender sees: every control is in the address, and a fresh visit draws the same figures."""

import ast
import json
import re
from pathlib import Path

import pytest

from app import widgets
from app.state import Selection
from probes.run import Run
from probes.stages.maps import MapOptions, write_maps
from tests.synthetic import write_run

ROOT = Path(__file__).parents[2]
PLACE = {"choose-trajectory": ("block", 0), "choose-step": 20, "choose-layer": 1}
LAST = {"choose-step": 100}
# What is changed on each page: a control by its key, and what is chosen there. A page stands here twice where one
# control hides another.
CHANGES = (
    ("trajectories", {"choose-estimate": "differences"}),
    (
        "layers",
        {
            "choose-statistic": "refit",
            "choose-direction": "refusal",
            "choose-steps": ["5", "50"],
        },
    ),
    ("layers", {"choose-prompts": "spectrum", "choose-spread": "displacements"}),
    (
        "manifold",
        {
            "choose-map": "umap",
            "choose-axes": "3d",
            "choose-shown": "trajectory",
            "choose-colour": "step",
            "choose-trails": True,
            "choose-play": True,
        },
    ),
    (
        "manifold",
        {
            "choose-beside": "layers",
            "choose-second_layer": "0",
            "choose-pointer": "box",
            "choose-contours": False,
            "choose-arrow": False,
        },
    ),
    ("manifold", {"choose-beside": "checkpoints", "choose-one": "witness", "choose-other": "block-s0-000050"}),
    ("displacement", {"choose-across": "main", "choose-arms": ["baseline", "block"], "choose-more": "layers"}),
    ("trajectories", {"choose-paths": "space", "choose-arms": ["baseline", "block"], "choose-play": True}),
    ("trajectories", {"choose-paths": "length", "choose-save": "svg", "choose-columns": "1.5"}),
    ("well", {"choose-well": "surface"}),
    ("compare", {"choose-one": "block-s0-000010", "choose-other": "baseline-s0-000050", "choose-answers": "lost"}),
    ("directions", {"choose-direction": "reversion", "choose-directions": "cosines", "choose-format": "csv"}),
    (
        "directions",
        {**LAST, "choose-export_layer": "one", "choose-fitted_at": "block-s0-000100"},
    ),
    (
        "behaviour",
        {
            "choose-measure": "refusal_score_harmful",
            "choose-requests": "harmful",
            "choose-answered": "refused",
            "choose-words": "the",
        },
    ),
)
# Names that other files change and open anew, with those files: they need a browser, a model, or another run.
IN_OTHER_FILES = {
    "selected": "test_workbench.py",
    "camera": "test_camera.py",
    "zoom": "test_camera.py",
    "frame": "test_playing.py",
    "light_ink": "test_saving.py",
    "example": "test_data_page.py",
    "ranking": "test_data_page.py",
    "alone": "test_live_page.py",
    "generate": "test_live_page.py",
    "push": "test_live_page.py",
}
SPEAKING = {
    "choose-map": {"map": "umap", "axes": "3d", "play": "yes"},
    "choose-arms": {"arms": "baseline,block"},
    "choose-pointer": {"pointer": "box", "beside": "layers", "second_layer": "0", "arrow": "no"},
}
KINDS = ("selectbox", "button_group", "segmented_control", "pills", "checkbox", "toggle", "text_input", "radio")


def address(at):
    return {name: value[0] if isinstance(value, list) else value for name, value in at.query_params.items()}


def figures(at):
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def saving_options(at):
    """How the figures' own buttons save them."""
    return [json.loads(chart.proto.config)["toImageButtonOptions"] for chart in at.get("plotly_chart")]


def tables(at):
    return [table.value.to_json() for table in at.dataframe]


def controls(at):
    """Every control of the view by its key."""
    widgets = (widget for kind in KINDS for widget in getattr(at, kind, []))
    return {widget.key: widget for widget in widgets if str(widget.key).startswith("choose-")}


def control(at, key):
    assert key in controls(at), f"there is no {key}"
    return controls(at)[key]


def chosen_values(at):
    return {key: widget.value for key, widget in controls(at).items()}


def change(at, changes):
    for key, value in changes.items():
        control(at, key).set_value(value).run()
        assert not at.exception


def check_that_a_fresh_visitor_sees_the_same(visit, page, sender, **more):
    query = address(sender)
    receiver = visit(page, query, **more)
    assert address(receiver) == query
    assert not [warning for warning in receiver.warning if "address" in warning.value]
    assert chosen_values(receiver) == chosen_values(sender)
    assert figures(receiver) == figures(sender)
    assert saving_options(receiver) == saving_options(sender)
    assert tables(receiver) == tables(sender)


@pytest.mark.parametrize(("page", "changes"), CHANGES, ids=[f"{page}-{[*changes][-1]}" for page, changes in CHANGES])
def test_the_address_with_everything_changed_shows_a_fresh_visitor_the_same(visit, page, changes):
    sender = visit(page, {})
    before = figures(sender), tables(sender)
    for key, value in PLACE.items():
        control(sender, key).set_value(value)
    sender.run()
    change(sender, changes)
    for key in SPEAKING.keys() & changes.keys():
        assert SPEAKING[key].items() <= address(sender).items()
    assert {key.removeprefix("choose-") for key in changes} <= address(sender).keys()
    check_that_a_fresh_visitor_sees_the_same(visit, page, sender)
    assert (figures(sender), tables(sender)) != before


def test_the_fit_of_a_map_is_in_the_address(visit, tmp_path):
    path = write_run(tmp_path / "two-fits", n_layers=2, steps=(1, 10), prompts=8, d_model=8)
    with Run.writing(path) as run:
        for fit in ("roles", "all"):
            write_maps(run, MapOptions(methods=("pca",), fit=fit))
    sender = visit("manifold", {}, run=path)
    of_the_roles = figures(sender)
    change(sender, {"choose-fitted": "all"})
    assert address(sender)["fitted"] == "all"
    check_that_a_fresh_visitor_sees_the_same(visit, "manifold", sender, run=path)
    assert figures(sender) != of_the_roles


def test_no_name_of_the_address_is_without_such_a_test():
    changed = {key.removeprefix("choose-") for _, changes in CHANGES for key in changes}
    assert widgets.NAMES - changed - {"fitted"} == IN_OTHER_FILES.keys()
    for name, file in IN_OTHER_FILES.items():
        assert re.search(rf"\b{name}\b", (Path(__file__).parent / file).read_text(encoding="utf-8")), name


def test_every_control_that_the_app_makes_has_its_name_among_them():
    kinds = {
        kind.__name__ for kind in (widgets.OneOf, widgets.SeveralOf, widgets.Switch, widgets.Words, widgets.Amount)
    }
    names = set()
    for file in (ROOT / "app").rglob("*.py"):
        for call in (
            node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in kinds and call.args and isinstance(call.args[0], ast.Constant):
                names.add(call.args[0].value)
    assert {"ranking", "second_layer", "map", "push"} <= names
    assert names <= widgets.NAMES


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
