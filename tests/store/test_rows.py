"""Tables as other programs read them: no text is run as a formula, and every number stays one."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.store import csv_cell, csv_text


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-A1", "@SUM(1)", "\t=1", "\r=1", "-", "=", "- a list"])
def test_a_formula_becomes_a_text(text):
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "value", ["-1.5", "+3", "-1e-05", "a=1", "", " =1", "'=1", -1.5, None, 7, np.float32(-2), "1-2"]
)
def test_everything_else_stays_what_it_is(value):
    assert csv_cell(value) is value


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")), min_size=1))
def test_no_cell_of_a_table_is_a_formula(texts):
    frame = pd.DataFrame({"=name": texts, "number": -1.5, "of": pd.Categorical(texts), "maybe": [None] * len(texts)})
    head, *rows = csv.reader(io.StringIO(csv_text(frame), newline=""))
    assert head == ["'=name", "number", "of", "maybe"]
    assert [row[0] for row in rows] == [row[2] for row in rows] == [csv_cell(text) for text in texts]
    assert {row[1] for row in rows} == {"-1.5"}
    assert {row[3] for row in rows} == {""}
