"""The Live page on a run whose models are there: it loads one, asks it, pushes it, and lets it go."""

import gc
import json
import shutil
import sys
import weakref
from pathlib import Path

import pytest
import streamlit as st

from app import look
from probes.tasks.ask import Bench
from tests.app.test_pages import commands, query, title, words
from tests.app.visiting import turn_to, visitor
from tests.builders import tiny_model, tiny_tokenizer
from tests.measured import measured_run
from tests.synthetic import TRICKY

PAGE = "views/live.py"
STEP = "baseline-s0-000010"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("live-page")
    measured_run(home)
    return home


@pytest.fixture
def opened(monkeypatch):
    """The Live page on a root, with a query, before anything is loaded."""
    st.cache_data.clear()
    st.cache_resource.clear()

    def run(root, **selection):
        monkeypatch.setattr(sys, "argv", ["main.py", str(root)])
        return visitor(selection).switch_page(PAGE).run()

    return run


@pytest.fixture
def benches(monkeypatch):
    """Every model that the page opened, as far as anything still holds it."""
    references = []
    opening = Bench.open.__func__

    def watch(cls, run):
        bench = opening(cls, run)
        references.append(weakref.ref(bench))
        return bench

    monkeypatch.setattr(Bench, "open", classmethod(watch))
    return references


def load(at):
    return next(button for button in at.button if button.label == "Load the model").click().run()


def held(benches):
    gc.collect()
    return [bench for bench in benches if bench() is not None]


def test_nothing_is_loaded_until_asked_and_the_page_says_what_would_be(opened, home, benches):
    at = opened(home / "runs")
    assert not benches
    assert "The only page that loads a model" in words(at)
    assert "MB on disk" in words(at)
    assert not at.get("plotly_chart")


def test_a_prompt_is_read_in_two_checkpoints_and_pushed(opened, home, benches):
    at = load(opened(home / "runs", direction="reversion"))
    assert not at.error
    assert not at.exception
    assert "weights" in words(at)
    assert len(held(benches)) == 1
    assert at.text_area(key="live-prompt").value.startswith("break lock")
    assert len(at.get("plotly_chart")) == 2
    plain = at.get("plotly_chart")[0].proto.spec
    at.slider(key="choose-push").set_value(2.0).run()
    at.toggle(key="choose-generate").set_value(True).run()
    assert not at.error
    assert "with 2.00 × the direction" in words(at)
    assert at.get("plotly_chart")[0].proto.spec != plain
    assert len(benches) == 1
    assert query(at)["run"] == "tiny"
    assert "break" not in str(query(at))


def test_the_address_with_everything_changed_shows_a_fresh_visitor_the_same_figures(opened, home):
    sender = load(opened(home / "runs", direction="reversion"))
    before = [chart.proto.spec for chart in sender.get("plotly_chart")]
    other_prompt = sender.selectbox(key="live-taken").options[1]
    sender.selectbox(key="live-taken").set_value(other_prompt).run()
    sender.selectbox(key="choose-one").set_value("witness").run()
    sender.selectbox(key="choose-other").set_value("aligned").run()
    sender.slider(key="choose-push").set_value(1.5).run()
    sender.toggle(key="choose-generate").set_value(True).run()
    address = query(sender)
    receiver = load(opened(home / "runs", **address))
    assert query(receiver) == address
    assert receiver.text_area(key="live-prompt").value == other_prompt
    figures = [[json.loads(chart.proto.spec) for chart in at.get("plotly_chart")] for at in (sender, receiver)]
    assert figures[0] == figures[1]
    assert [json.loads(spec) for spec in before] != figures[0]
    assert words(receiver) == words(sender)
    sender.selectbox(key="choose-other").set_value("").run()
    assert query(sender)["alone"] == "yes"
    receiver = load(opened(home / "runs", **query(sender)))
    assert receiver.selectbox(key="choose-other").value == ""


def test_the_shown_numbers_are_the_bench_s(opened, home):
    at = load(opened(home / "runs", direction="reversion", one="witness", other=STEP))
    at.selectbox(key="choose-other").set_value("aligned").run()
    assert query(at)["other"] == "aligned"
    at.selectbox(key="choose-other").set_value("").run()
    at.session_state["data-tokens"] = True  # the table below the picture is made when it is opened
    at.run()
    spots = next(table.value for table in at.dataframe if "place" in table.value)
    assert set(spots["checkpoint"]) == {"witness"}
    from probes.run import Run
    from probes.tasks.ask import Asked

    run = Run(home / "runs" / "tiny")
    layer = int(query(at)["layer"])
    question = Asked(at.text_area(key="live-prompt").value, layer)
    read = Bench.open(run).read("witness", run.direction("reversion"), question)
    assert list(spots["projection"]) == pytest.approx(list(read.projections))


def test_it_is_freed_by_its_button_and_by_leaving_the_page(opened, home, benches):
    at = load(opened(home / "runs"))
    assert len(held(benches)) == 1
    next(button for button in at.button if button.label == "Free the model").click().run()
    assert not held(benches)
    assert "on disk" in words(at)
    at = load(at)
    assert len(held(benches)) == 1
    turn_to(at, "views/layers.py")
    assert not held(benches)
    turn_to(at, PAGE)
    assert not held(benches)
    assert not at.get("plotly_chart")


def test_what_is_typed_and_answered_is_never_markup(opened, home):
    at = load(opened(home / "runs"))
    at.toggle(key="choose-generate").set_value(True).run()
    at.text_area(key="live-prompt").set_value(TRICKY[:40]).run()
    assert not at.exception
    bodies = [element.proto.body.strip() for element in at.get("html")]
    html = " ".join(body for body in bodies if body != look.SCRIPTS.strip())
    assert "<script" not in html
    assert all("<script" not in chart.proto.spec for chart in at.get("plotly_chart"))


def test_what_cannot_be_asked_is_a_sentence(opened, home):
    at = load(opened(home / "runs"))
    at.text_area(key="live-prompt").set_value("x" * 200).run()
    assert "longer than the model's context" in words(at)
    at.text_area(key="live-prompt").set_value("  ").run()
    assert not at.error
    assert not at.get("plotly_chart")
    at.selectbox(key="choose-layer").set_value(-1).run()
    assert "not for the embedding" in words(at)
    assert not at.exception


@pytest.mark.parametrize("value", ["../../../etc", "/etc", "nobody"])
def test_the_query_opens_no_other_model(opened, home, benches, value):
    at = load(opened(home / "runs", one=value, other=value, direction=value))
    assert not at.error
    assert set(at.selectbox(key="choose-one").options) == {"aligned", "witness", "baseline step 10"}
    assert at.selectbox(key="choose-one").value == "aligned"
    assert len(benches) == 1


def test_models_that_are_gone_are_told_with_what_makes_them_again(opened, home, tmp_path):
    run = shutil.copytree(home / "runs" / "tiny", tmp_path / "tiny") / "run.json"
    run.write_text(run.read_text().replace(str(home), str(tmp_path / "gone")))
    at = opened(tmp_path)
    assert title(at) == "The checkpoints are not here"
    assert "gravity-probe measure" in commands(at)
    assert not any(button.label == "Load the model" for button in at.button)


def test_a_checkpoint_that_changed_since_is_refused_in_a_sentence(opened, home, tmp_path):
    again = Path(shutil.copytree(home, tmp_path / "again"))
    manifest = again / "runs" / "tiny" / "run.json"
    manifest.write_text(manifest.read_text().replace(str(home), str(again)))
    model = tiny_model(seed=5)
    model.save_pretrained(again / "checkpoints" / "aligned")
    tiny_tokenizer().save_pretrained(again / "checkpoints" / "aligned")
    at = load(opened(again / "runs"))
    assert "other weights than those that were measured" in words(at)
    assert not at.exception
