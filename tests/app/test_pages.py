"""Every page on every kind of run: none, finished, unfinished, with one arm, damaged."""

import functools
import html
import json
import multiprocessing
import re
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st

from app import look
from app.state import runs
from probes.cli.look import _root
from probes.run import Run
from probes.stages.maps import MapOptions, write_maps
from probes.stages.pairs import write_pairs
from probes.stages.spectra import write_spectra
from probes.stages.weights import write_weights
from tests.app.commands import commands_of
from tests.app.visiting import turn_to, visitor
from tests.conftest import take_main_back
from tests.synthetic import TRICKY, TRICKY_ARM, write_run

MAIN = str(Path(__file__).parents[2] / "app" / "main.py")
PAGES = {
    "views/overview.py": "Baseline: safety eroded",
    "views/layers.py": "Return fraction, layer by layer",
    "views/manifold.py": "9 checkpoints in one map of layer 2",
    "views/displacement.py": "Baseline moved at 17° to the way back",
    "views/well.py": "No well at layer 2",
    "views/trajectories.py": "Baseline: 0.70 of the way back, 0.22 off it",
    "views/compare.py": "Aligned against baseline step 100",
    "views/directions.py": "Refusal turned by 46° at layer 2",
    "views/behaviour.py": "Refusal of harmful requests: 4 %",
    "views/data.py": "The return has not been attributed to examples yet",
    "views/live.py": "Ask a checkpoint yourself",
    "views/run.py": "demo is finished",
}
DATA = Path(__file__).parents[2] / "data"
DIRECTIONS = ("reversion", "refusal", "control:drift")
SMALL = {"n_layers": 3, "steps": (1, 10, 100), "prompts": 6, "directions": DIRECTIONS}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that holds everything that pages draw."""
    root = tmp_path_factory.mktemp("runs")
    path = write_run(root / "demo", **{**SMALL, "arms": ("baseline", "block")}, d_model=8)
    with Run.writing(path) as run:
        write_spectra(run)
        write_pairs(run)
        write_maps(run, MapOptions(methods=("pca",)))
    return root


@pytest.fixture
def opened(monkeypatch):
    """The app on a root, at a page, with a query."""
    st.cache_data.clear()

    def run(root, page="views/overview.py", **query):
        monkeypatch.setattr(sys, "argv", ["main.py", str(root)])
        return visitor(query).switch_page(page).run()

    return run


def title(at):
    return at.title[0].value.replace("\\", "")


def words(at):
    texts = [element.proto.body for element in at.get("html")]
    return " ".join([*texts, *(part.value.replace("\\", "") for part in [*at.markdown, *at.error, *at.warning])])


def query(at):
    """The URL's query; a value given by the test comes back as a list of one, one written by the app as itself."""
    return {name: value[0] if isinstance(value, list) else value for name, value in at.query_params.items()}


def commands(at):
    return " ".join(commands_of(at))


@pytest.mark.parametrize(("page", "heading"), PAGES.items())
def test_a_finished_run_shows_each_page_by_its_own_title(opened, finished, page, heading):
    at = opened(finished, page)
    assert not at.exception
    assert not at.error
    assert title(at) == heading


def test_the_overview_opens_with_the_verdict_and_the_numbers(opened, finished):
    at = opened(finished)
    assert "it refuses 100 % of harmful requests before and 4 % after" in words(at).replace("\xa0", " ")
    assert "Evidence level 5 of 6: specific to harmful prompts." in words(at)
    assert "baseline was tested" in words(at)
    assert "Causality was not tested" in words(at)
    assert "return fraction at step 100, layer 2" in words(at)
    assert "level 5 of 6" in words(at)
    assert len(at.get("plotly_chart")) == 3
    assert any("against the way back" in chart.proto.spec for chart in at.get("plotly_chart"))
    assert "gravity-probe directions mediate" in commands(at)


def test_compare_says_what_of_the_weights_change_no_activation_sees(opened, finished, tmp_path):
    shutil.copytree(finished / "demo", tmp_path / "demo")
    tensor = {"tensor": "model.layers.0.mlp.up_proj.weight", "frobenius": 2.0, "spectral": 1.0, "relative": 0.1}
    parts = [("layers.0.mlp", 1.0, 0.2, 0.02), ("unembedding", 1.0, 0.6, 0.01)]
    names = ("part", "frobenius", "along", "random")
    comparison = {
        "weights": [{**tensor, "inside": None, "random": 0.3}],
        "symmetries": {"parts": [dict(zip(names, part, strict=True)) for part in parts]},
    }
    with Run.writing(tmp_path / "demo") as run:
        write_weights(run, "aligned", "baseline-s0-000100", comparison)
    at = opened(tmp_path, "views/compare.py")
    assert not at.exception
    text = html.unescape(words(at)).replace("\xa0", " ")
    assert "20 % of ‖Δθ‖² lies along the architecture's symmetries" in text
    assert "would have 0.75 %. Of the blocks alone 20 % against 2 %." in text


@pytest.mark.parametrize("page", PAGES)
def test_a_shipped_run_is_shown_on_every_page(opened, page):
    """The other one is drawn on every page in `test_numbers_in_words.py`."""
    at = opened(DATA / "smollm2-run", page)
    assert not at.exception
    assert not at.error
    assert at.title


def test_without_runs_of_ones_own_every_shipped_run_is_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"demo-run", "smollm2-run"} <= set(runs(_root(None)))


@pytest.mark.parametrize("page", PAGES)
def test_no_run_says_what_to_do(opened, tmp_path, page):
    at = opened(tmp_path, page)
    assert not at.exception
    assert title(at) == "No run yet"
    assert "gravity-probe demo" in commands(at)


def test_a_run_with_nothing_measured_yet_names_the_command(opened, tmp_path):
    write_run(tmp_path / "young", **SMALL, without=("drift",), finished=False)
    at = opened(tmp_path)
    assert not at.exception
    assert title(at) == "This run is not finished"
    assert "--out" in commands(at)
    assert "still being written" in words(at)


# Where a page shows one part at a time: the control, and the part that a table or file belongs to.
VIEWS = {
    "views/layers.py": ("choose-prompts", {"spectra": "spectrum", "direction_readout": "tokens"}),
    "views/displacement.py": ("choose-more", {"maps/plane": "layers"}),
    "views/directions.py": (
        "choose-directions",
        {
            "direction_readout": "tokens",
            "direction_cosines": "cosines",
            "direction_transfer": "transfer",
            "mediation": "interventions",
        },
    ),
}


@pytest.fixture(scope="module")
def partial(tmp_path_factory):
    """The folder of a run that lacks a table, written once for all pages."""

    @functools.cache
    def write(lacks):
        root = tmp_path_factory.mktemp("partial")
        write_run(root / "partial", **SMALL, without=(lacks,), finished=False)
        return root

    return write


@pytest.mark.parametrize(
    ("page", "lacks", "says"),
    [
        ("views/overview.py", "verdict", "gravity-probe verdict"),
        ("views/overview.py", "behaviour", "gravity-probe evaluate"),
        ("views/layers.py", "projections", "gravity-probe measure"),
        ("views/layers.py", "spectra", "gravity-probe map"),
        ("views/manifold.py", "maps/pca", "gravity-probe map"),
        ("views/displacement.py", "maps/plane", "gravity-probe measure"),
        ("views/displacement.py", "projections", "gravity-probe measure"),
        ("views/trajectories.py", "maps/plane", "gravity-probe measure"),
        ("views/trajectories.py", "nulls", "gravity-probe verdict"),
        ("views/compare.py", "pairs", "gravity-probe map"),
        ("views/compare.py", "weights", "gravity-probe compare"),
        ("views/compare.py", "completions", "gravity-probe evaluate"),
        ("views/compare.py", "direction_transfer", "gravity-probe directions"),
        ("views/directions.py", "direction_tracks", "gravity-probe directions"),
        ("views/directions.py", "direction_cosines", "gravity-probe directions"),
        ("views/directions.py", "direction_transfer", "gravity-probe directions"),
        ("views/directions.py", "direction_readout", "gravity-probe directions"),
        ("views/directions.py", "mediation", "gravity-probe directions"),
        ("views/layers.py", "direction_readout", "gravity-probe directions"),
        ("views/layers.py", "direction_projections", "gravity-probe directions"),
        ("views/behaviour.py", "behaviour", "gravity-probe evaluate"),
        ("views/behaviour.py", "completions", "gravity-probe evaluate"),
        ("views/run.py", "verdict", "gravity-probe verdict"),
    ],
)
def test_a_missing_table_takes_only_its_own_part_of_the_page(opened, partial, page, lacks, says):
    at = opened(partial(lacks), page, **({"direction": "refusal"} if lacks.startswith("direction") else {}))
    key, views = VIEWS.get(page, ("", {}))
    if lacks in views:
        at.segmented_control(key=key).set_value(views[lacks]).run()
    assert not at.exception
    assert not at.error
    assert says in commands(at)
    whole = {"views/manifold.py", "views/run.py"}
    whole |= {page} if lacks in ("behaviour", "direction_tracks") else set()
    if page not in whole or page == "views/overview.py":
        assert at.get("plotly_chart")


def test_a_watched_run_without_rates_says_the_command_instead_of_empty_axes(opened, tmp_path):
    path = write_run(tmp_path / "watched", **SMALL, arms=("watch",), without=("verdict", "safety"))
    with Run.writing(path) as run:
        rows = run.read_table("behaviour")
        rows = rows[(rows["measure"] == "task_loss") & (rows["arm"] == "watch")]
        run.write_table("behaviour", rows.assign(measure="refusal_score_harmful"))
        run.write_json("alarm", {"step": 10, "said": "Return fraction 0.400 at step 10."})
    at = opened(tmp_path)
    assert "gravity-probe evaluate" in commands(at)
    assert "the guard's alarm rang: Return fraction 0.400 at step 10." in html.unescape(words(at))
    for page in PAGES:
        at = opened(tmp_path, page)
        assert not at.exception
        for chart in at.get("plotly_chart"):
            assert any(has_points(trace) for trace in json.loads(chart.proto.spec)["data"]), page


def has_points(trace):
    """Whether anything is drawn; Plotly writes numbers as a typed array or a list."""
    for axis in ("x", "z", "r"):
        values = trace.get(axis)
        if isinstance(values, dict) and values.get("bdata"):
            return True
        if isinstance(values, list) and any(value is not None for value in values):
            return True
    return False


def test_without_a_verdict_the_number_is_no_verdict(opened, tmp_path):
    write_run(tmp_path / "plain", **SMALL, without=("verdict", "nulls", "safety"))
    at = opened(tmp_path)
    assert title(at) == "Baseline went 70 % of the way back to the witness"
    assert "no verdict" in words(at)


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    """A run with one arm, one step, one layer."""
    root = tmp_path_factory.mktemp("smallest")
    directions = ("control:drift", "control:random")
    write_run(root / "one", n_layers=1, steps=(5,), arms=("control:random",), prompts=2, directions=directions)
    return root


@pytest.mark.parametrize("page", PAGES)
def test_a_run_with_one_arm_and_one_step(opened, smallest, page):
    at = opened(smallest, page)
    assert not at.exception
    assert not at.error


@pytest.mark.parametrize("page", PAGES)
def test_the_embedding_has_no_way_back_and_every_page_says_so_or_shows_what_it_has(opened, page):
    at = opened(DATA / "smollm2-run", page, layer="-1")
    assert not at.exception
    assert not at.error
    assert not any("of 30" in chart.proto.spec for chart in at.get("plotly_chart")), "it is none of the thirty layers"
    if page in ("views/overview.py", "views/trajectories.py"):
        assert "is not defined at embedding: The witness equals the aligned model" in words(at)


def test_the_table_of_levels_says_each_trajectorys_safety(opened):
    table = words(opened(DATA / "smollm2-run")).split('<table class="gp-ladder">')[1].replace("\xa0", " ")
    rows = {tuple(re.findall("<td>(.*?)</td>", row)[:4]) for row in table.split("<tr>")[2:]}
    assert ("baseline", "0, 1", "eroded", "42 %") in rows
    assert ("block", "0", "undecided", "77 %") in rows
    assert ("control:covariance", "0, 1", "eroded", "60 % to 69 %") in rows


def test_the_mirror_is_held_against_the_witness_that_it_began_at(opened):
    at = opened(DATA / "smollm2-run", arm="mirror", seed="0")
    text = words(at).replace("\xa0", " ")
    assert "2 %</b><span>of harmful requests refused at step 10; 4 % before fine-tuning" in text
    assert "Mirror, seed 0 went −13 % of the way from the witness to the aligned model" in text


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("views/overview.py", "drift.parquet"),
        ("views/overview.py", "behaviour.parquet"),
        ("views/overview.py", "nulls.parquet"),
        ("views/overview.py", "verdict.json"),
        ("views/layers.py", "projections.parquet"),
        ("views/manifold.py", "maps/pca-roles-layer2.parquet"),
        ("views/manifold.py", "maps/pca-roles-layer2.json"),
        ("views/displacement.py", "projections.parquet"),
        ("views/displacement.py", "maps/plane.parquet"),
        ("views/trajectories.py", "maps/plane.parquet"),
        ("views/compare.py", "pairs.parquet"),
        ("views/compare.py", "completions.parquet"),
        ("views/compare.py", "direction_transfer.parquet"),
        ("views/directions.py", "direction_tracks.parquet"),
        ("views/directions.py", "direction_cosines.parquet"),
        ("views/directions.py", "direction_transfer.parquet"),
        ("views/directions.py", "direction_readout.parquet"),
        ("views/directions.py", "directions.json"),
        ("views/layers.py", "direction_tracks.parquet"),
        ("views/layers.py", "directions.json"),
        ("views/behaviour.py", "behaviour.parquet"),
        ("views/behaviour.py", "completions.parquet"),
        ("views/layers.py", "run.json"),
    ],
)
def test_a_damaged_file_is_a_sentence_and_no_traceback(opened, finished, tmp_path, page, file):
    path = Path(shutil.copytree(finished / "demo", tmp_path / "damaged")) / file
    path.write_bytes(path.read_bytes()[:40])
    at = opened(tmp_path, page)
    key, views = VIEWS.get(page, ("", {}))
    if file.removesuffix(".parquet") in views and any(control.key == key for control in at.segmented_control):
        at.segmented_control(key=key).set_value(views[file.removesuffix(".parquet")]).run()
    assert not at.exception
    assert at.title
    assert Path(file).name in words(at)
    assert at.error


def test_a_newer_format_is_refused_in_one_sentence(opened, tmp_path):
    path = write_run(tmp_path / "newer", **SMALL) / "run.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 99'))
    at = opened(tmp_path)
    assert "Update gravity-probe" in words(at)


def test_the_selection_is_kept_between_pages_and_in_the_url(opened, finished):
    at = opened(finished, run="demo", arm="block", step="10", layer="0", statistic="off_axis")
    turn_to(at, "views/layers.py")
    assert title(at) == "Off-axis displacement, layer by layer"
    at.selectbox(key="choose-statistic").set_value("share_moved").run()
    at.selectbox(key="choose-layer").set_value(1).run()
    selection = {"run": "demo", "arm": "block", "seed": "0", "step": "10", "layer": "1", "statistic": "share_moved"}
    assert query(at) == selection


@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", "demo/../../x", "%2e%2e"])
def test_the_url_opens_nothing_outside_the_root(opened, finished, name):
    at = opened(finished, run=name)
    assert not at.exception
    assert "not in this folder" in words(at)
    assert query(at)["run"] == "demo"


ABSENT = {"arm": "unheard", "seed": "7", "step": "3", "layer": "999"}


def test_what_the_run_does_not_have_is_said_and_stays_in_the_address(opened, finished):
    at = opened(finished, **ABSENT)
    for _ in range(2):
        assert not at.exception
        warnings = " ".join(warning.value.replace("\\", "") for warning in at.warning)
        for name, value in ABSENT.items():
            assert f"The address asks for {name}={value}, which this run does not have" in warnings
            assert query(at)[name] == value
        assert "return fraction at step 100, layer 2" in words(at)
        at.run()
    at.selectbox(key="choose-layer").set_value(1).run()
    assert query(at)["layer"] == "1"
    assert not any("layer" in warning.value for warning in at.warning)


def test_text_from_a_run_is_never_markup(opened, tmp_path):
    path = write_run(tmp_path / "tricky", **{**SMALL, "arms": (TRICKY_ARM,)})
    with Run.writing(path) as run:
        verdict = {"arm": TRICKY_ARM, "seed": 0, "level": 2, "name": TRICKY, "text": TRICKY, "p": 0.1}
        run.write_json("verdict", {"trajectories": [verdict]})
    for page in PAGES:
        at = opened(tmp_path, page)
        assert not at.exception
        bodies = [element.proto.body.strip() for element in at.get("html")]
        markup = " ".join(body for body in bodies if body != look.SCRIPTS.strip())
        assert "<script" not in markup
        assert "<b>bold" not in markup
        assert all("<script" not in chart.proto.spec for chart in at.get("plotly_chart"))


def test_only_the_isotropic_null_is_said_to_be_withheld(opened, tmp_path):
    path = write_run(tmp_path / "isotropic", **SMALL)
    with Run.writing(path) as run:
        rows = run.read_table("nulls")
        run.write_table("nulls", rows[rows["null"] == "isotropic"])
    assert "not shown alone" in words(opened(tmp_path, "views/trajectories.py"))


def test_layers_open_a_cell_in_every_way(opened, finished):
    at = opened(finished, "views/layers.py", step="10", layer="1")
    for view in ("roc", "spectrum", "movers"):
        at.segmented_control(key="choose-prompts").set_value(view).run()
        assert not at.exception
        assert not at.error


def test_a_map_is_drawn_in_space_by_step_and_moving(opened, finished):
    at = opened(finished, "views/manifold.py")
    assert "trustworthiness of" in words(at)
    at.segmented_control(key="choose-shown").set_value("trajectory").run()
    at.selectbox(key="choose-colour").set_value("step").run()
    at.checkbox(key="choose-play").check().run()
    at.segmented_control(key="choose-axes").set_value("3d").run()
    assert not at.exception
    assert not at.error
    at.segmented_control(key="choose-map").set_value("umap").run()
    assert "--method umap" in commands(at)


@pytest.mark.parametrize("view", ["plane", "space", "length"])
def test_trajectories_play(opened, finished, view):
    at = opened(finished, "views/trajectories.py")
    at.segmented_control(key="choose-paths").set_value(view).run()
    at.toggle(key="choose-play").set_value(True).run()
    assert not at.exception
    assert "frames" in at.get("plotly_chart")[0].proto.spec


def test_two_checkpoints_are_compared_whichever_way_round(opened, finished):
    at = opened(finished, "views/compare.py", one="block-s0-000100", other="aligned")
    assert title(at) == "Block step 100 against aligned"
    assert not at.error
    assert query(at)["one"] == "block-s0-000100"
    at.selectbox(key="choose-other").set_value("baseline-s0-000010").run()
    assert title(at) == "Block step 100 against baseline step 10"
    assert query(at)["other"] == "baseline-s0-000010"


def answers_shown(at):
    return next(table.value for table in at.dataframe if "completion_after" in table.value)


def test_the_flips_stand_first_and_all_answers_are_shown_when_asked(opened, finished):
    at = opened(finished, "views/compare.py")
    flips = len(answers_shown(at))
    at.segmented_control(key="choose-answers").set_value("all").run()
    assert 0 < flips < len(answers_shown(at))
    assert query(at)["answers"] == "all"


def test_answers_are_browsed_by_words(opened, finished):
    at = opened(finished, "views/behaviour.py")
    at.text_input(key="choose-words").set_value("NUMBER 3").run()
    assert 0 < len(at.dataframe[-1].value) < 12
    assert not at.exception


def test_a_direction_is_looked_at_on_every_page_that_knows_it(opened, finished):
    at = opened(finished, "views/directions.py", step="10", layer="1")
    at.selectbox(key="choose-direction").set_value("control:drift").run()
    assert title(at) == "Control:drift is not defined at layer 1"
    assert query(at)["direction"] == "control:drift"
    at.selectbox(key="choose-direction").set_value("refusal").run()
    for view, charts in (("all", 2), ("tokens", 1), ("cosines", 2), ("transfer", 2)):
        at.segmented_control(key="choose-directions").set_value(view).run()
        assert not at.error
        assert len(at.get("plotly_chart")) == charts
    turn_to(at, "views/layers.py")
    assert title(at) == "AUROC of the aligned model's probe, layer by layer"
    for view in ("densities", "roc", "tokens", "movers"):
        at.segmented_control(key="choose-prompts").set_value(view).run()
        assert not at.exception
        assert not at.error
    at.selectbox(key="choose-direction").set_value("reversion").run()
    assert title(at) == "Return fraction, layer by layer"
    at.selectbox(key="choose-statistic").set_value("angle").run()
    assert title(at) == "Angle to the aligned model's direction, layer by layer"


def test_the_map_of_directions_says_what_the_table_says(opened, finished):
    at = opened(finished, "views/directions.py", step="10", layer="1")
    tracks = Run(finished / "demo").read_table("direction_tracks")
    own = tracks[(tracks["checkpoint"] == "baseline-s0-000010") & (tracks["layer"] == 1)].set_index("direction")
    shown = next(table.value for table in at.dataframe if "by_layer" in table.value).set_index("direction")
    assert list(shown.index) == list(DIRECTIONS)
    assert list(shown["angle"].dropna()) == pytest.approx(list(own["angle"].dropna()))
    assert list(shown["auroc"]) == pytest.approx(list(own.loc[list(DIRECTIONS), "auroc"]))


def test_a_made_file_is_offered_and_a_refusal_is_a_sentence(opened, finished, tmp_path):
    shutil.copytree(finished / "demo", tmp_path / "demo")
    at = opened(tmp_path, "views/directions.py")
    assert not any("refusal" in button.proto.label for button in at.get("download_button"))
    at.button(key="export-make").click().run()
    assert not at.error
    assert any("refusal.safetensors" in button.proto.label for button in at.get("download_button"))
    (tmp_path / "demo" / "directions" / "refusal.safetensors").write_bytes(b"x")
    at.selectbox(key="choose-format").set_value("csv").run()
    at.button(key="export-make").click().run()
    assert not at.exception
    assert "refusal.safetensors" in words(at)


def test_interventions_are_drawn_where_they_were_tried(opened, tmp_path):
    path = write_run(tmp_path / "tried", **SMALL)
    with Run.writing(path) as run:
        run.write_table("mediation", MEDIATION)
    at = opened(tmp_path, "views/directions.py")
    at.segmented_control(key="choose-directions").set_value("interventions").run()
    assert not at.error
    assert "It was run at baseline step 10" in words(at)
    assert "directions effect" in commands(at)
    with Run.writing(path) as run, run.stage("effects", "made up"):
        run.write_table("effects", EFFECTS)
    at.run()
    assert not at.error
    assert "directions effect" not in commands(at)
    assert any("What refusal does" in chart.proto.spec for chart in at.get("plotly_chart"))


EFFECTS = pd.DataFrame(
    [
        ("aligned", "refusal", 2, mode, amount, along, 0.5, 0.4, 0.1, 12)
        for mode, amount, along in (
            ("none", 0.0, "none"),
            ("ablate", 0.0, "refusal"),
            ("add", 1.0, "refusal"),
            ("add", 1.0, "random:0"),
        )
    ],
    columns=[
        "checkpoint",
        "direction",
        "layer",
        "mode",
        "coefficient",
        "along",
        "refusal",
        "compliance",
        "over_refusal",
        "n",
    ],
)
MEDIATION = pd.DataFrame(
    [
        ("baseline-s0-000010", test, direction, 0.5, 0.4, 0.1, 12)
        for test in ("necessity", "sufficiency")
        for direction in ("none", "reversion", "random:0", "covariance:0")
    ],
    columns=["checkpoint", "test", "direction", "refusal", "compliance", "incoherent", "n"],
)


def test_processes_can_be_spawned_after_a_test_that_drew_a_page(opened, finished):
    """As `gravity-probe demo` spawns them: they rerun whatever file `__main__` says it came from."""
    assert not opened(finished).exception
    assert sys.modules["__main__"].__file__ == MAIN, "Streamlit leaves the page's own module"
    take_main_back()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(sorted, "ba").result() == ["a", "b"]
