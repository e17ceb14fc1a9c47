"""One way to write numbers on every page, in every figure and table: `19 %`, and a true minus sign."""

import json
import re
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import streamlit as st

from tests.app.test_pages import PAGES
from tests.app.visiting import visitor

DEMO = Path(__file__).parents[2] / "data" / "demo-run"
# 19% for 19 %; -0.66 for −0.66, where the sign does not join words or numbers, as in 2026-01-02 or block-0.
WRONG = re.compile(r"\d%|(?<![\w.\-–])-\d")
_SHOWN = ("text", "title", "ticktext", "hovertext", "name", "hovertemplate", "customdata")


def texts_of(figure):
    """Every string of a figure that a reader may see."""
    if isinstance(figure, dict):
        for key, value in figure.items():
            if key == "texttemplate" or (key == "name" and "xref" in figure):
                continue
            yield from texts_of(value) if key in _SHOWN or not isinstance(value, str) else ()
    elif isinstance(figure, list):
        for part in figure:
            yield from texts_of(part)
    elif isinstance(figure, str):
        yield re.sub(r"%\{[^}]*\}", "", figure)


def numbers_of(table):
    """What stands in the columns of numbers of a table."""
    drawn = table.proto.arrow_data.styler.display_values
    if not drawn:
        return
    shown = pa.ipc.open_stream(drawn).read_pandas()
    for name in table.value.select_dtypes("number").columns:
        yield from shown.iloc[:, list(table.value.columns).index(name)].astype(str)


@pytest.mark.parametrize("page", PAGES)
def test_numbers_are_written_one_way(page, monkeypatch):
    st.cache_data.clear()
    monkeypatch.setattr(sys, "argv", ["main.py", str(DEMO.parent)])
    at = visitor({"run": "demo-run"}).switch_page(page).run()
    assert not at.exception
    assert not at.error
    assert at.title
    bodies = [element.proto.body for element in at.get("html")]
    texts = [re.sub(r"<[^>]*>", "\n", body) for body in bodies if "<style" not in body and "<script" not in body]
    for kind in ("title", "header", "markdown", "warning", "caption"):
        texts += [element.value for element in at.get(kind)]
    for kind in ("selectbox", "checkbox", "toggle", "radio"):
        texts += [element.help for element in at.get(kind)]
    figures = [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]
    texts += [text for figure in figures for text in texts_of(figure)]
    texts += [text for table in at.dataframe for text in numbers_of(table)]
    assert texts
    assert [text for text in texts if text and WRONG.search(text.replace("\\", ""))] == []
