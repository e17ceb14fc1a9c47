"""A saved figure: its name says what it is of, its size is a column's, and its button can be seen."""

import json
import sys
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.components import COLUMNS

MAIN = str(Path(__file__).parents[2] / "app" / "main.py")
DEMO = Path(__file__).parents[2] / "data" / "demo-run"


@pytest.fixture
def page(monkeypatch):
    st.cache_data.clear()
    monkeypatch.setattr(sys, "argv", ["main.py", str(DEMO.parent)])
    at = AppTest.from_file(MAIN, default_timeout=120)
    for name, value in {"run": "demo-run", "arm": "control:random", "step": "20", "layer": "1"}.items():
        at.query_params[name] = value
    return at.switch_page("views/trajectories.py").run()


def saving(at):
    config = json.loads(at.get("plotly_chart")[0].proto.config)
    return config, config["toImageButtonOptions"]


def test_the_name_says_run_arm_layer_and_step_and_the_button_is_always_there(page):
    config, options = saving(page)
    assert config["displayModeBar"] is True
    assert options["filename"] == "demo-run-trajectories-plane-control-random-s0-layer-1-step-20"


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_size_is_fixed_in_columns_whatever_the_window(page, columns, kind):
    page.segmented_control(key="choose-columns").set_value(columns).run()
    page.segmented_control(key="choose-save").set_value(kind).run()
    options = saving(page)[1]
    assert (options["width"], options["format"]) == (COLUMNS[columns], kind)
    assert options["height"] > 400


def test_type_is_as_large_on_paper_in_every_column():
    millimetres = {"1": 89, "1.5": 120, "2": 183}
    scales = [COLUMNS[name] / width for name, width in millimetres.items()]
    assert max(scales) / min(scales) < 1.005


def test_how_figures_are_saved_is_in_the_address(page):
    page.segmented_control(key="choose-columns").set_value("1.5").run()
    page.segmented_control(key="choose-save").set_value("svg").run()
    assert page.query_params["columns"] == "1.5"
    assert page.query_params["save"] == "svg"
    page.segmented_control(key="choose-columns").set_value("2").run()
    assert "columns" not in page.query_params
