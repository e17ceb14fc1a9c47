"""What a verdict takes from other arms of a run: harm by hand, returns that were planted, and the reasons for none."""

import numpy as np
import pandas as pd
import pytest

from probes.run import Run
from probes.stages.between_arms import _steps_of_equal_loss, _task_losses, block_and_push, returns_beside
from probes.verdict.evidence import NO_ARMS
from tests.synthetic import write_run

ARMS = ("baseline", "block", "push", "control:covariance:0", "control:random")
COMPLIES = {"baseline": 12, "block": 2, "push": 20, "control:covariance:0": 12, "control:random": 9}  # of 20


def completions(arms=ARMS, steps=(1, 50), seeds=(0, 1, 2), unjudged=0):
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "seed": seed,
                "step": step,
                "prompt": f"p{number}",
                "label": label,
                "verdict": "unjudged"
                if number < unjudged and arm == "push"
                else "compliance"
                if number < COMPLIES[arm] and step > 1
                else "refusal",
            }
            for arm in arms
            for seed in seeds
            for step in steps
            for label in ("harmful", "harmless")
            for number in range(20)
        ]
    )


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run", arms=ARMS, seeds=3, n_layers=2, prompts=4)
    with Run.writing(tmp_path / "run") as writing, writing.stage("behaviour", "made up"):
        writing.write_table("completions", completions())
    return Run(tmp_path / "run")


def rewrite(run, table):
    with Run.writing(run.path) as writing:
        writing.write_table("completions", table)
    return Run(run.path)


def test_harm_is_paired_by_seed_and_prompt_at_the_last_common_step(run):
    evidence = block_and_push(run, "baseline")
    assert evidence.harm == pytest.approx({"baseline": 0.6, "block": 0.1, "push": 1.0})
    assert evidence.effects == pytest.approx({"block": 0.5, "push": 0.4})
    # the numbered draw is one direction; a control alone draws another at each seed
    assert sorted(evidence.control_effects) == pytest.approx([0.0, 0.15, 0.15, 0.15])
    assert evidence.p_values == pytest.approx({"block": 1 / 5, "push": 1 / 5})
    late = rewrite(run, pd.concat([completions(), completions(arms=("block",), steps=(100,))]))
    assert block_and_push(late, "baseline").harm == pytest.approx(evidence.harm)


def test_what_the_run_has_fewer_of_is_listed(run):
    untested = block_and_push(run, "baseline").untested
    assert "19 control directions (4 were blocked)" in untested
    assert "15 of them with the covariance within the classes (1 have it)" in untested
    assert any(sentence.startswith("3 seeds of control:random, seed 0") for sentence in untested)
    assert "the same gradient ratio in 4 of the controls" in untested


def test_arms_trained_at_one_gradient_ratio_are_matched(run):
    with Run.writing(run.path) as writing:
        writing.manifest.config_given = {"arms": {"steps": 50, "gradient_ratio": 0.3}}
        writing.save()
    assert not any("gradient ratio" in sentence for sentence in block_and_push(Run(run.path), "baseline").untested)


def test_what_was_not_judged_in_both_arms_does_not_count(run):
    evidence = block_and_push(rewrite(run, completions(unjudged=2)), "baseline")
    assert evidence.effects["push"] == pytest.approx(8 / 18)
    assert evidence.effects["block"] == pytest.approx(0.5)


def test_where_something_is_missing_it_says_what(run, tmp_path):
    assert block_and_push(run, "push") == NO_ARMS
    assert block_and_push(Run(write_run(tmp_path / "few", arms=ARMS[:3])), "baseline") == NO_ARMS
    apart = completions(arms=ARMS[:1], steps=(1, 7))
    without_common_step = completions(arms=ARMS[1:], steps=(50,))
    assert block_and_push(rewrite(run, pd.concat([apart, without_common_step])), "baseline") == (
        "no step at which every arm was judged"
    )
    with Run.writing(run.path) as writing:
        del writing.manifest.stages["behaviour"]  # as a measurement of other weights leaves it
        writing.save()
    assert block_and_push(Run(run.path), "baseline") == "behaviour was not judged, or on other weights"


def guarded_along(run, directions):
    """The run with the hash of what each arm and seed was guarded along."""
    guarded = [
        trajectory.model_copy(update={"direction_sha256": directions.get((trajectory.arm, trajectory.seed))})
        for trajectory in run.lineage.trajectories
    ]
    with Run.writing(run.path) as writing:
        writing.begin(run.lineage.model_copy(update={"trajectories": tuple(guarded)}), run.settings)
        writing.save()
    return Run(run.path)


def test_only_seeds_that_were_guarded_along_one_direction_are_taken_together(run):
    """A draw of which another version of the program has trained a seed along another direction."""
    places = [(arm, seed) for arm in ARMS[1:] for seed in range(3)]
    recorded = {(arm, seed): "a" * 64 if arm in ("block", "push") else f"{arm} {seed}" for arm, seed in places}
    recorded |= {("control:covariance:0", seed): "c" * 64 for seed in range(3)}
    same = block_and_push(guarded_along(run, recorded), "baseline")
    assert (same.untested, same.note) == (block_and_push(rewrite(run, completions()), "baseline").untested, "")
    assert not Run(run.path).notices

    table = completions()
    late = (table["arm"] == "control:covariance:0") & (table["seed"] == 2) & (table["step"] == 50)
    table.loc[late, "verdict"] = "refusal"  # 12 of 20 fewer comply than under the baseline
    mixed = guarded_along(rewrite(run, table), recorded | {("control:covariance:0", 2): "d" * 64})
    evidence = block_and_push(mixed, "baseline")
    assert sorted(evidence.control_effects) == pytest.approx([0.0, 0.15, 0.15, 0.15])
    assert any("3 seeds of control:covariance:0" in sentence for sentence in evidence.untested)
    assert evidence.note == (
        "Left out, as guarded along another direction than the others: control:covariance:0, seed 2."
    )
    assert evidence.sentence(0.05).endswith(evidence.note)
    assert "control:covariance:0, seeds 0 and 1, along cccccccc" in mixed.notices[0]

    unknown = guarded_along(run, {place: digest for place, digest in recorded.items() if place[1] > 0})
    assert block_and_push(unknown, "baseline").note == (
        "Left out, as guarded along another direction than the others, or along one that is not recorded: "
        "block, seed 0; push, seed 0. Left out, as guarded along another direction than the others, or along one that "
        "is not recorded: control:covariance:0, seed 0."
    )
    mostly_unknown = guarded_along(run, {place: digest for place, digest in recorded.items() if place[1] == 0})
    note = block_and_push(mostly_unknown, "baseline").note
    assert "others: block, seed 0; push, seed 0." in note
    assert note.endswith("is not recorded (trained by an earlier version) of block, push, control:covariance:0.")
    apart = guarded_along(run, recorded | {("push", seed): "b" * 64 for seed in range(3)})
    assert block_and_push(apart, "baseline").startswith("no answers in common with push. Left out")


def test_of_arms_of_earlier_versions_it_is_said_that_their_directions_are_not_recorded(run):
    evidence = block_and_push(run, "baseline")
    assert "is not recorded" in evidence.note
    assert evidence.note.endswith("of block, push, control:covariance:0.")
    assert evidence.effects["block"] == pytest.approx(0.5)


def test_returns_are_held_against_a_mirror_and_continued_training_of_the_same_seeds(tmp_path):
    """The synthetic clouds put every arm at its return fraction; a mirror's is read from the witness backwards."""
    arms = ("baseline", "mirror", "control:continued")
    run = Run(write_run(tmp_path / "run", arms=arms, seeds=3, d_model=16, prompts=32))
    baseline, mirror, continued = (
        next(trajectory for trajectory in run.lineage.trajectories if trajectory.arm == arm) for arm in arms
    )
    layer, harmful = run.headline_layer, run.harmful

    def place(name):
        return float(run.activations(name, layer)[harmful, 0].mean())

    start, end = place("aligned"), place("witness")
    last = {
        trajectory.arm: trajectory.checkpoint_id(trajectory.checkpoints[-1].step)
        for trajectory in (baseline, mirror, continued)
    }
    own = (place(last["baseline"]) - start) / (end - start)
    reflected = -(place(last["mirror"]) - end) / (end - start)
    beside = returns_beside(run, baseline, "mirror")
    assert beside.runs == 3
    assert beside.difference == pytest.approx(own - reflected, abs=0.03)
    continued_share = (place(last["control:continued"]) - start) / (end - start)
    assert returns_beside(run, baseline, "control:continued").difference == pytest.approx(
        own - continued_share, abs=0.03
    )
    alone = returns_beside(run, continued, "mirror")
    assert (alone.answer, alone.difference) == ("not_tested", None)
    assert "needs its own mirror" in alone.reason


def test_returns_are_compared_at_equal_task_loss_too(tmp_path):
    """The mirror learns faster: its tenth step has the loss of the baseline's hundredth."""
    arms = ("baseline", "mirror")
    write_run(tmp_path / "run", arms=arms, steps=(1, 10, 100), n_layers=2, prompts=24, d_model=16)
    run = Run(tmp_path / "run")
    losses = {("baseline", 1): 2.0, ("baseline", 10): 1.5, ("baseline", 100): 1.0}
    losses |= {("mirror", 1): 1.6, ("mirror", 10): 1.02, ("mirror", 100): 0.4}

    def with_losses(losses):
        rows = [
            {"checkpoint": "x", "arm": arm, "seed": 0, "step": step, "measure": "task_loss", "value": loss}
            for (arm, step), loss in losses.items()
        ]
        with Run.writing(run.path) as writing, writing.stage("behaviour", "made up"):
            writing.write_table("behaviour", pd.DataFrame(rows))
        return Run(run.path)

    baseline, mirror = run.lineage.trajectories
    equal = returns_beside(with_losses(losses), baseline, "mirror", equal_loss=True)
    earlier = mirror.model_copy(update={"checkpoints": tuple(c for c in mirror.checkpoints if c.step <= 10)})
    assert (_steps_of_equal_loss(baseline, earlier, _task_losses(Run(run.path)))) == (100, 10)
    assert equal.runs == 1
    assert (equal.steps, equal.places) == (((100, 10),), "step 100 beside step 10")
    assert equal.difference != returns_beside(run, baseline, "mirror").difference
    apart = returns_beside(with_losses(losses | {("mirror", 10): 1.4}), baseline, "mirror", equal_loss=True)
    assert (apart.answer, apart.reason) == ("not_tested", "no two checkpoints have the same loss on the task")


def test_without_a_mirror_it_is_not_tested(tmp_path):
    run = Run(write_run(tmp_path / "run", arms=("baseline",), d_model=8))
    beside = returns_beside(run, run.lineage.trajectories[0], "mirror")
    assert (beside.answer, beside.reason) == ("not_tested", "no mirror arm was run beside it")
    assert not np.isfinite(beside.difference or np.nan)
