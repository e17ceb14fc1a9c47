"""Every file of JSON or TOML that is read, damaged: the refusal is one sentence of the reader's own kind of error."""

from __future__ import annotations

import numpy as np
import pytest

from probes.behaviour.judges import Exchange
from probes.behaviour.judges.judgement_cache import JudgementCache
from probes.behaviour.judges.wording import WordingJudge
from probes.directions.selection import read_scores
from probes.directions.vectors import Vectors
from probes.errors import CheckpointError, LineageError, RunFolderError, UsageError
from probes.experiments.screening import Screening
from probes.guard.fine_tuning import is_finished
from probes.guard.guarded_direction import GuardError
from probes.guard.resuming import whole_checkpoints
from probes.lineage import CheckpointRef, Lineage
from probes.lineage.trainer_folder import read_trainer_folder
from probes.models.source import read_json as read_of_checkpoint
from probes.organism.history import OrganismError, read_history
from probes.store import RunFolder
from probes.store.manifest import read_manifest
from tests.builders import save_checkpoint, tiny_model, tiny_tokenizer

DEEP = "[" * 100_000 + "]" * 100_000
DAMAGED = {
    "empty": "",
    "half": '{"format_version": ',
    "deep": DEEP,
    "inside": f'{{"recipe": {DEEP}}}',
    "no object": "[1, 2]",
    "twice": '{"a": 1, "a": 2}',
    "surrogate": '{"a": "\\ud800"}',
    "long number": "1" * 5000,
    "object of another": '{"a": 1}',
}
# file → who reads it, given the folder, and what it raises
READERS = {
    "adapter_config.json": (lambda folder: CheckpointRef.parse(str(folder)), LineageError),
    "run.json": (read_manifest, RunFolderError),
    "history.json": (read_history, OrganismError),
    "seed-0.json": (lambda folder: Screening.read(folder / "seed-0.json"), OrganismError),
    "config.json": (lambda folder: read_of_checkpoint(folder / "config.json")["model_type"], CheckpointError),
    "training.json": (is_finished, GuardError),
    "checkpoint-3/gravity_probe.json": (whole_checkpoints, GuardError),
    "scores.json": (lambda folder: read_scores(folder / "scores.json"), UsageError),
    "lineage.toml": (lambda folder: Lineage.load(folder / "lineage.toml"), LineageError),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_in_one_sentence(name, damage, tmp_path):
    read, error = READERS[name]
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(DAMAGED[damage], encoding="utf-8")
    if (name, damage) == ("config.json", "object of another"):
        pytest.skip("any object may be a file of a checkpoint")
    with pytest.raises(error) as caught:
        read(tmp_path)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_no_text_or_a_folder_is_refused(name, tmp_path):
    read, error = READERS[name]
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(error, match="not UTF-8"):
        read(tmp_path)


def test_a_document_of_a_run_that_was_damaged_is_refused(tmp_path):
    with RunFolder.writing(tmp_path / "run") as run:
        for name, text in DAMAGED.items():
            if not name.startswith(("no object", "object")):
                (run.path / "verdict.json").write_text(text, encoding="utf-8")
                with pytest.raises(RunFolderError, match=r"verdict\.json"):
                    run.read_json("verdict")


def test_layers_of_a_direction_that_are_damaged_are_refused(tmp_path):
    from safetensors.numpy import save_file

    arrays = {"direction": np.ones((2, 4), dtype="f4"), "norm": np.ones(2, dtype="f4")}
    for layers in (DEEP, "[", "7", "[1, 1e999]", '{"a": 1, "a": 2}'):
        save_file(arrays, tmp_path / "x.safetensors", {"layers": layers})
        with pytest.raises(RunFolderError, match="holds no direction"):
            Vectors.read(tmp_path / "x.safetensors")


class CountingJudge(WordingJudge):
    """Its judgements are kept, as those of a judge that costs something."""

    identity = "counting"
    questions = 0

    def label(self, exchanges):
        CountingJudge.questions += len(exchanges)
        return super().label(exchanges)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_of_judgements_is_passed_over(damage, tmp_path):
    path = tmp_path / "judgements.jsonl"
    exchange = Exchange("make bread", "I cannot help with that.")
    JudgementCache(path).ask(CountingJudge(), [exchange])
    path.write_text(DAMAGED[damage] + "\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    before = CountingJudge.questions
    assert [judgement.label for judgement in JudgementCache(path).ask(CountingJudge(), [exchange])] == ["refusal"]
    assert CountingJudge.questions == before, "the whole line behind the damaged one counts"


def test_what_other_programs_write_is_read_with_its_numbers_that_are_not_finite(tmp_path):
    (tmp_path / "config.json").write_text('{"time_step_limit": [0.0, Infinity]}', encoding="utf-8")
    assert read_of_checkpoint(tmp_path / "config.json")["time_step_limit"][1] == np.inf
    best = tmp_path / "out" / "checkpoint-best"
    save_checkpoint(best, tiny_model(), tiny_tokenizer())
    (best / "trainer_state.json").write_text('{"global_step": 7, "log_history": [{"loss": NaN}]}', encoding="utf-8")
    assert list(read_trainer_folder(tmp_path / "out").steps) == [7]


@pytest.mark.parametrize("state", ["{", DEEP, "[]", '{"global_step": "x"}', '{"global_step": [3]}', "{}"])
def test_a_trainer_state_that_says_no_step_leaves_its_model_out(state, tmp_path):
    best = tmp_path / "checkpoint-best"
    save_checkpoint(best, tiny_model(), tiny_tokenizer())
    (best / "trainer_state.json").write_text(state, encoding="utf-8")
    contents = read_trainer_folder(tmp_path)
    assert not contents.steps
    assert "nothing says at which step" in contents.notices[0]


@pytest.mark.parametrize("index", ["{", DEEP, "[]", '{"weight_map": [1]}', '{"weight_map": {"a": ["x"]}}'])
def test_an_index_that_names_no_files_leaves_its_checkpoint_out(index, tmp_path):
    folder = tmp_path / "checkpoint-3"
    save_checkpoint(folder, tiny_model(), tiny_tokenizer())
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    assert not read_trainer_folder(tmp_path).steps


@pytest.mark.parametrize(
    "header", [DEEP, "[]", '{"a": 1}', '{"a": {}}', '{"a": {"data_offsets": [0]}}', '{"a": {"data_offsets": [0, "x"]}}']
)
def test_a_file_of_weights_with_another_header_is_not_whole(header, tmp_path):
    folder = tmp_path / "checkpoint-3"
    save_checkpoint(folder, tiny_model(), tiny_tokenizer())
    content = header.encode()
    (folder / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    assert not read_trainer_folder(tmp_path).steps


@pytest.mark.parametrize(
    "text",
    [
        "trajectories = 5",
        "base = 5",
        "[[trajectories]]\nfolder = 5",
        "[[trajectories]]\nfolder = './out'\nbase = [1]",
        "trajectories = [5]",
        "aligned = 5",
    ],
)
def test_a_lineage_file_of_other_types_is_refused(text, tmp_path):
    file = tmp_path / "lineage.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(LineageError):
        Lineage.load(file)
