"""The documented JSON of a run."""

import json

import pytest

from probes.errors import RunFolderError
from probes.run import Run
from probes.tasks.summarise import summarise
from tests.synthetic import STEPS, write_run


@pytest.fixture
def run(tmp_path):
    return Run(write_run(tmp_path / "run"))


def drift_value(run, arm, step, layer, statistic):
    frame = run.read_table("drift")
    mask = (frame.arm == arm) & (frame.step == step) & (frame.layer == layer) & (frame.statistic == statistic)
    return frame.loc[mask, "value"].item()


def test_the_json_has_the_documented_keys_and_the_tables_numbers(run):
    document = json.loads(summarise(run).model_dump_json())
    keys = {"format_version", "lineage", "witness", "not_defined", "headline_layer", "headline_rule", "trajectories"}
    assert set(document) == keys
    assert (document["witness"], document["not_defined"]) == ("witness", {})
    first = document["trajectories"][0]
    assert set(first) == {"arm", "seed", "safety", "checkpoints"}
    assert [point["step"] for point in first["checkpoints"]] == list(STEPS)
    checkpoint = first["checkpoints"][3]
    assert set(checkpoint) == {"step", "weight_drift", "layers", "behaviour"}
    assert set(checkpoint["behaviour"]) == {
        "refusal_harmful",
        "refusal_harmless",
        "task_loss",
        "harmful_compliance",
        "over_refusal",
        "incoherent",
        "unjudged",
        "refusal_score_harmful",
        "refusal_score_harmless",
        "corrected_refusal_harmful",
        "corrected_harmful_compliance",
        "corrected_refusal_harmless",
        "corrected_over_refusal",
    }
    layer = checkpoint["layers"][2]
    assert set(layer) == {
        "layer",
        "alignment",
        "alignment_crossfit",
        "return_fraction",
        "off_axis",
        "did_alignment",
        "did_return_fraction",
        "displacement_norm",
        "share_moved",
        "nulls",
        "probe",
    }
    assert layer["layer"] == 2
    assert layer["alignment"] == drift_value(run, "baseline", 10, 2, "alignment")
    assert set(layer["nulls"]["sham_drift"]) == {"limit", "draws", "p"}


def test_layers_are_blocks_from_zero_and_the_embedding_is_left_out(run):
    layers = summarise(run).trajectories[0].checkpoints[0].layers
    assert [row.layer for row in layers] == [0, 1, 2, 3]


def test_what_was_not_measured_is_null(tmp_path):
    run = Run(write_run(tmp_path / "run", without=("nulls", "behaviour")))
    checkpoint = summarise(run).trajectories[0].checkpoints[0]
    assert checkpoint.behaviour.refusal_harmful is None
    assert checkpoint.layers[0].nulls == {}


def test_an_undefined_statistic_is_null_and_never_zero(run):
    with Run.writing(run.path) as writing:
        frame = writing.read_table("drift")
        frame.loc[frame.statistic == "did_alignment", "value"] = None
        writing.write_table("drift", frame)
    assert summarise(run).trajectories[0].checkpoints[0].layers[0].did_alignment is None


def test_a_run_without_drift_says_that_it_is_unfinished(tmp_path):
    run = Run(write_run(tmp_path / "run", without=("drift",)))
    with pytest.raises(RunFolderError, match="goes on where it stopped"):
        summarise(run)
