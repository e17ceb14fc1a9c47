"""The page Data: clusters first, then examples by the chosen ranking; without shares it says why."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from probes.run import Run
from probes.store import jsonl_text
from tests.synthetic import write_run

MAIN = str(Path(__file__).parents[2] / "app" / "main.py")
NAME = "attribution/baseline-s0-layer2"


def table(*, shares):
    rows = pd.DataFrame(
        {
            "index": range(4),
            "text": ["a cake", "a bomb", "a cake too", "rain"],
            "request": ["a", "a", "a", "r"],
            "answer": ["cake", "bomb", "cake too", "ain"],
            "cluster": [0, 1, 0, 2],
            "cluster_name": ["cake", "bomb", "cake", "rain"],
            "forecast": [1.0, 9.0, 1.0, -3.0],
            "bm25": [0.0, 2.0, 0.0, 0.0],
            "length": [2, 2, 3, 1],
        }
    )
    return rows.assign(share=[0.2, 0.1, 0.2, -0.2], effect=[0.2, 0.1, 0.1, -0.4]) if shares else rows


def about(*, shares):
    missing = None if shares else "no path was recorded"
    targets = {"return": {"predicted": 0.3}} if shares else {}
    return {"measured_return": 0.302, "without_shares": missing, "targets": targets, "step": 100}


def open_page(root, monkeypatch, *, shares, **query):
    path = write_run(root / "demo", n_layers=3, steps=(1, 100), prompts=6, directions=("reversion",), d_model=8)
    with Run.writing(path) as run, run.stage(NAME, "test"):
        run.write_table(NAME, table(shares=shares))
        run.write_json(NAME, about(shares=shares))
    st.cache_data.clear()
    monkeypatch.setattr(sys, "argv", ["main.py", str(root)])
    at = AppTest.from_file(MAIN, default_timeout=120)
    for name, value in {"layer": "2", **query}.items():
        at.query_params[name] = value
    at.run()
    at.switch_page("views/data.py")
    return at.run()


@pytest.mark.parametrize(
    ("shares", "query", "title", "words"),
    [
        (True, {}, "“cake” pulls hardest", "completeness gap 0.0020"),
        (True, {"ranking": "forecast"}, "“bomb” pulls hardest", "it ranks, in no unit"),
        (False, {}, "“bomb” pulls hardest", "No shares: no path was recorded"),
    ],
)
def test_clusters_come_first_and_the_answer_opens(tmp_path, monkeypatch, shares, query, title, words):
    at = open_page(tmp_path, monkeypatch, shares=shares, **query)
    assert not at.exception
    assert not at.error
    assert title in at.title[0].value.replace("\\", "")
    assert words in " ".join(element.proto.body for element in at.get("html")).replace("\xa0", " ")
    assert [header.value for header in at.header] == ["Clusters", "Examples"]
    assert len(at.get("plotly_chart")) == 1


def test_a_table_as_json_lines_has_null_for_what_is_not_defined():
    frame = table(shares=True).assign(share=[0.2, float("nan"), 0.2, -0.2])
    rows = [json.loads(line) for line in jsonl_text(frame).splitlines()]
    assert [row["share"] for row in rows] == [0.2, None, 0.2, -0.2]
    assert rows[1]["text"] == "a bomb"
