"""Every figure is sent so that Plotly makes of it what it makes of the figure itself, and draws it once."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from plotly.offline import get_plotlyjs

from app import one_drawing
from probes.plots.sheet import Sheet, unchecked
from tests.app.serving import CHROMIUM
from tests.app.visiting import visitor

MAIN = Path(__file__).parents[2] / "app" / "main.py"
DEMO = Path(__file__).parents[2] / "data" / "demo-run"

# What Plotly has made of a figure: every setting with its default filled in, and every column.
MADE = """
async figure => {
  const plot = document.createElement("div"), width = 900;
  document.body.append(plot);
  const parsed = () => { const own = JSON.parse(figure); own.layout.width = width; return own; };
  await Plotly.react(plot, parsed());
  const apart = ["template", "datarevision", "uid"];
  const plain = (name, value) => name.startsWith("_") || apart.includes(name) ? undefined
    : ArrayBuffer.isView(value) ? Array.from(value) : typeof value === "function" ? undefined : value;
  const made = JSON.parse(JSON.stringify([plot._fullLayout, plot._fullData], plain));
  let drawings = 0;
  plot.on("plotly_beforeplot", () => { drawings += 1; });
  await Plotly.react(plot, parsed());
  plot.remove();
  return [made, drawings];
}
"""


@pytest.fixture
def figures(monkeypatch):
    """The figures of the shipped run's pages, each as it is and as it is sent."""
    pairs, send = {}, one_drawing.to_send

    def note(figure, *, selects):
        with unchecked():
            own = json.loads(figure.figure().to_json())
        drawn = send(figure, selects=selects)
        if selects:
            assert "clickmode" not in own["layout"], "a figure that is saved selects nothing"
            own["layout"] |= {name: drawn.to_dict()["layout"][name] for name in ("dragmode", "clickmode")}
        own = json.dumps(own)
        pairs[own] = drawn.to_json()
        return drawn

    st.cache_data.clear()
    monkeypatch.setattr(sys, "argv", ["main.py", str(DEMO.parent)])
    monkeypatch.setattr(one_drawing, "to_send", note)
    for path in sorted((MAIN.parent / "views").glob("[a-z]*.py")):
        for view in ({}, {"axes": "3d", "well": "surface", "paths": "space"}):
            at = visitor({"run": "demo-run", **view}).switch_page(f"views/{path.name}").run()
            assert not at.exception
    return pairs


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)")
def test_plotly_makes_the_same_of_what_is_sent_and_draws_nothing_the_second_time(figures, browser):
    page = browser.new_page()
    page.set_content(f"<script>{get_plotlyjs()}</script>")
    kinds = {trace["type"] for figure in figures for trace in json.loads(figure)["data"]}
    assert len(figures) > 15
    assert {"scatter", "heatmap", "contour", "surface", "scatter3d"} <= kinds
    for own, copy in figures.items():
        title = json.loads(own)["layout"]["title"]["text"]
        (expected, _), (result, drawings) = page.evaluate(MADE, own), page.evaluate(MADE, copy)
        assert result == expected, title
        # Of such a scene Plotly takes the aspect that it has found itself for a change.
        follows_data = expected[0].get("scene", {}).get("aspectmode") == "data"
        assert drawings <= follows_data, title
    page.close()


def test_the_figure_itself_stays_as_it_is():
    layout = {"template": {"layout": {"xaxis": {"showgrid": False}}}, "xaxis": {"nticks": 3}}
    figure = Sheet([{"type": "scatter", "x": np.array([1.0, np.nan])}], layout)
    drawn = one_drawing.to_send(figure).to_dict()
    assert drawn["layout"] == {"xaxis": {"showgrid": False, "nticks": 3}, "yaxis": {}, "datarevision": 1}
    assert drawn["data"][0]["x"] == [1.0, None]
    assert figure.layout is layout
    assert set(layout) == {"template", "xaxis"}
    assert isinstance(figure.data[0]["x"], np.ndarray)
