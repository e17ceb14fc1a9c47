"""Lineage files and checkpoint references: what is understood, and the sentence for what is not."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from probes.errors import LineageError
from probes.lineage import CheckpointRef, Lineage, Step, Trajectory, Witness, is_one_direction
from probes.lineage.trajectories import single_trajectory

LINEAGES = Path(__file__).parents[1] / "data" / "lineages"
PUBLIC = [path for path in sorted(LINEAGES.glob("*.toml")) if path.name != "known.toml"]  # which is a list of models


def folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        if Path(name).name.startswith("checkpoint-"):
            save_file({"weight": np.zeros(1, np.float32)}, root / name / "model.safetensors")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


ROLES = '[witness]\nmodel = "w"\n[aligned]\nmodel = "a"\n'


def test_relative_folders_are_taken_from_the_files_own_folder(tmp_path, monkeypatch):
    folders(tmp_path, "home/w", "home/a", "home/out/checkpoint-2")
    file = write(tmp_path / "home" / "mine.toml", ROLES + '[[trajectories]]\nfolder = "out"\n')
    monkeypatch.chdir("/")
    lineage = Lineage.load(file)
    assert lineage.name == "mine"
    assert Path(lineage.aligned.model) == tmp_path / "home" / "a"
    assert lineage.trajectories[0].checkpoints[0].model == str(tmp_path / "home" / "out" / "checkpoint-2")


def test_checkpoints_of_a_trainer_folder_are_ordered_by_step_not_by_name(tmp_path):
    folders(tmp_path, "checkpoint-100", "checkpoint-20", "checkpoint-3", "runs", "checkpoint-final")
    run = Trajectory.from_folder(tmp_path, arm="control:random", seed=4)
    assert [checkpoint.step for checkpoint in run.checkpoints] == [3, 20, 100]
    assert run.checkpoint_id(20) == "control-random-s4-000020"


def test_an_adapter_folder_names_its_base(tmp_path):
    write(tmp_path / "adapter_config.json", '{"base_model_name_or_path": "org/base"}')
    assert CheckpointRef.parse(str(tmp_path)) == CheckpointRef(model="org/base", adapter=str(tmp_path))


def test_an_adapter_without_a_base_is_refused(tmp_path):
    write(tmp_path / "adapter_config.json", "{}")
    with pytest.raises(LineageError, match="does not say which base"):
        CheckpointRef.parse(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "model", "revision"), [("org/name", "org/name", None), ("org/name@step-7", "org/name", "step-7")]
)
def test_hub_ids_keep_their_revision(text, model, revision):
    assert CheckpointRef.parse(text) == CheckpointRef(model=model, revision=revision)


@pytest.mark.parametrize("text", ["nowhere", "/no/such/folder", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id_is_refused(text):
    with pytest.raises(LineageError, match="This is no checkpoint"):
        CheckpointRef.parse(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[witnes]\nmodel='w'\n[aligned]\nmodel='a'", "did you mean 'witness'"),
        ("[witness]\nmodel='w'\nrevison='x'\n[aligned]\nmodel='a'", "did you mean 'revision'"),
        ("[witness]\nmodel='w'", "'aligned' is missing"),
        ("witness = [", "is not TOML"),
        (ROLES + "[[trajectories]]\nfolder='out'", "No checkpoint-N in"),
        (ROLES + "[[trajectories]]\nfolder='out'\nstep=3", "takes no 'step'"),
        (ROLES + "[[trajectories]]\narm='x'\ncheckpoints=[]", "has no checkpoints"),
        (ROLES + "[[trajectories]]\ncheckpoints=[{step=2,model='a'},{step=1,model='a'}]", "must rise"),
    ],
)
def test_a_wrong_file_gets_one_clear_sentence(tmp_path, text, sentence):
    with pytest.raises(LineageError, match=sentence):
        Lineage.load(write(tmp_path / "x.toml", text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LineageError, match=r"no lineage file .*gone\.toml"):
        Lineage.load(tmp_path / "gone.toml")


def test_members_begin_with_the_reference_and_have_one_name_each():
    run = Trajectory(checkpoints=(Step(step=1, model="t/1"), Step(step=2, model="t/2")))
    lineage = Lineage(
        name="x",
        pretrained=CheckpointRef(model="p/p"),
        witness=Witness(model="w/w"),
        aligned=CheckpointRef(model="a/a"),
        trajectories=(run,),
    )
    members = list(lineage.members())
    assert [member.id for member in members] == [
        "aligned",
        "witness",
        "pretrained",
        "baseline-s0-000001",
        "baseline-s0-000002",
    ]
    assert members[-1].labels == {"checkpoint": "baseline-s0-000002", "arm": "baseline", "seed": 0, "step": 2}


def test_one_arm_and_seed_cannot_be_there_twice():
    run = Trajectory(checkpoints=(Step(step=1, model="t/1"),))
    lineage = Lineage(name="x", witness=Witness(model="w/w"), aligned=CheckpointRef(model="a/a"), trajectories=(run,))
    with pytest.raises(LineageError, match="two trajectories are called baseline-s0"):
        lineage.with_trajectories((run,))


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: path.stem)
def test_ready_lineages_say_what_stands_in_for_the_witness(path):
    lineage = Lineage.load(path)
    assert lineage.pretrained is not None
    assert "stands in" in lineage.witness.label


def test_two_ready_lineages_are_there():
    assert len(PUBLIC) >= 2


def test_a_lineage_inside_a_folder_moves_with_it(tmp_path):
    folders(tmp_path, "run/checkpoints/a", "elsewhere/w")
    lineage = Lineage(
        name="x",
        witness=Witness(model=str(tmp_path / "elsewhere" / "w")),
        aligned=CheckpointRef(model=str(tmp_path / "run" / "checkpoints" / "a")),
    )
    document = lineage.portable(tmp_path / "run").model_dump()
    assert document["aligned"]["model"] == "./checkpoints/a"
    assert Lineage.opened(document, tmp_path / "run") == lineage
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = Lineage.opened(document, tmp_path / "moved")
    assert Path(moved.aligned.model) == tmp_path / "moved" / "checkpoints" / "a"
    assert moved.witness == lineage.witness


def test_two_checkpoints_of_one_step_are_refused_in_a_sentence(tmp_path):
    for name in ("aligned", "a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(LineageError, match=r"must rise: \[10, 10\].* Give each checkpoint a step of its own"):
        Lineage.of(tmp_path / "aligned", None, [f"10={tmp_path / 'a'}", f"10={tmp_path / 'b'}"])


def test_one_step_given_twice_is_refused_in_a_sentence(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(LineageError, match="Give each checkpoint a step of its own"):
        single_trajectory([f"5={tmp_path / 'one'}", f"5={tmp_path / 'two'}"], None)


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("block", True),
        ("block-lora-sgd", True),
        ("safety-direction", True),
        ("control:covariance", False),
        ("control:covariance-lora", False),
        ("control:covariance:3", True),
        ("control:covariance:3-lora-sgd", True),
        ("control:permuted-labels", False),
        ("control:permuted-labels:3", True),
    ],
)
def test_a_numbered_draw_is_one_direction_at_every_seed_and_a_control_alone_is_not(arm, expected):
    assert is_one_direction(arm) is expected
