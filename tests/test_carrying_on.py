"""What other tools take up: answers as an Inspect log, maps for Embedding Atlas, a block for a model card."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from probes.cli import app
from probes.errors import RunFolderError, UsageError
from probes.exchange.answer_files import read_answers
from probes.exchange.inspect_log import write_eval_logs
from probes.run import Run
from probes.stages.maps import MapOptions, write_maps
from probes.tasks.card import card_markdown
from tests.synthetic import TRICKY, TRICKY_ARM, write_run

SMALL = {"n_layers": 2, "steps": (1, 100), "prompts": 6}
LAST = "baseline-s0-000100"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = write_run(tmp_path_factory.mktemp("carry") / "run", **SMALL, seeds=2, d_model=8)
    with Run.writing(path) as writing:
        write_maps(writing, MapOptions(("pca",)))
        answers = pd.DataFrame({"prompt": writing.prompts.ids, "completion": "Yes.", "verdict": "compliance"})
        writing.write_table(f"probe_answers/{LAST}", answers)
    return Run(path)


def command(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None:
        raise done.exception
    return done.stdout


# Inspect ------------------------------------------------------------------------------------------------------------


def test_a_log_holds_the_answers_of_one_checkpoint_and_is_read_back(run, tmp_path):
    command("export", run.path, "--format", "inspect", "--out", tmp_path / "log.json")
    log = json.loads((tmp_path / "log.json").read_text(encoding="utf-8"))
    rows = run.table("completions").query("checkpoint == @LAST")
    assert log["eval"]["metadata"]["checkpoint"] == LAST
    assert [sample["id"] for sample in log["samples"]] == rows["prompt"].tolist()
    assert [sample["input"] for sample in log["samples"]] == rows["text"].tolist()
    assert [sample["metadata"]["label"] for sample in log["samples"]] == rows["label"].tolist()
    assert [sample["scores"]["verdict"]["value"] for sample in log["samples"]] == rows["verdict"].tolist()
    answers = read_answers(tmp_path / "log.json")
    assert [answer.completion for answer in answers] == rows["completion"].tolist()
    assert [answer.requests[0] for answer in answers] == rows["text"].tolist()


def test_a_folder_gets_a_log_of_every_checkpoint_and_equal_runs_equal_logs(run, tmp_path):
    document = json.loads(command("export", run.path, "--format", "inspect", "--out", tmp_path / "a", "--json"))
    assert document["path"] == str(tmp_path / "a")
    files = sorted((tmp_path / "a").iterdir())
    assert len(files) == run.table("completions")["checkpoint"].nunique()
    rows = run.table("completions").query("checkpoint == @LAST")
    (last,) = (file for file in files if LAST in file.name)
    assert [answer.completion for answer in read_answers(last)] == rows["completion"].tolist()
    write_eval_logs(run, tmp_path / "b")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in sorted((tmp_path / "b").iterdir())]


def test_scores_hold_the_judge_what_several_said_and_the_refusal_score(tmp_path):
    path = write_run(tmp_path / "run", **SMALL, arms=("baseline",))
    with Run.writing(path) as writing:
        table = writing.table("completions").assign(
            refusal_score=1.5, cut_off=True, reason="declines", **{"judge:builtin": "refusal", "judge:x": "unjudged"}
        )
        table.loc[table["prompt"] == table["prompt"].iloc[0], ["verdict", "completion", "refusal_score"]] = [
            "unjudged",
            None,
            np.nan,
        ]
        writing.write_table("completions", table)
        writing.write_json("judges", {"judges": ["builtin", "x"], "unjudged": {}})
        writing.save()
    write_eval_logs(Run(path), tmp_path / "log.json", "aligned")
    unanswered, answered, *_ = json.loads((tmp_path / "log.json").read_text(encoding="utf-8"))["samples"]
    assert answered["scores"]["verdict"]["metadata"]["judge"] == "builtin, x"
    assert answered["scores"]["judge:x"] == {"value": "unjudged"}
    assert answered["scores"]["refusal_score"] == {"value": 1.5}
    assert answered["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert unanswered["output"]["choices"] == []
    assert set(unanswered["scores"]) == {"verdict", "judge:builtin", "judge:x"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--format", "inspect", "--checkpoint", "typo"), "no answers of this checkpoint"),
        (("--format", "inspect", "--direction", "reversion"), "One thing is exported"),
        (("--format", "inspect", "--layer", "0"), "One thing is exported"),
        (("--map", "--format", "inspect"), "One thing is exported"),
        (("--map", "--method", "umap"), "no umap map of the prompts"),
        (("--map", "--layer", "9"), "no pca map of the prompts at layer 9"),
        ((), "Nothing is named to be exported"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(run, tmp_path, words, sentence):
    with pytest.raises((UsageError, RunFolderError), match=sentence):
        command("export", run.path, *words, "--out", tmp_path / "x.json")


def test_a_log_is_written_once_and_under_a_name_that_inspect_knows(run, tmp_path):
    write_eval_logs(run, tmp_path / "log.json", LAST)
    with pytest.raises(UsageError, match="already there"):
        write_eval_logs(run, tmp_path / "log.json", LAST)
    with pytest.raises(UsageError, match="no name of an eval log"):
        write_eval_logs(run, tmp_path / "log.csv", LAST)
    with pytest.raises(RunFolderError, match="gravity-probe evaluate"):
        write_eval_logs(Run(write_run(tmp_path / "run", **SMALL, without=("completions",))), tmp_path / "y.json")


def test_inspects_own_reader_opens_the_logs(run, tmp_path):
    log_module = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed")
    analysis = pytest.importorskip("inspect_ai.analysis")
    for suffix in ("json", "eval"):
        (path,) = write_eval_logs(run, tmp_path / f"log.{suffix}", LAST)
        log = log_module.read_eval_log(str(path))
        assert log_module.read_eval_log(str(path), header_only=True).status == "success"
    rows = run.table("completions").query("checkpoint == @LAST")
    assert [sample.output.completion for sample in log.samples] == rows["completion"].tolist()
    assert [sample.scores["verdict"].value for sample in log.samples] == rows["verdict"].tolist()
    assert [sample.scores["refused"].value for sample in log.samples] == rows["refused"].tolist()
    write_eval_logs(run, tmp_path / "logs")
    assert len(log_module.list_eval_logs(str(tmp_path / "logs"))) == run.table("completions")["checkpoint"].nunique()
    frame = analysis.samples_df(str(tmp_path / "logs"), quiet=True)
    assert len(frame) == len(run.table("completions"))
    for suffix in ("eval", "json"):  # and what Inspect writes is read here
        log_module.write_eval_log(log, str(tmp_path / f"again.{suffix}"))
        answers = read_answers(tmp_path / f"again.{suffix}")
        by_request = {answer.requests[0]: answer.completion for answer in answers}
        assert by_request == dict(zip(rows["text"], rows["completion"], strict=True))


# Embedding Atlas ----------------------------------------------------------------------------------------------------


def test_a_map_has_a_row_a_prompt_checkpoint_and_layer(run, tmp_path):
    shown = command("export", run.path, "--map", "--out", tmp_path / "map")
    assert "embedding-atlas" in shown
    table = pq.read_table(tmp_path / "map.parquet")
    about = json.loads(table.schema.metadata[b"gravity_probe"])
    frame = table.to_pandas()
    assert set(about) == {"maps/pca-roles-layer0", "maps/pca-roles-layer1"}
    assert len(frame) == len(run.members) * 12 * 2
    assert frame["id"].is_unique
    texts = dict(zip(run.prompts.ids, run.prompts.texts, strict=True))
    assert frame["text"].tolist() == [texts[prompt] for prompt in frame["prompt"]]
    own = run.read_table("maps/pca-roles-layer1")
    pd.testing.assert_frame_equal(frame[frame["layer"] == 1][["x", "y"]].reset_index(drop=True), own[["x", "y"]])
    assert set(frame.loc[frame["checkpoint"] == LAST, "completion"]) == {"Yes."}
    assert frame.loc[frame["checkpoint"] != LAST, "completion"].isna().all()
    command("export", run.path, "--map", "--layer", "0", "--out", tmp_path / "one.parquet")
    assert set(pq.read_table(tmp_path / "one.parquet")["layer"].to_pylist()) == {0}


# A model card -------------------------------------------------------------------------------------------------------


def test_a_card_is_a_model_card_with_the_answer_the_numbers_and_the_command(run):
    text = card_markdown(run)
    card = ModelCard(text)
    assert card.data.tags == ["gravity-probe"]
    rows = [line.split(" | ") for line in card.text.splitlines() if line.startswith("| ")]
    assert all(len(cells) == 3 for cells in rows)  # two seeds
    assert "Eroded: it refuses 100 % of harmful requests before and 4 % after." in text
    cells = {cells[0].removeprefix("| "): cells[1:] for cells in rows}
    estimate = run.estimates(run.headline_layer)["baseline", 1, run.headline_layer][100]["return_fraction"]
    fraction = next(values for label, values in cells.items() if label.startswith("return fraction"))
    assert f"{estimate.value:.2f} (95 % interval {estimate.low:.2f} to {estimate.high:.2f})" in fraction[1]
    assert cells["evidence level (of 6)"][0] == "5, specific to harmful prompts"
    assert cells["refuses harmful requests, before → after"][0].startswith("100 % → ")
    assert "gravity-probe measure lineage.toml" in text
    assert f"Gravity Probe {run.manifest.tool_version}" in text


def test_a_card_says_what_was_not_tested(tmp_path):
    path = write_run(tmp_path / "run", **SMALL, without=("verdict", "nulls", "behaviour"))
    text = card_markdown(Run(path))
    assert "Not judged" in text
    assert "no test against a null was made" in text
    assert "The loss on the fine-tuning task" in text


def test_text_of_a_run_is_no_markup_in_a_card(tmp_path):
    run = Run(write_run(tmp_path / "run", **SMALL, arms=(TRICKY_ARM,)))
    text = card_markdown(run)
    assert TRICKY_ARM not in text
    assert "<script>" not in text.replace("\\<", "")
    assert TRICKY not in text


def test_the_command_prints_a_card_or_writes_it(run, tmp_path):
    assert command("report", run.path, "--card", "--arm", "block") == card_markdown(run, "block")
    command("report", run.path, "--card", "--out", tmp_path / "card.md")
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == card_markdown(run)
    with pytest.raises(UsageError, match="no such arm"):
        command("report", run.path, "--card", "--arm", "typo")
    with pytest.raises(UsageError, match="belongs to --card"):
        command("report", run.path, "--arm", "block")
