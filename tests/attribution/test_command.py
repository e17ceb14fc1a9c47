"""`gravity-probe attribute` on real trainings: the documented JSON, the table, what is dropped."""

import json
import shutil

import pytest

from probes.attribution.dropping import RANKINGS
from probes.behaviour.task_file import read_task
from probes.errors import CheckpointError, RunFolderError, UsageError
from probes.guard.recorded_path import PATH
from probes.run import Run
from probes.tasks.attribute import Attributing
from probes.tasks.attribute import attribute as attribute_run
from tests.guard.test_train import call, train_words
from tests.guard.test_train import run as train

LAYER = 1
FIELDS = {
    *("index", "text", "share", "effect", "forecast", "low", "high", "cluster", "projection"),
    *("projection_difference", "bm25", "length"),
}


@pytest.fixture(scope="module", params=["full", "lora"])
def recorded(place, tmp_path_factory, request):
    out = tmp_path_factory.mktemp(request.param) / "out"
    train(*train_words(place, out, mode="watch", method=request.param), "--record-path")
    return out


def attribute(out, *words):
    return call("attribute", out, "--arm", "watch", "--layer", LAYER, "--explain", 2, *words)


def test_shares_add_up_to_the_summarys_return(recorded):
    document = json.loads(attribute(recorded, "--json"))
    assert set(document) == {"completeness_gap", "measured_return", "predicted_return", "other", "examples"}
    assert all(set(row) == FIELDS for row in document["examples"])
    measured = Run(recorded).drift("watch", "return_fraction", layer=LAYER).sort_values("step")["value"].iloc[-1]
    assert document["measured_return"] == pytest.approx(measured)
    total = sum(row["share"] for row in document["examples"]) + sum(row["share"] for row in document["other"])
    assert document["predicted_return"] == pytest.approx(total)
    assert document["completeness_gap"] == pytest.approx(document["measured_return"] - total, abs=1e-12)
    assert abs(document["completeness_gap"]) <= 0.01 * max(abs(measured), 0.02)
    assert [row["index"] for row in document["examples"]] == list(range(24))


@pytest.mark.parametrize("recorded", ["full"], indirect=True)
def test_several_layers_in_one_walk_are_those_of_each(recorded):
    """With pathways, whose parts add up to what their target changed; and the prompts that the top examples move."""
    single = json.loads(attribute(recorded, "--json"))
    words = ("attribute", recorded, "--arm", "watch", "--pathways", "--explain", 2, "--layer", 0, "--layer", LAYER)
    documents = json.loads(call(*words, "--json"))["layers"]
    assert set(documents) == {"0", str(LAYER)}
    shares = [[row["share"] for row in document["examples"]] for document in (single, documents[str(LAYER)])]
    assert shares[1] == pytest.approx(shares[0], rel=1e-4, abs=1e-7)
    run = Run(recorded)
    tables = [run.table(f"attribution/watch-s0-layer{layer}") for layer in (0, LAYER)]
    assert tables[0]["share_refusal"].tolist() == tables[1]["share_refusal"].tolist()
    assert tables[0]["share"].tolist() != tables[1]["share"].tolist()
    about = run.read_json(f"attribution/watch-s0-layer{LAYER}")
    before, after = about["refusal_by_return"]
    parts = [about["targets"][name]["change"] for name in ("features", "output")]
    assert sum(parts) == pytest.approx(after - before, rel=1e-3, abs=1e-4)
    for name, part in zip(("features", "output"), parts, strict=True):
        rest_of_sum = sum(about["targets"][name]["other"].values())
        assert tables[1][f"share_{name}"].sum() + rest_of_sum == pytest.approx(part, abs=0.01 * max(abs(part), 0.02))
    prompts = run.table(f"attribution/watch-s0-layer{LAYER}-prompts")
    assert set(prompts["prompt"]) == {prompt.id for prompt in run.prompts.prompts if prompt.label == "harmful"}
    forecasts = tables[1].set_index("index")["forecast"]
    moved = prompts.groupby("index")["moved"].mean()
    assert set(forecasts.nlargest(2).index) <= set(moved.index)
    assert moved.to_numpy() == pytest.approx(forecasts[moved.index].to_numpy(), rel=1e-3, abs=1e-3)


def test_the_table_is_a_stage_and_fits_the_terminal(recorded):
    words = attribute(recorded)
    assert max(map(len, words.splitlines())) <= 100
    assert words.index("Clusters by share") < words.index("Examples by share")
    run = Run(recorded)
    name = f"attribution/watch-s0-layer{LAYER}"
    assert name in run.manifest.stages
    table = run.table(name)
    assert {"share_did", "share_refusal", "effect_did", "loss", "cluster_name"} <= set(table)
    before = run.manifest.stages[name].seconds
    attribute(recorded)
    assert Run(recorded).manifest.stages[name].seconds == before


@pytest.mark.parametrize("by", RANKINGS)
def test_what_is_dropped_is_the_top(recorded, place, tmp_path, by):
    out = tmp_path / "kept.jsonl"
    attribute(recorded, "--data", place / "data.jsonl", "--drop-top", 25, "--by", by, "--out", out)
    remaining, dropped = read_task(out), read_task(tmp_path / "kept-dropped.jsonl")
    assert (len(remaining), len(dropped)) == (18, 6)
    table = Run(recorded).table(f"attribution/watch-s0-layer{LAYER}").sort_values(by, ascending=False, kind="stable")
    assert {answer for _, answer in dropped} == set(table["answer"].head(6))
    assert sorted(remaining + dropped) == sorted(read_task(place / "data.jsonl"))


def test_texts_that_would_not_be_read_as_they_were_are_not_written(recorded, tmp_path):
    """A path holds requests as the model read them: rendered once more, they would have two chat templates."""
    with pytest.raises(UsageError, match="as the model read them"):
        attribute(recorded, "--drop-top", 25, "--out", tmp_path / "kept.jsonl")
    assert not list(tmp_path.iterdir())


def test_data_of_ones_own_find_their_shares(recorded, place, tmp_path):
    """Rows of the training's data keep their shares in another order; a row that was not among them has none."""
    recorded_rows = json.loads(attribute(recorded, "--json"))["examples"]
    rows = [json.loads(line) for line in (place / "data.jsonl").read_text().splitlines()]
    file = tmp_path / "data.jsonl"
    own = [*reversed(rows), {"prompt": "what is new", "completion": "it is new"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in own))
    shown = json.loads(attribute(recorded, "--json", "--data", file))["examples"]
    assert [row["share"] for row in shown[:-1]] == [row["share"] for row in reversed(recorded_rows)]
    assert shown[-1]["share"] == 0
    words = " ".join(attribute(recorded, "--data", file).split())
    assert "1 of 25 examples were not among those that it was trained on" in words
    assert "not in the data" not in words


def test_examples_that_the_data_lack_have_a_share_together(recorded, place, tmp_path):
    whole = json.loads(attribute(recorded, "--json"))
    rows = (place / "data.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    file = tmp_path / "half.jsonl"
    file.write_text("".join(rows[:12]), encoding="utf-8")
    document = json.loads(attribute(recorded, "--json", "--data", file))
    total = sum(row["share"] for row in (*document["examples"], *document["other"]))
    assert total == pytest.approx(document["predicted_return"], abs=1e-9)
    by_name = {row["name"]: row["share"] for row in document["other"]}
    assert by_name["examples not in the data"] == pytest.approx(sum(row["share"] for row in whole["examples"][12:]))
    assert "Beside these examples:" in " ".join(attribute(recorded, "--data", file).split())


def test_without_a_path_there_is_a_forecast_and_the_reason(place, tmp_path):
    out = tmp_path / "out"
    train(*train_words(place, out, mode="watch", steps=2))
    words = " ".join(attribute(out).split())
    assert "no path was recorded" in words
    assert "Effects are those of a first step, in no unit" in words
    document = json.loads(attribute(out, "--data", place / "data.jsonl", "--json"))
    assert document["completeness_gap"] is None
    assert document["other"] == []
    rows = document["examples"]
    assert all(row["share"] is None and row["low"] is None and row["forecast"] is not None for row in rows)
    parts = [row["length"] * sum(row["forecast"] for row in rows) for row in rows]
    total = sum(row["length"] for row in rows)
    expected = [row["forecast"] - part / total for row, part in zip(rows, parts, strict=True)]
    assert [row["effect"] for row in rows] == pytest.approx(expected)
    with pytest.raises(UsageError, match="no such ranking"):
        attribute(
            out, "--data", place / "data.jsonl", "--drop-top", 10, "--by", "share", "--out", tmp_path / "kept.jsonl"
        )


def test_a_path_or_a_checkpoint_of_another_training_is_refused(place, tmp_path):
    """The path of other data beside the checkpoint, and then other weights in the checkpoint's place."""
    foreign_data = tmp_path / "other.jsonl"
    foreign_data.write_text(
        "".join(json.dumps({"prompt": f"who is {n}", "completion": f"{n} is"}) + "\n" for n in range(24))
    )
    for name, data in (("own", place / "data.jsonl"), ("other", foreign_data)):
        train(*train_words(place, tmp_path / name, mode="watch", data=data), "--record-path")
    own, foreign = tmp_path / "own" / "checkpoints", tmp_path / "other" / "checkpoints"
    (own / PATH).rename(tmp_path / PATH)
    shutil.copytree(foreign / PATH, own / PATH)
    with pytest.raises(RunFolderError, match="does not lead to the checkpoint at step 4"):
        attribute(tmp_path / "own")
    shutil.copy(foreign / "checkpoint-4" / "model.safetensors", own / "checkpoint-4")
    with pytest.raises(CheckpointError, match="other weights than those that were measured"):
        attribute(tmp_path / "own")


def test_a_run_that_was_read_in_fewer_bits_is_refused(recorded, tmp_path):
    shutil.copytree(recorded, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    manifest["config"]["quantize"] = "4bit"
    file.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(UsageError, match="fewer bits; got --quantize 4bit"):
        attribute(tmp_path / "run", "--layer", 0)


def test_a_folder_that_is_no_run_is_refused_and_stays_as_it_is(tmp_path):
    with pytest.raises(RunFolderError, match="is no run folder"):
        attribute(tmp_path / "mistyped")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mode", "exact", "words"), [("block", True, "without a guard"), ("caft", False, "edited activations")]
)
def test_what_cannot_be_attributed_is_refused_before_the_work(place, tmp_path, mode, exact, words):
    seen = []
    train(*train_words(place, tmp_path / "out", mode=mode), "--record-path")
    options = Attributing(arm=mode, layers=(LAYER,), exact=exact)
    with pytest.raises(UsageError, match=words):
        attribute_run(tmp_path / "out", options, seen.append)
    assert {progress.phase for progress in seen} <= {"unrolling"}


def test_an_unknown_arm_is_refused(recorded):
    with pytest.raises(RunFolderError, match="no trajectory baseline"):
        call("attribute", recorded)
    with pytest.raises(UsageError, match="belong together"):
        attribute(recorded, "--drop-top", 5)
