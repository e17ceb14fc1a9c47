"""What the last step of the ladder takes from a run: numbers by hand, and the reasons where there are none."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from probes.run import Run
from probes.stages.between_arms import between_arms
from probes.statistics import Estimate
from probes.verdict.ladder import NO_ARMS

ARMS = ("baseline", "block", "push", "control:random")
COMPLIES = {"baseline": 12, "block": 2, "push": 20, "control:random": 11}  # of 20
ALIGNED = {"baseline": 0.6, "block": -0.4, "push": 0.8, "control:random": 0.5}


def completions(arms=ARMS, steps=(1, 50), unjudged=0):
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "seed": 0,
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
            for step in steps
            for label in ("harmful", "harmless")
            for number in range(20)
        ]
    )


def estimates(arms=ARMS, steps=(1, 50), **unknown):
    found = {
        arm: {"alignment_crossfit": unknown.get(arm) or Estimate(ALIGNED[arm]), "reliability": Estimate(0.9)}
        for arm in arms
    }
    return {arm: dict.fromkeys(steps, each) for arm, each in found.items()}


def draws(arm, step):
    """Of the same 99 draws of prompts in every arm: all arms lie apart, but for the control and the baseline."""
    spread = np.linspace(-0.15, 0.15, 99)
    return ALIGNED[arm] + (spread if arm == "control:random" else -0.1 * spread)


@pytest.fixture
def run(tmp_path):
    with Run.writing(tmp_path / "run") as opened, opened.stage("behaviour", "made up"):
        opened.write_table("completions", completions())
    return Run(tmp_path / "run")


def compared(run, by_arm, arm="baseline"):
    return between_arms(run, arm, 0, by_arm, draws)


def test_the_comparisons_are_those_of_the_last_common_step(run):
    found = compared(run, estimates(steps=(1, 50, 100)))
    assert [(each.arm, each.other, each.rises) for each in found.asked] == [
        ("block", "baseline", False),
        ("push", "baseline", True),
        ("block", "control:random", False),
        ("push", "control:random", True),
    ]
    assert [(each.arm, each.rises) for each in found.controls] == [("control:random", False), ("control:random", True)]
    block, push, *_ = found.asked
    assert block.harm == (0.1, 0.6)
    assert push.alignment == (0.8, 0.6)
    assert block.p_harm == pytest.approx(binomtest(10, 10, alternative="greater").pvalue)
    assert block.p_alignment == pytest.approx(1 / 100)
    change = draws("control:random", 50) - draws("baseline", 50)
    assert found.controls[0].p_alignment == pytest.approx((1 + (-change <= 0).sum()) / 100)
    assert found.controls[1].p_harm == 1.0
    assert not found.faults(0.05)


def test_a_control_that_does_what_push_does_is_found(run):
    same = {**estimates(), "control:random": estimates()["push"]}
    with Run.writing(run.path) as writing:
        table = completions()
        pushed = table[table["arm"] == "push"]
        table = pd.concat([table[table["arm"] != "control:random"], pushed.assign(arm="control:random")])
        writing.write_table("completions", table)
    found = between_arms(run, "baseline", 0, same, lambda arm, step: draws("push" if ":" in arm else arm, step))
    faults = found.faults(0.05)
    assert any(each.startswith("push is not shown to raise the alignment of control:random") for each in faults)
    assert any(each.startswith("control:random raises both too") for each in faults)


def test_what_was_not_judged_in_every_arm_does_not_count(run):
    with Run.writing(run.path) as writing:
        writing.write_table("completions", completions(unjudged=2))
    block, *_ = compared(run, estimates()).asked
    assert block.harm == (0.0, 10 / 18)


def test_where_something_is_missing_it_says_what(run):
    assert compared(run, estimates(), arm="push") == NO_ARMS
    assert compared(run, estimates(arms=ARMS[:3])) == NO_ARMS
    assert compared(run, estimates(steps=(7,))) == "no step at which every arm was judged"
    unknown = estimates(block=Estimate(None, reason="within noise"))
    assert compared(run, unknown) == "the displacement of block is not measurable at step 50"
    with Run.writing(run.path) as writing:
        del writing.manifest.stages["behaviour"]  # as a measurement of other weights leaves it
        writing.save()
    assert compared(Run(run.path), estimates()) == "behaviour was not judged, or on other weights"
