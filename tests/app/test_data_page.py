"""The page Data: clusters first, then examples by the chosen ranking; without shares it says why."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.ranking_scores import MEASURED
from probes.prompts import data_folder
from probes.run import Run
from probes.store import jsonl_text
from tests.app.commands import commands_of
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
        harmful = [row.id for row in run.table("prompts").itertuples() if row.label == "harmful"]
        moved = pd.DataFrame({"index": 1, "prompt": harmful, "moved": [float(place) for place in range(len(harmful))]})
        run.write_table(f"{NAME}-prompts", moved)
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
    assert [header.value for header in at.header] == ["Clusters", "Examples", "Prompts that an example moves"]
    assert len(at.get("plotly_chart")) == 1


def test_examples_with_the_chat_template_in_them_are_not_offered_as_data(tmp_path, visit):
    as_read = run_with_attribution(tmp_path / "as-read", shares=True, texts_are_data=False)
    at = visit("data", {"layer": "2"}, run=as_read)
    assert commands_of(at)[0].endswith("--arm baseline --seed 0 --layer 2 --data FILE")
    assert "jsonl-examples" not in [button.key for button in at.get("download_button")]
    at = visit("data", {"layer": "2"}, run=run_with_attribution(tmp_path / "data", shares=True))
    assert not [command for command in commands_of(at) if "--data" in command]


def test_an_example_shows_the_prompts_that_it_moves(tmp_path, visit):
    path = run_with_attribution(tmp_path, shares=True)
    at = visit("data", {"layer": "2", "example": "1"}, run=path)
    assert "Example 1, row 3 of the list above: “a bomb”" in words_of(at)
    shown = at.dataframe[-1].value
    assert shown["pull"].tolist() == [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    texts = {row.text for row in Run(path).table("prompts").itertuples() if row.label == "harmful"}
    assert set(shown["text"]) == texts
    assert shown["moved"].notna().all()
    assert commands_of(at)[-1].endswith("evaluate " + str(path) + " --probe-prompts")
    at = visit("data", {"layer": "2", "example": "0"}, run=path)
    assert commands_of(at)[-1].endswith("--arm baseline --seed 0 --layer 2 --explain 4")
    at = visit("data", {"layer": "2", "example": "77"}, run=path)
    assert "example=77" in at.warning[0].value.replace("\\", "")


def test_the_list_marks_the_row_of_the_example_that_a_link_names(tmp_path, visit):
    path = run_with_attribution(tmp_path, shares=True)
    for ranking, row in (("share", 2), ("forecast", 0)):
        at = visit("data", {"layer": "2", "ranking": ranking, "example": "1"}, run=path)
        assert not at.warning
        examples = next(element for element in at.dataframe if element.proto.selection_mode)
        assert json.loads(examples.proto.selection_default)["selection"]["rows"] == [row]
        assert examples.value["text"].iloc[row] == "a bomb"
        assert f"Example 1, row {row + 1} of the list above: “a bomb”" in words_of(at)
    at = visit("data", {"layer": "2"}, run=path)
    assert not any(element.proto.selection_default for element in at.dataframe)
    assert "Example 0, row 1 of the list above: “a cake”" in words_of(at)


def test_the_address_with_everything_changed_shows_a_fresh_visitor_the_same(tmp_path, visit):
    path = run_with_attribution(tmp_path, shares=True)
    seen = []
    sender = visit("data", {"layer": "2"}, run=path)
    sender.segmented_control(key="choose-ranking").set_value("forecast").run()
    query = {name: value[0] if isinstance(value, list) else value for name, value in sender.query_params.items()}
    for at in (sender, visit("data", query, run=path)):
        assert not at.warning
        seen.append(
            ([chart.proto.spec for chart in at.get("plotly_chart")], [table.value.to_json() for table in at.dataframe])
        )
    assert query["ranking"] == "forecast"
    assert seen[0] == seen[1]


def test_baselines_stand_beside_the_forecast_and_one_that_does_better_is_named(tmp_path, visit):
    path = run_with_attribution(tmp_path, shares=True)
    words = words_of(visit("data", {"layer": "2"}, run=path))
    assert MEASURED.replace(" %", "\xa0%").replace("\xa0", " ") in words
    # Shares of the four rank 3.5, 2, 3.5, 1; forecasts 2.5, 4, 2.5, 1; lengths 2.5, 2.5, 4, 1.
    assert "forecast 0.33, BM25 −0.27, length 0.83." in words
    assert "A plain baseline does better than the forecast here: length." in words
    words = words_of(visit("data", {"layer": "2"}, run=run_with_attribution(tmp_path / "forecast", shares=False)))
    assert "Rank correlation" not in words
    assert "which was ahead in 15 of 30" in words


def test_what_is_said_of_the_baselines_is_what_the_documentation_measured():
    text = (data_folder() / "docs" / "attribution.md").read_text(encoding="utf-8")
    dropped, halves = text.split("Does dropping the top help?")[1].split("Do scores say what half of the data does?")
    changes, correlations = numbers(dropped, 2), numbers(halves.split("The same with the top cluster")[0], 6)
    assert re.search(r"the forecast is ahead in (\d+ of \d+)", dropped)[1] in MEASURED
    forecast, loss, words, chance = (changes[name] for name in ("forecast", "loss", "BM25", "random"))
    assert all(abs(ours - theirs) < 0.01 for ours, theirs in zip(forecast, loss, strict=True))
    assert all(abs(ours - theirs) < 0.035 for ours, theirs in zip(words, chance, strict=True))
    assert np.mean(correlations["forecast"]) > np.mean(correlations["loss"]) + 0.1
    assert np.mean(correlations["forecast of an example's cluster"]) > np.mean(correlations["forecast"]) - 0.05


def numbers(text, columns):
    """The first numbers of each row of a table, without what follows ±, by what stands before them."""
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return {
        row[0].strip(): [float(cell.split("±")[0].replace("−", "-")) for cell in row[1 : columns + 1]]
        for row in rows[1:]
        if all(cell.strip() for cell in row[1 : columns + 1])
    }


def test_a_click_on_a_row_selects_its_example():
    def script():
        import pandas as pd
        import streamlit as st

        from app import moved_prompts, state

        state.read_url()
        for rows in ([1], []):
            st.session_state["rows"] = {"selection": {"rows": rows}}
            moved_prompts.pick_row(pd.DataFrame({"index": [7, 3]}), "rows")
            st.text(state.view(moved_prompts.NAME))

    at = AppTest.from_function(script).run()
    assert not at.exception
    assert [text.value for text in at.text] == ["3", ""]


def test_of_a_long_example_the_beginning_is_repeated(tmp_path, visit):
    path = run_with_attribution(tmp_path, shares=True)
    with Run.writing(path) as run, run.stage(NAME, "again"):
        run.write_table(NAME, table(shares=True).assign(text="a long\nanswer " * 400))
        run.write_json(NAME, about(shares=True))
    at = visit("data", {"layer": "2", "example": "1"}, run=path)
    note = next(element.proto.body for element in at.get("html") if "Example 1, row" in element.proto.body)
    assert "“a long answer a long" in note
    assert len(note) < 400


def test_a_row_that_is_selected_in_one_ranking_is_not_in_another(tmp_path, visit):
    path, keys = run_with_attribution(tmp_path, shares=True), set()
    for ranking in ("share", "forecast"):
        at = visit("data", {"layer": "2", "ranking": ranking}, run=path)
        keys |= {element.proto.id for element in at.dataframe if element.proto.selection_mode}
    assert len(keys) == 2


def test_where_every_cluster_pushes_away_none_is_said_to_pull(tmp_path, visit):
    path = run_with_attribution(tmp_path, shares=False)
    with Run.writing(path) as run, run.stage(NAME, "again"):
        run.write_table(NAME, table(shares=False).assign(forecast=[-1.0, -9.0, -1.0, -3.0]))
        run.write_json(NAME, about(shares=False))
    at = visit("data", {"layer": "2"}, run=path)
    assert at.title[0].value.replace("\\", "") == "Baseline, seed 0: no cluster pulls it back"


def test_a_packed_run_names_the_command_in_the_whole_run_and_the_embedding_has_none(visit):
    at = visit("data", {})
    assert commands_of(at) == ["gravity-probe attribute runs/again --arm baseline --seed 0 --layer 2"]
    assert "This run is packed and only read" in words_of(at)
    assert "--out runs/again" in commands_of(visit("run", {}))[0]
    assert not commands_of(visit("data", {"layer": "-1"}))


def test_a_table_as_json_lines_has_null_for_what_is_not_defined():
    frame = table(shares=True).assign(share=[0.2, float("nan"), 0.2, -0.2])
    rows = [json.loads(line) for line in jsonl_text(frame).splitlines()]
    assert [row["share"] for row in rows] == [0.2, None, 0.2, -0.2]
    assert rows[1]["text"] == "a bomb"
