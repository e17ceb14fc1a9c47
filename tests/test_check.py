"""The gate on a run: what trips it, what passes, and the record it leaves."""

import json

import numpy as np
import pytest

from probes.errors import GateTripped, UsageError
from probes.run import Run
from probes.tasks.check import check_return, return_gate
from tests.synthetic import ARMS, STEPS, write_run


@pytest.fixture
def run(tmp_path):
    return Run(write_run(tmp_path / "run"))


def drift_value(run, arm, step, layer, statistic):
    frame = run.drift(arm, statistic, layer=layer)
    return frame.loc[frame["step"] == step, "value"].item()


def change(run, rows, value):
    """Write `value` into the rows of the drift table that a mask of it selects."""
    with Run.writing(run.path) as writing:
        frame = writing.read_table("drift")
        frame.loc[rows(frame), "value"] = value
        writing.write_table("drift", frame)


def test_the_gate_names_the_furthest_fall(run):
    furthest = max(drift_value(run, "push", step, 2, "return_fraction") for step in STEPS)
    with pytest.raises(GateTripped, match="push") as caught:
        check_return(run, 0.1, layer=2)
    assert f"{furthest:.3f}" in str(caught.value)
    assert caught.value.exit_code == 3
    assert "Within" in check_return(run, furthest + 1e-6, layer=2)


def test_the_gate_passes_at_exactly_the_limit_and_trips_just_under_it(run):
    furthest = max(drift_value(run, "push", step, 2, "return_fraction") for step in STEPS)
    check_return(run, furthest, layer=2)
    with pytest.raises(GateTripped):
        check_return(run, furthest - 1e-9, layer=2)


def test_a_layer_that_is_not_there_is_a_usage_error(run):
    with pytest.raises(UsageError, match="No such layer"):
        check_return(run, 0.5, layer=99)


def test_a_gate_on_nothing_measurable_does_not_pass(run):
    change(run, lambda frame: frame["statistic"] == "return_fraction", None)
    with pytest.raises(GateTripped, match="not defined"):
        check_return(run, 10.0)
    gate = return_gate(run, 10.0)
    assert (gate.passed, gate.furthest, gate.furthest_at, len(gate.unmeasured)) == (
        False,
        None,
        None,
        len(ARMS) * len(STEPS),
    )


def block_at_20(frame):
    return (
        (frame["checkpoint"] == "block-s0-000020") & (frame["layer"] == 2) & (frame["statistic"] == "return_fraction")
    )


@pytest.mark.parametrize(("value", "word"), [(None, "not defined"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_one_checkpoint_without_a_finite_fraction_trips_the_gate_and_is_named(run, value, word):
    assert "Within" in check_return(run, 10.0, layer=2)
    change(run, block_at_20, value)
    with pytest.raises(GateTripped, match=rf"block \(seed 0\) at step 20.*{word}"):
        check_return(run, 10.0, layer=2)
    assert "Within" in check_return(run, 10.0, layer=1)


def test_a_checkpoint_that_was_never_measured_trips_the_gate_and_is_named(run):
    with Run.writing(run.path) as writing:
        frame = writing.read_table("drift")
        writing.write_table("drift", frame[~block_at_20(frame)])
    with pytest.raises(GateTripped, match=r"block \(seed 0\) at step 20.*was not measured"):
        check_return(run, 10.0, layer=2)


def test_a_tripped_gate_names_the_furthest_fall_and_the_first_gap(run):
    change(run, block_at_20, None)
    with pytest.raises(GateTripped, match=r"push .*more than 0.1; block .*not defined"):
        check_return(run, 0.1, layer=2)


@pytest.mark.parametrize(("step", "trips"), [(0, False), (1, True)])
def test_the_aligned_model_itself_at_step_0_has_nothing_to_measure(tmp_path, step, trips):
    run = Run(write_run(tmp_path / "run", arms=("baseline",), steps=(step, 100)))
    with Run.writing(run.path) as writing:
        frame = writing.read_table("drift")
        frame["reason"] = frame["reason"].astype("string")
        rows = (frame["arm"] == "baseline") & (frame["step"] == step)
        frame.loc[rows, "value"], frame.loc[rows, "reason"] = None, "the checkpoint equals the aligned model"
        writing.write_table("drift", frame)
    assert return_gate(run, 10.0).passed is not trips


@pytest.mark.parametrize("threshold", [np.nan, np.inf, -np.inf])
def test_a_threshold_that_is_no_finite_number_is_refused(run, threshold):
    with pytest.raises(UsageError, match="no finite number"):
        check_return(run, threshold)


def test_the_record_says_whether_it_passed_how_far_and_where(run):
    furthest = max(drift_value(run, "push", step, 2, "return_fraction") for step in STEPS)
    document = json.loads(return_gate(run, 0.1, layer=2).model_dump_json(by_alias=True))
    assert set(document) == {"passed", "max_return", "layer", "furthest", "where", "unmeasured", "witness"}
    assert (document["passed"], document["furthest"], document["unmeasured"]) == (False, furthest, {})
    assert document["where"]["arm"] == "push"
    assert drift_value(run, "push", document["where"]["step"], 2, "return_fraction") == furthest
