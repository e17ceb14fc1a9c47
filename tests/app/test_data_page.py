"""The page Data: clusters first, then examples by the chosen ranking; without shares it says why."""

import json

import pandas as pd
import pytest

from probes.run import Run
from probes.store import jsonl_text
from tests.synthetic import write_run

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


def about(*, shares, texts_are_data=True):
    missing = None if shares else "no path was recorded"
    targets = {"return": {"predicted": 0.3}} if shares else {}
    return {
        "measured_return": 0.302,
        "without_shares": missing,
        "targets": targets,
        "step": 100,
        "texts_are_data": texts_are_data,
    }


def run_with_attribution(root, *, shares, texts_are_data=True):
    path = write_run(root / "demo", n_layers=3, steps=(1, 100), prompts=6, directions=("reversion",), d_model=8)
    with Run.writing(path) as run, run.stage(NAME, "test"):
        run.write_table(NAME, table(shares=shares))
        run.write_json(NAME, about(shares=shares, texts_are_data=texts_are_data))
    return path


def words_of(at):
    return " ".join(element.proto.body for element in at.get("html")).replace("\xa0", " ")


@pytest.mark.parametrize(
    ("shares", "query", "title", "words"),
    [
        (True, {}, "“cake” pulls hardest", "completeness gap 0.0020"),
        (True, {"ranking": "forecast"}, "“bomb” pulls hardest", "it ranks, in no unit"),
        (False, {}, "“bomb” pulls hardest", "No shares: no path was recorded"),
    ],
)
def test_clusters_come_first_and_the_answer_opens(tmp_path, visit, shares, query, title, words):
    at = visit("data", {"layer": "2", **query}, run=run_with_attribution(tmp_path, shares=shares))
    assert title in at.title[0].value.replace("\\", "")
    assert words in words_of(at)
    assert [header.value for header in at.header] == ["Clusters", "Examples"]
    assert len(at.get("plotly_chart")) == 1


def test_examples_with_the_chat_template_in_them_are_not_offered_as_data(tmp_path, visit):
    as_read = run_with_attribution(tmp_path / "as-read", shares=True, texts_are_data=False)
    at = visit("data", {"layer": "2"}, run=as_read)
    assert at.code[0].value.endswith("--arm baseline --seed 0 --layer 2 --data FILE")
    assert "jsonl-examples" not in [button.key for button in at.get("download_button")]
    at = visit("data", {"layer": "2"}, run=run_with_attribution(tmp_path / "data", shares=True))
    assert not at.code


def test_where_every_cluster_pushes_away_none_is_said_to_pull(tmp_path, visit):
    path = run_with_attribution(tmp_path, shares=False)
    with Run.writing(path) as run, run.stage(NAME, "again"):
        run.write_table(NAME, table(shares=False).assign(forecast=[-1.0, -9.0, -1.0, -3.0]))
        run.write_json(NAME, about(shares=False))
    at = visit("data", {"layer": "2"}, run=path)
    assert at.title[0].value.replace("\\", "") == "Baseline, seed 0: no cluster pulls it back"


def test_a_packed_run_names_the_command_in_the_whole_run_and_the_embedding_has_none(visit):
    at = visit("data", {})
    assert [code.value for code in at.code] == ["gravity-probe attribute runs/again --arm baseline --seed 0 --layer 2"]
    assert "This run is packed and only read" in words_of(at)
    assert "--out runs/again" in visit("run", {}).code[0].value
    assert not visit("data", {"layer": "-1"}).code


def test_a_table_as_json_lines_has_null_for_what_is_not_defined():
    frame = table(shares=True).assign(share=[0.2, float("nan"), 0.2, -0.2])
    rows = [json.loads(line) for line in jsonl_text(frame).splitlines()]
    assert [row["share"] for row in rows] == [0.2, None, 0.2, -0.2]
    assert rows[1]["text"] == "a bomb"
