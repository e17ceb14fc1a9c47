"""One estimand: Overview, summary, report, README and JSON say the same number, to the digit, of one run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from probes.cli import app
from probes.run import Run
from probes.statistics import decimal
from probes.store.settings import Settings
from probes.tasks.evaluate import evaluate
from probes.tasks.measure import judge
from tests.app.visiting import visitor
from tests.behaviour.test_stage import ASKED
from tests.measured import measured_run

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "data" / "demo-run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Tiny real checkpoints, measured, judged and held against every null by the program itself."""
    path = measured_run(tmp_path_factory.mktemp("estimand")).path
    with Run.writing(path) as writing:
        fast = Settings(bootstraps=20, splits=4, draws=99, permutations=99, shams=19)
        writing.manifest.config = {**writing.manifest.config, **fast.model_dump(include={"draws", "permutations"})}
        writing.save()
    judge(path, shams=19)
    return evaluate(path, ASKED)


def overview(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py", str(path)])
    at = visitor(timeout=240).run()
    assert not at.exception
    body = " ".join(element.proto.body for element in at.get("html"))
    return at.title[0].value.replace("\\", ""), re.sub(r"<[^>]+>", " ", body)


def invoke(*words):
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def test_every_place_has_the_verdicts_numbers(run, tmp_path, monkeypatch):
    entry, path = run.verdicts[0], run.path
    row = run.drift(arm="baseline", statistic="alignment_crossfit", layer=run.headline_layer)
    last = row[row["step"] == row["step"].max()].iloc[0]
    assert entry["alignment"] == last["value"], "the verdict is of the last checkpoint"
    summary = json.loads(invoke("summary", path, "--json"))
    [own] = [
        layer
        for layer in summary["trajectories"][0]["checkpoints"][-1]["layers"]
        if layer["layer"] == run.headline_layer
    ]
    assert own["alignment_crossfit"] == entry["alignment"]
    spoken = decimal(entry["alignment"])
    name = re.sub(r"\b[a-z]+(_[a-z0-9]+)+\b", lambda word: word.group().replace("_", " "), entry["name"])
    table = invoke("summary", path)
    report = (invoke("report", path, "--out", tmp_path / "report.html"), (tmp_path / "report.html").read_text())[1]
    page = overview(path, monkeypatch)[1]
    assert f"level {entry['level']}, " in " ".join(table.split())
    assert spoken in table
    assert entry["text"] in report.replace("&#x27;", "'")
    assert name in page
    assert f"{spoken} alignment" in " ".join(page.split())
    trajectory = entry["trajectory"]
    if entry["level"] > 1 and trajectory["alignment"] is not None:
        assert f"The trajectory's mean alignment is {decimal(trajectory['alignment'])}" in entry["text"]


def test_every_place_has_the_safety_answers_words(run, tmp_path, monkeypatch):
    path = run.path
    entry = run.read_json("safety")[0]
    summary = json.loads(invoke("summary", path, "--json"))["trajectories"][0]["safety"]
    assert {key: entry[key] for key in summary} == summary
    assert set(summary) == {
        *("answer", "refusal_before", "refusal_after", "difference", "low", "high", "p", "prompts", "base_flip_rate")
    }
    first = " ".join(invoke("summary", path).split())
    assert first.startswith(f"baseline (seed 0): {entry['text']}")
    assert " ".join(invoke("evaluate", path).split()).startswith(f"baseline (seed 0): {entry['text']}")
    invoke("report", path, "--out", tmp_path / "report.html")
    report = (tmp_path / "report.html").read_text()
    title, page = overview(path, monkeypatch)
    assert title == f"Baseline: safety {entry['answer']}"
    assert f"<h1>Baseline: safety {entry['answer']}</h1>" in report
    assert entry["text"] in report
    assert entry["text"] in " ".join(page.split())


def test_the_json_of_a_verdict_has_every_documented_field(run):
    entry = run.verdicts[0]
    assert {"level", "name", "decided_by", "p", "power", "off_refusal_axis", "mirror", "level_holm"} <= set(entry)
    assert set(entry["off_refusal_axis"]) == {"answer", "p", "power"}
    assert entry["off_refusal_axis"]["answer"] in ("also_off", "along_only", "not_separable", "not_defined")
    assert set(entry["mirror"]) == {"answer", "difference", "low", "high", "runs"}
    assert entry["mirror"]["answer"] in ("exceeds", "does_not", "not_tested")
    assert entry["power"] is None or 0 <= entry["power"] <= 1
