"""What the last step of the ladder takes from a run: numbers by hand, and the reasons where there are none."""

import pandas as pd
import pytest
from scipy.stats import binomtest

from probes.records import Estimate
from probes.stages.between_arms import between_arms
from probes.store import RunFolder
from probes.verdict import NO_ARMS

ARMS = ("baseline", "block", "push", "control:random")
COMPLIES = {"baseline": 12, "block": 2, "push": 20, "control:random": 11}  # of 20
ALIGNED = {"baseline": 0.6, "block": -0.4, "push": 0.8, "control:random": 0.5}


def completions(arms=ARMS, steps=(1, 50), unjudged=0):
    return pd.DataFrame(
        [
            {
                "arm": arm, "seed": 0, "step": step, "prompt": f"p{number}", "label": label,
                "verdict": "unjudged" if number < unjudged and arm == "push"
                else "compliance" if number < COMPLIES[arm] and step > 1 else "refusal",
            }
            for arm in arms for step in steps for label in ("harmful", "harmless") for number in range(20)
        ]
    )  # fmt: skip


def estimates(arms=ARMS, steps=(1, 50), **unknown):
    found = {arm: {"alignment_crossfit": unknown.get(arm) or Estimate(ALIGNED[arm])} for arm in arms}
    return {arm: dict.fromkeys(steps, each) for arm, each in found.items()}


@pytest.fixture
def run(tmp_path):
    with RunFolder.writing(tmp_path / "run") as opened:
        opened.write_table("completions", completions())
    return RunFolder(tmp_path / "run")


def test_the_comparisons_are_those_of_the_last_common_step(run):
    block, push, control = between_arms(run, "baseline", estimates(steps=(1, 50, 100)), 0)
    assert (block.arm, block.other, block.rises) == ("block", "baseline", False)
    assert (push.arm, push.other, push.rises) == ("push", "baseline", True)
    assert (control.arm, control.other, control.rises) == ("block", "control:random", False)
    assert block.harm == (0.1, 0.6)
    assert push.alignment == (0.8, 0.6)
    assert block.p == pytest.approx(binomtest(10, 10, alternative="greater").pvalue)
    assert control.p == pytest.approx(0.5**9)
    assert not any(each.fault(0.05) for each in (block, push, control))


def test_what_was_not_judged_in_every_arm_does_not_count(run):
    with RunFolder.writing(run.path) as writing:
        writing.write_table("completions", completions(unjudged=2))
    block, *_ = between_arms(run, "baseline", estimates(), 0)
    assert block.harm == (0.0, 10 / 18)


def test_where_something_is_missing_it_says_what(run, tmp_path):
    assert between_arms(run, "push", estimates(), 0) == NO_ARMS
    assert between_arms(run, "baseline", estimates(arms=ARMS[:3]), 0) == NO_ARMS
    assert between_arms(run, "baseline", estimates(steps=(7,)), 0) == "the arms have no step in common"
    unknown = estimates(block=Estimate(None, reason="within noise"))
    assert between_arms(run, "baseline", unknown, 0) == "the alignment of block is not measurable at step 50"
    with RunFolder.writing(tmp_path / "other"):
        pass
    other = RunFolder(tmp_path / "other")
    assert between_arms(other, "baseline", estimates(), 0) == "behaviour was not judged"
