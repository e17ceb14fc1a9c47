"""The linked workbench: prompts chosen in a picture are read beside it, on other pages, and by who gets the link."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st

from app import prompt_choice, prompt_rows, workbench
from app.cache import Key
from probes.plots.prompt_marks import FLIPS
from tests.app.commands import commands_of

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "data" / "demo-run"
PROMPTS = pd.read_parquet(DEMO / "prompts.parquet")
CHOSEN = ("h-9da4b160cf", "h-c2245bc5a8", "h-6c8df9fbf7")
LINK = {"selected": "h-9da4,h-c224,h-6c8d"}


def prompt_table(at):
    return next(table.value for table in at.dataframe if "prompt" in table.value and "flip" in table.value)


def traces(at):
    figures = [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]
    return [trace for figure in figures for trace in figure["data"] if trace.get("meta") == "prompts"]


@pytest.mark.parametrize("count", [0, 1, 3, 40, 41, 127, 128])
def test_a_selection_comes_back_from_the_address_whatever_its_size(count):
    ids = tuple(PROMPTS["id"][:count])
    text = prompt_choice.encode(ids, tuple(PROMPTS["id"]))
    assert prompt_choice.decode(text, tuple(PROMPTS["id"])) == (ids, ())
    assert len(text) < 300


def test_four_thousand_prompts_fit_into_an_address():
    known = tuple(f"h-{number * 2654435761 % 2**40:010x}" for number in range(4096))
    text = prompt_choice.encode(known[::2], known)
    assert prompt_choice.decode(text, known) == (known[::2], ())
    assert len(text) < 800


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("h-zzzz", ("h-zzzz",)),
        ("h-", ("h-",)),  # the beginning of many
        ("bits:000000:AAAA", ("prompts of another run",)),
        ("bits:###", ("prompts of another run",)),
    ],
)
def test_what_an_address_names_that_is_no_prompt_is_said(visit, text, absent):
    assert prompt_choice.decode(text, tuple(PROMPTS["id"])) == ((), absent)
    at = visit("manifold", {"selected": text})
    assert any("which is not there" in warning.value for warning in at.warning)


def test_bits_of_other_prompts_are_not_taken_for_these():
    known = tuple(PROMPTS["id"])
    text = prompt_choice.encode(known[:60], known)
    assert prompt_choice.decode(text, (*known[:-1], "h-0000000000")) == ((), ("prompts of another run",))


def test_selected_prompts_stand_beside_the_map_with_both_answers_their_labels_and_how_far_they_moved(visit):
    at = visit("manifold", LINK)
    table = prompt_table(at)
    assert set(table["prompt"]) == set(CHOSEN)
    answers = {
        side: pd.read_parquet(DEMO / "probe_answers" / f"{name}.parquet").set_index("prompt")
        for side, name in (("one", "aligned"), ("other", "baseline-s0-000100"))
    }
    projections = pd.read_parquet(
        DEMO / "projections.parquet", filters=[("layer", "==", 2), ("arm", "in", ["aligned", "baseline"])]
    )
    projections = projections.set_index(["checkpoint", "prompt"])["projection"]
    for row in table.to_dict("records"):
        before, after = (answers[side].loc[row["prompt"]] for side in ("one", "other"))
        assert (row["completion_one"], row["completion_other"]) == (before["completion"], after["completion"])
        assert (row["verdict_one"], row["verdict_other"]) == (before["verdict"], after["verdict"])
        assert (row["flip"] in FLIPS[:2]) == (before["refused"] != after["refused"])
        expected = projections["baseline-s0-000100", row["prompt"]] - projections["aligned", row["prompt"]]
        assert row["moved"] == pytest.approx(expected, abs=1e-6)
    cards = next(element.proto.body for element in at.get("html") if "gp-cards" in element.proto.body)
    texts = PROMPTS.set_index("id").loc[list(CHOSEN), "text"]
    assert all(text in cards for text in texts)


@pytest.mark.parametrize("page", ["manifold", "compare"])
def test_what_is_selected_stands_out_in_every_cloud(visit, page):
    clouds = traces(visit(page, LINK))
    assert clouds
    for trace in clouds:
        shown = {trace["customdata"][place] for place in trace["selectedpoints"]}
        assert shown == set(CHOSEN) & set(trace["customdata"])
        assert trace["unselected"]["marker"]["opacity"] < 0.3
    assert not any("selectedpoints" in trace for trace in traces(visit(page, {})))


def test_in_space_what_is_selected_stands_out_too(visit):
    for trace in traces(visit("manifold", {**LINK, "axes": "3d"})):
        for prompt, size in zip(trace["customdata"], trace["marker"]["size"], strict=True):
            assert (size > 5) == (prompt in CHOSEN)


@pytest.mark.parametrize("page", ["compare", "behaviour"])
def test_the_selection_is_kept_on_other_pages_until_it_is_cleared(visit, page):
    at = visit(page, LINK)
    assert set(prompt_table(at)["prompt"]) == set(CHOSEN)
    at.button(key="clear-selected").click().run()
    assert "selected" not in at.query_params
    assert not any("flip" in table.value and "prompt" in table.value for table in at.dataframe)


@pytest.mark.parametrize("colour", ["flip", "topic", "projection"])
def test_points_are_coloured_by_what_the_prompts_are(visit, colour):
    at = visit("manifold", {"colour": colour})
    rows = prompt_rows.rows(Key(str(DEMO), "test"), 2, ("aligned", "baseline-s0-000100")).set_index("prompt")
    seen = {}
    for trace in traces(at):
        assert len(trace["marker"]["color"]) == len(trace["customdata"])
        if colour == "flip":
            for prompt, own in zip(trace["customdata"], trace["marker"]["color"], strict=True):
                assert seen.setdefault(rows["flip"][prompt], own) == own
    assert colour != "flip" or len(set(seen.values())) == len(seen) > 1


def test_the_pointer_shows_the_whole_prompt_and_both_answers(visit):
    trace = traces(visit("manifold", {}))[0]
    rows = prompt_rows.rows(Key(str(DEMO), "test"), 2, ("aligned", "baseline-s0-000100")).set_index("prompt")
    for prompt, hover in list(zip(trace["customdata"], trace["hovertext"], strict=True))[:10]:
        words = " ".join(hover.replace("<br>", " ").split())
        assert all(rows[name][prompt] in words for name in ("text", "completion_one", "completion_other"))


def test_a_selection_is_read_from_the_points_of_an_event():
    event = {"selection": {"points": [{"customdata": "a"}, {"customdata": ["b"]}, {"x": 1}], "box": []}}
    assert workbench._prompts_of(event) == {"a", "b"}
    assert workbench._prompts_of(None) == set()


def test_a_run_without_answers_to_its_probe_prompts_says_how_to_make_them(visit, tmp_path):
    shutil.copytree(DEMO, tmp_path / "run", ignore=shutil.ignore_patterns("probe_answers"))
    st.cache_data.clear()
    at = visit("manifold", LINK, tmp_path / "run")
    assert any("--probe-prompts" in command for command in commands_of(at))
    assert set(at.dataframe[-1].value["prompt"]) == set(CHOSEN)
