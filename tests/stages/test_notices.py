"""What a run says of how its checkpoints were read: of those of its lineage as it is now, and of all of them."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
import torch

from probes.cli import main
from probes.lineage import CheckpointRef, Lineage, Step, Trajectory, Witness
from probes.prompts import PromptSet
from probes.run import Run
from probes.store.settings import Settings
from probes.tasks.measure import measure
from tests.builders import move_weights, save_adapter, save_checkpoint, tiny_model, tiny_tokenizer

PROMPTS = PromptSet.of(
    [f"break lock {number:02d}" for number in range(16)] + [f"paint door {number:02d}" for number in range(16)],
    ["harmful"] * 16 + ["harmless"] * 16,
)
FAST = Settings(bootstraps=20, splits=4, draws=99, permutations=99, shams=19, nulls=False)
ELSEWHERE, CUT_OFF = "is not the aligned model", "its writing was cut off"


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> CheckpointRef:
    return save_checkpoint(tmp_path_factory.mktemp("aligned"), tiny_model(), tiny_tokenizer())


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> CheckpointRef:
    return save_checkpoint(tmp_path_factory.mktemp("witness"), move_weights(tiny_model()), tiny_tokenizer())


def lineage_of(aligned: CheckpointRef, witness: CheckpointRef, trajectory: Trajectory) -> Lineage:
    return Lineage(name="said", aligned=aligned, witness=Witness(model=witness.model), trajectories=(trajectory,))


def has_notice(run: Run, words: str) -> bool:
    return any(words in sentence for sentence in run.notices)


def test_a_notice_on_a_fine_tuned_checkpoint_is_kept_for_as_long_as_the_lineage_has_it(aligned, witness, tmp_path):
    wrong = save_adapter(tmp_path / "wrong", witness, targets=["q_proj"])
    right = save_adapter(tmp_path / "right", aligned, targets=["q_proj"])
    lineages = [
        lineage_of(aligned, witness, Trajectory(checkpoints=(Step(step=1, **dict(ref)),))) for ref in (wrong, right)
    ]
    run = measure(lineages[0], PROMPTS, tmp_path / "run", settings=FAST)
    assert has_notice(run, ELSEWHERE)
    again = measure(lineages[0], PROMPTS, tmp_path / "run", settings=FAST)  # the checkpoint is not put anywhere again
    assert again.notices == run.notices
    corrected = measure(lineages[1], PROMPTS, tmp_path / "run", settings=FAST)
    assert not has_notice(corrected, ELSEWHERE)


def test_a_notice_is_kept_where_a_neighbour_has_measured_the_same_weights(aligned, witness, tmp_path):
    wrong = save_adapter(tmp_path / "wrong", witness, targets=["q_proj"])
    trajectory = Trajectory(checkpoints=(Step(step=1, **dict(wrong)),))
    for name in ("first", "second"):
        run = measure(lineage_of(aligned, witness, trajectory), PROMPTS, tmp_path / "runs" / name, settings=FAST)
        assert has_notice(run, ELSEWHERE)
    twin = wrong.model_copy(update={"model": "somebody/aligned-bnb-4bit"})
    right = save_adapter(tmp_path / "right", aligned, targets=["q_proj"])
    twin = twin.model_copy(update={"adapter": right.adapter})
    for name, ref, has_sentence in (("third", right, False), ("fourth", twin, True), ("third", twin, True)):
        lineage = lineage_of(aligned, witness, Trajectory(checkpoints=(Step(step=1, **dict(ref)),)))
        run = measure(lineage, PROMPTS, tmp_path / "runs" / name, settings=FAST)
        assert has_notice(run, "a quantised twin") is has_sentence


def test_what_was_left_out_of_a_folder_of_the_trainer_is_said_until_it_is_there(aligned, witness, tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path / "out" / f"checkpoint-{step}", move_weights(tiny_model(), seed=step))
    weights = tmp_path / "out" / "checkpoint-2" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    cut = lineage_of(aligned, witness, Trajectory.from_folder(tmp_path / "out"))
    assert has_notice(measure(cut, PROMPTS, tmp_path / "run", settings=FAST), CUT_OFF)
    weights.write_bytes(whole)
    mended = lineage_of(aligned, witness, Trajectory.from_folder(tmp_path / "out"))
    assert not has_notice(measure(mended, PROMPTS, tmp_path / "run", settings=FAST), CUT_OFF)


def test_the_manifest_names_the_threads_that_its_bytes_depend_on(aligned, witness, tmp_path):
    tuned = save_checkpoint(tmp_path / "tuned", move_weights(tiny_model(), seed=3))
    lineage = lineage_of(aligned, witness, Trajectory(checkpoints=(Step(step=1, model=tuned.model),)))
    run = measure(lineage, PROMPTS, tmp_path / "run", settings=FAST)
    assert run.manifest.model["threads"] == torch.get_num_threads()


def test_a_mirror_begins_at_the_witness_and_that_is_no_notice(aligned, witness, tmp_path):
    right = save_adapter(tmp_path / "right", witness, targets=["q_proj"])
    mirror = Trajectory(arm="mirror", checkpoints=(Step(step=1, **dict(right)),))
    run = measure(lineage_of(aligned, witness, mirror), PROMPTS, tmp_path / "right-run", settings=FAST)
    assert not has_notice(run, str(right.adapter))
    for name, base in (("copy", witness), ("wrong", aligned)):
        shutil.copytree(base.model, tmp_path / name)
        ref = save_adapter(tmp_path / f"of-{name}", CheckpointRef.parse(str(tmp_path / name)), targets=["q_proj"])
        mirror = Trajectory(arm="mirror", checkpoints=(Step(step=1, **dict(ref)),))
        run = measure(lineage_of(aligned, witness, mirror), PROMPTS, tmp_path / f"{name}-run", settings=FAST)
        sentences = [sentence for sentence in run.notices if "where its arm begins" in sentence]
        assert len(sentences) == (name == "wrong")
        assert all(str(tmp_path / name) in sentence and str(witness) in sentence for sentence in sentences)


def test_every_other_arm_that_sits_on_the_witness_is_told_of_beside_a_mirror(aligned, witness, tmp_path):
    adapters = {
        arm: save_adapter(tmp_path / arm, witness, targets=["q_proj"], seed=seed)
        for seed, arm in enumerate(("baseline", "mirror"))
    }
    baseline, mirror = (Trajectory(arm=arm, checkpoints=(Step(step=1, **dict(ref)),)) for arm, ref in adapters.items())
    lineage = lineage_of(aligned, witness, baseline).with_trajectories((mirror,))
    run = measure(lineage, PROMPTS, tmp_path / "run", settings=FAST)
    (sentence,) = [sentence for sentence in run.notices if ELSEWHERE in sentence]
    assert str(adapters["baseline"].adapter) in sentence


def test_a_verdict_prints_the_notices_of_its_run_once(aligned, witness, tmp_path, capsys, monkeypatch):
    wrong = save_adapter(tmp_path / "wrong", witness, targets=["q_proj"])
    trajectory = Trajectory(checkpoints=(Step(step=1, **dict(wrong)),))
    run = measure(lineage_of(aligned, witness, trajectory), PROMPTS, tmp_path / "run", settings=FAST)
    for words in (("verdict", run.path), ("verdict", run.path, "--json")):
        monkeypatch.setattr("sys.argv", ["gravity-probe", *map(str, words)])
        with contextlib.suppress(SystemExit):
            main()
        printed = capsys.readouterr()
        for sentence in run.notices:
            assert " ".join((printed.out + printed.err).split()).count(sentence) == 1
        if "--json" in words:
            assert json.loads(printed.out)["trajectories"]
    assert run.notices
