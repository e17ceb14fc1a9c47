"""The map of layers by steps: one scale for every arm and step, and a lead that says where and when."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st

from tests.app.visiting import visitor

DEMO = Path(__file__).parents[2] / "data" / "demo-run"


@pytest.fixture
def layers(monkeypatch):
    """The Layers page of the shipped run."""
    st.cache_data.clear()
    monkeypatch.setattr(sys, "argv", ["main.py", str(DEMO.parent)])

    def open_page(**query):
        place = {"run": "demo-run", "statistic": "return_fraction", **query}
        return visitor(place).switch_page("views/layers.py").run()

    return open_page


def test_every_arm_and_step_has_the_same_colours_and_the_lead_says_where_and_when(layers):
    drift = pd.read_parquet(DEMO / "drift.parquet")
    drift = drift[(drift["statistic"] == "return_fraction") & ~drift["arm"].isin(["witness", "pretrained"])]
    near = drift[~drift["arm"].isin(["push", "helpful"])]["value"].abs().max()  # both go all the way, and further
    for arm, step in (("baseline", "1"), ("block", "100")):
        at = layers(arm=arm, step=step)
        assert not at.exception
        map_of = json.loads(at.get("plotly_chart")[0].proto.spec)["data"][0]
        assert near <= map_of["zmax"] == -map_of["zmin"] <= 1.1 * near
        top = drift[drift["arm"] == arm].sort_values("value").iloc[-1]
        lead = " ".join(element.proto.body for element in at.get("html"))
        assert f"at layer {top['layer']}, step {top['step']}" in lead
        assert "every null of the alarm at layer 2 (p ≤ 0.05)" in lead
