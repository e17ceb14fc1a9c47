"""What the safety answer needs is asked before all the rest: the same answer, the same bytes, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from probes.behaviour.evaluation import Evaluation
from probes.errors import PromptError
from probes.lineage import Lineage
from probes.progress import Progress, silent
from probes.prompts import PromptSet
from probes.run import Run
from probes.stages.activations import write_activations
from probes.store.settings import Settings
from probes.tasks.evaluate import answer_first, evaluate
from probes.tasks.measure import begin, measure
from tests.builders import save_fine_tunes

PROBES = PromptSet.of(
    [f"{letter}{number}" for letter in "pq" for number in range(16)], ["harmful"] * 16 + ["harmless"] * 16
)
MIXED = Evaluation(  # labels take turns, so that an answer in the wrong place would be seen
    PromptSet.of([f"{'ab'[number % 2]} {number}" for number in range(14)], ["harmful", "harmless"] * 7),
    task=(("x", "yes"), ("y", "no")),
    max_new_tokens=5,
    look_alikes=PromptSet.of(["kill a process"], ["harmless"]),
)
SETTINGS = Settings(device="cpu", bootstraps=20, splits=4, draws=99, nulls=False)


@pytest.fixture(scope="module")
def lineage(tmp_path_factory) -> Lineage:
    """An aligned model, and a fine-tune and a LoRA adapter of it."""
    home = tmp_path_factory.mktemp("places")
    save_fine_tunes(home, scale=0.3)
    return Lineage.of(home / "aligned", None, [f"1={home / 'tuned'}", f"2={home / 'adapter'}"])


class Screen:
    """What progress reports have said."""

    def __init__(self) -> None:
        self.results: list[str] = []

    def __call__(self, progress: Progress) -> None:
        self.results += [progress.result] if progress.result else []


def files_of(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}


def test_the_answer_stands_before_anything_is_measured_and_is_the_final_one(lineage, tmp_path, monkeypatch):
    screen, again = Screen(), Screen()
    run = begin(lineage, PROBES, tmp_path / "run", SETTINGS).path
    answer_first(run, MIXED, report=screen)
    first_files = {"answers/aligned.harmful.parquet", "answers/baseline-s0-000002.harmful.parquet"}
    assert {name for name in files_of(run) if "/" in name} == first_files
    assert not Run(run).manifest.checkpoints
    assert screen.results[0].startswith("baseline (seed 0): ")
    with monkeypatch.context() as patch:
        patch.delattr("probes.models.host.ModelHost.__init__")  # no model is loaded
        answer_first(run, MIXED, report=again)
    assert again.results == []  # nothing is asked twice, and nothing said twice
    measure(lineage, PROBES, run, SETTINGS)
    done = evaluate(run, MIXED, report=again)
    assert again.results == []
    assert not first_files & files_of(run)
    before, _, figures = screen.results[0].partition(" points")
    assert done.read_json("safety")[0]["text"].startswith(before.removeprefix("baseline (seed 0): "))
    assert figures.split(";")[0].rstrip(".") in done.read_json("safety")[0]["text"]


def test_answers_are_the_same_bytes_as_where_nothing_was_asked_first(lineage, tmp_path, monkeypatch):
    runs = [begin(lineage, PROBES, tmp_path / name, SETTINGS) for name in ("first", "later")]
    answer_first(runs[0].path, MIXED)
    for run in runs:
        with Run.writing(run.path) as writing:
            write_activations(writing, writing.model(), writing.members, silent)
    monkeypatch.setattr("probes.stages.first_answers._members", lambda *_: [])
    evaluate(runs[1].path, MIXED)
    monkeypatch.undo()
    evaluate(runs[0].path, MIXED)
    for member in runs[0].members:
        tables = [run.read_table(f"answers/{member.id}") for run in runs]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
        assert tables[0]["prompt"].tolist() == list(MIXED.questions.ids)
    pd.testing.assert_frame_equal(*(run.read_table("completions") for run in runs), check_exact=True)


def test_first_answers_of_other_questions_or_labels_are_not_taken_over(lineage, tmp_path):
    run = begin(lineage, PROBES, tmp_path / "run", SETTINGS).path
    answer_first(run, MIXED)
    texts, labels = MIXED.prompts.texts, ["harmless", "harmful"] * 7
    swapped = Evaluation(PromptSet.of(texts, labels), MIXED.task, 5, MIXED.look_alikes)
    screen = Screen()
    answer_first(run, swapped, report=screen)
    assert len(screen.results) == 2
    first = Run(run).read_table("answers/aligned.harmful")["prompt"].tolist()
    assert first == [prompt.id for prompt in swapped.prompts.prompts if prompt.label == "harmful"]


def test_first_answers_of_other_questions_do_not_stand_for_answers_that_are_whole(lineage, tmp_path):
    run, screen = begin(lineage, PROBES, tmp_path / "run", SETTINGS).path, Screen()
    with Run.writing(run) as writing:
        write_activations(writing, writing.model(), writing.members, silent)
    evaluate(run, MIXED)
    two_questions = Evaluation(PromptSet.of(["c 1", "c 2"], ["harmful", "harmless"]), max_new_tokens=5)
    answer_first(run, two_questions)
    (run / "answers" / "baseline-s0-000002.parquet").unlink()
    answer_first(run, MIXED, report=screen)
    assert f"{MIXED.labels.count('harmful')} prompts" in screen.results[0]


def test_probe_prompts_are_refused_before_anything_is_asked(lineage, tmp_path):
    run = begin(lineage, PROBES, tmp_path / "run", SETTINGS).path
    with pytest.raises(PromptError, match="among the probe prompts"):
        answer_first(run, Evaluation(PromptSet.of(["p1", "x y"], ["harmful", "harmless"])))
    assert not (run / "answers").exists()
