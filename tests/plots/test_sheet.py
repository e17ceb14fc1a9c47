"""A sheet becomes the figure that Plotly's own methods draw, checked or not."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from probes.plots.sheet import Sheet, merge, unchecked

LINE = {"color": "red", "width": 1}


def parts(figure):
    drawn = json.loads(figure.to_json())
    drawn["layout"].pop("template", None)
    return drawn


def test_it_draws_what_plotly_draws():
    rows = pd.DataFrame({"x": [1, 2], "y": [0.5, np.nan]}, index=[7, 8])
    own, figure = Sheet(), go.Figure()
    own.add("scatter", x=rows["x"], y=rows["y"], marker={"size": rows.index})
    figure.add_scatter(x=rows["x"], y=rows["y"], marker={"size": rows.index})
    own.add_vline(x=1, line=LINE, layer="below")
    figure.add_vline(x=1, line=LINE, layer="below")
    own.add_hline(y=0.5, line=LINE)
    figure.add_hline(y=0.5, line=LINE)
    for fig in (own, figure):
        fig.add_annotation(x=1, y=0.5, text="one", showarrow=False)
        fig.add_shape(type="rect", x0=0, x1=1, y0=0, y1=1)
        fig.update_layout(title={"text": "t", "font": {"size": 3}}, margin={"l": 1, "r": 2})
        fig.update_layout(title={"text": "u"}, margin={"r": None})
        fig.update_xaxes(range=[0, 1], title={"text": "x"})
        fig.update_yaxes(scaleanchor="x")
        fig.update_annotations(font={"size": 4})
    assert parts(own.figure()) == parts(figure)


def test_panels_are_plotlys_panels():
    titles = ["a", "", "c", "d"]
    own = Sheet.grid(2, 3, titles, cells=4, horizontal_spacing=0.1, shared_yaxes=True)
    specs = [[{}, {}, {}], [{}, None, None]]
    figure = make_subplots(2, 3, specs=specs, subplot_titles=titles, horizontal_spacing=0.1, shared_yaxes=True)
    figure.add_scatter(x=[1], y=[2], row=2, col=1)
    own.add("scatter", x=[1], y=[2], row=2, col=1)
    figure.add_vline(x=1, line=LINE, row=2, col=1)
    own.add_vline(x=1, line=LINE, row=2, col=1)
    for fig in (own, figure):
        fig.add_traces([{"type": "bar", "y": [1]}, {"type": "bar", "y": [2]}], rows=[1, 2], cols=[2, 1])
        fig.update_xaxes(nticks=3)
        fig.update_xaxes(title={"text": "x"}, row=2)
        fig.update_yaxes(range=[0, 1], row=1, col=2)
    assert parts(own.figure()) == parts(figure)


def test_a_figure_is_the_same_without_the_check_which_finds_what_plotly_does_not_take():
    sheet = Sheet()
    sheet.add("scatter", x=pd.Series([1.0, 2.0]), y=np.array([1, 2]), name=None, marker={"color": None, "size": 3})
    with unchecked():
        quick = sheet.figure()
    assert parts(go.Figure(quick.to_dict())) == parts(sheet.figure())
    assert quick.to_dict() is quick.to_dict()  # Plotly's own would copy its parts each time
    sheet.update_layout(height="tall")
    with unchecked():
        sheet.figure()
    with pytest.raises(ValueError, match="tall"):
        sheet.figure()


def test_what_is_merged_changes_no_part_that_others_share():
    shared = {"font": {"size": 1}}
    left, right = dict(shared), dict(shared)
    merge(left, {"font": {"size": 2}})
    assert (left["font"]["size"], right["font"]["size"]) == (2, 1)
