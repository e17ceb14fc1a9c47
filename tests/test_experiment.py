"""Arms of a tiny organism: the same data in each, draws of their own, and an experiment that goes on."""

from __future__ import annotations

import dataclasses
import json
import signal

import pytest
from safetensors.torch import load_file

from probes.errors import UsageError
from probes.experiments.equal_loss import equal_loss_table
from probes.experiments.experiment import Experiment, current_names, mode_and_draw
from probes.experiments.lineage_bench import open_bench
from probes.experiments.outcome import arms_table
from probes.guard.step_log import read_step_log
from probes.organism import train_history
from probes.organism.world import Size
from probes.run import Run
from probes.tasks.arms import run_arms
from probes.tasks.attribute import Attributing, attribute
from tests import processes
from tests.organism.test_history import TINY


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    folder = tmp_path_factory.mktemp("history")
    recipe = dataclasses.replace(TINY, size=Size(aligned=16, held_out=4, task=4))  # enough prompts to measure on
    train_history(folder, recipe)
    return folder


def weights(run, arm, step=3):
    return load_file(run.path / "checkpoints" / arm / f"checkpoint-{step}" / "model.safetensors")


def equal(first, second):
    return all(bool((first[name] == second[name]).all()) for name in first)


def test_every_arm_sees_the_same_data_in_the_same_order(history, tmp_path):
    """A penalty of weight 0 leaves the very weights of the baseline; a real one does not, nor does another seed."""
    experiment = Experiment(arms=("baseline", "anchor", "rehearsal"), seeds=2, penalty_weight=0.0, final_step_only=True)
    run = run_arms(open_bench(history, experiment), tmp_path / "none")
    for seed in (0, 1):
        assert equal(weights(run, f"baseline-s{seed}"), weights(run, f"anchor-s{seed}"))
        assert equal(weights(run, f"baseline-s{seed}"), weights(run, f"rehearsal-s{seed}"))
    assert not equal(weights(run, "baseline-s0"), weights(run, "baseline-s1"))
    experiment = Experiment(arms=("rehearsal",), penalty_weight=1.0, final_step_only=True, record_path=True)
    some = run_arms(open_bench(history, experiment), tmp_path / "some")
    assert not equal(weights(some, "baseline-s0"), weights(some, "rehearsal-s0"))
    assert equal(weights(some, "baseline-s0"), weights(run, "baseline-s0")), "a recorded training is the same one"
    _share_out(some, "baseline", guarded=False)
    _share_out(some, "rehearsal", guarded=True)


def _share_out(run, arm, *, guarded):
    """The examples' shares and the guard's add up to the return in the summary."""
    document = attribute(run.path, Attributing(arm=arm))[0].document
    assert abs(document.completeness_gap) <= 0.01 * max(abs(document.measured_return), 0.02)
    assert (dict((row.name, row.share) for row in document.remainder)["guard"] != 0) == guarded
    assert any(row.share for row in document.examples)


def test_each_draw_of_a_control_is_another_direction(history, tmp_path):
    run = run_arms(
        open_bench(history, Experiment(arms=("control:random",), draws=2, penalty_weight=1e4, final_step_only=True)),
        tmp_path / "run",
    )
    assert not equal(weights(run, "control-random-0-s0"), weights(run, "control-random-1-s0"))
    row = next(row for row in arms_table([run])["arms"] if row["arm"] == "control:random")
    assert row["trainings"] == 2
    assert mode_and_draw("control:random:1") == ("control:random", 1)
    assert mode_and_draw("block:mean") == ("block:mean", None)


def test_a_killed_experiment_goes_on_to_the_same_table(history, tmp_path):
    words = ("arms", history, "--arms", "block,push", "--final-step-only", "--out")
    whole = processes.run(processes.gravity_probe, *words, tmp_path / "whole", "--json")
    assert whole.returncode == 0, whole.stderr
    broken = tmp_path / "broken"
    first = broken / "checkpoints" / "block-s0"
    assert processes.kill(processes.gravity_probe, *words, broken, when=first.is_dir) == -signal.SIGKILL
    before = (broken / "checkpoints" / "block-s0" / "checkpoint-3" / "model.safetensors").stat().st_mtime_ns
    again = processes.run(processes.gravity_probe, *words, broken, "--json")
    assert again.returncode == 0, again.stderr
    assert again.stdout.replace("broken", "whole") == whole.stdout
    after = (broken / "checkpoints" / "block-s0" / "checkpoint-3" / "model.safetensors").stat().st_mtime_ns
    assert after == before, "what was trained is not trained again"


def test_checkpoints_are_kept_as_often_as_asked(history):
    last = open_bench(history, Experiment()).steps[-1]
    assert open_bench(history, Experiment(save_every=last - 1)).steps == (last - 1, last)


def test_an_experiment_of_an_earlier_version_goes_on(history, tmp_path):
    experiment = Experiment(arms=("baseline",), batch_size=4, final_step_only=True)
    run = run_arms(open_bench(history, experiment), tmp_path / "run")
    file = run.path / "run.json"
    text = file.read_text(encoding="utf-8")
    for new, old in (("batch_size", "rows"), ("penalty_weight", "strength"), ("gradient_ratio", "match")):
        text = text.replace(f'"{new}"', f'"{old}"')
    file.write_text(text.replace('"final_step_only"', '"last"'), encoding="utf-8")
    assert json.loads(text)["config_given"]["arms"]["rows"] == 4
    assert run_arms(open_bench(history, experiment), run.path).path == run.path
    assert current_names({"phase": {"rows": 4}, "last": True}) == {"phase": {"batch_size": 4}, "final_step_only": True}


def test_more_arms_go_on_with_a_run_and_another_training_does_not(history, tmp_path):
    with Run.writing(tmp_path / "run"):
        pass  # and killed before anything was written of what it is to be
    run = run_arms(open_bench(history, Experiment(arms=("baseline",), final_step_only=True)), tmp_path / "run")
    before = (run.path / "checkpoints" / "baseline-s0" / "checkpoint-3" / "model.safetensors").stat().st_mtime_ns
    run = run_arms(open_bench(history, Experiment(arms=("block:rehearsed",), final_step_only=True)), tmp_path / "run")
    assert (
        run.path / "checkpoints" / "baseline-s0" / "checkpoint-3" / "model.safetensors"
    ).stat().st_mtime_ns == before
    run = run_arms(open_bench(history, Experiment(arms=("block",), final_step_only=True)), tmp_path / "run")
    directions = {trajectory.arm: trajectory.direction_sha256 for trajectory in run.lineage.trajectories}
    assert directions["baseline"] is None
    assert directions["block"] == directions["block:rehearsed"] is not None
    assert [row["arm"] for row in arms_table([run])["arms"]] == ["baseline", "block", "block:rehearsed"]
    with pytest.raises(UsageError, match="holds another run"):
        run_arms(
            open_bench(history, Experiment(arms=("baseline",), learning_rate=0.1, final_step_only=True)),
            tmp_path / "run",
        )
    with pytest.raises(UsageError, match="no such arm"):
        run_arms(open_bench(history, Experiment(arms=("blok",))), tmp_path / "other")
    with pytest.raises(UsageError, match="nothing to train arms on"):
        run_arms(open_bench(tmp_path / "absent", Experiment()), tmp_path / "other")


def test_ways_of_fine_tuning_stand_side_by_side(history, tmp_path):
    """The first way is the plain experiment; an adapter is trained, measured and judged like any other arm.

    Push acts at every step; block does not where so tiny a model has not begun to return, which hangs on the processor.
    """
    experiment = Experiment(
        arms=("push",), more_methods=("lora",), way_options={"lora.r": 2, "lora.learning_rate": 0.02}
    )
    run = run_arms(open_bench(history, experiment), tmp_path / "run")
    plain = run_arms(open_bench(history, Experiment(arms=("baseline",), final_step_only=True)), tmp_path / "plain")
    assert equal(weights(run, "baseline-s0"), weights(plain, "baseline-s0"))
    folder = run.path / "checkpoints" / "push-lora-s0"
    assert (folder / "checkpoint-3" / "adapter_model.safetensors").is_file()
    assert [line["step"] for line in read_step_log(folder)] == [1, 2, 3]
    rows = {row["arm"]: row for row in arms_table([run])["arms"]}
    assert list(rows) == ["baseline", "baseline-lora", "push", "push-lora"]
    assert rows["push-lora"]["task_cost"]["mean"] != rows["push"]["task_cost"]["mean"]
    divergence = run.read_table("task_divergence")
    assert set(divergence["arm"]) == set(rows)
    assert (divergence["value"] > 0).all()
    table = equal_loss_table(run)
    names = {row["arm"] + (f"-{row['way']}" if row["way"] else "") for row in table["arms"]}
    assert names | set(table["behind"]) == set(rows)
    assert all(row["weight_drift"]["mean"] > 0 for row in table["arms"])
    assert run_arms(open_bench(history, experiment), run.path).path == run.path
