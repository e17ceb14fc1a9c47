"""Where an arm changed the model: motion off the guarded layers, a frozen probe, and thirds of the update."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console

from probes.activations import collect
from probes.directions.refusal import read_as_harmful
from probes.experiments.experiment import Experiment
from probes.experiments.lineage_bench import open_bench
from probes.experiments.outcome import arms_table
from probes.experiments.where_changed import THIRD_MEASURES, describe_change
from probes.models.weight_space import merged_weights, with_weights
from probes.organism import train_history
from probes.progress import silent
from probes.run import Run
from probes.stages.changes import last_members, write_changes
from probes.stages.thirds import mix, third_of, thirds_stage, write_thirds
from probes.tasks.arms import run_arms
from probes.terminal.show_arms import change_markdown, change_tables, experiment_markdown
from tests.test_trained_controls import RECIPE


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    history = tmp_path_factory.mktemp("history")
    train_history(history, RECIPE)
    experiment = Experiment(
        arms=("mirror",),
        layers=(1,),
        final_step_only=True,
        by_third=True,
        learning_rate=0.01,
    )
    return open_bench(history, experiment)


@pytest.fixture(scope="module")
def run(bench, tmp_path_factory):
    return run_arms(bench, tmp_path_factory.mktemp("arms") / "run")


def rows_by_arm(run):
    return {row["arm"]: row for row in arms_table([run])["arms"]}


def test_motion_is_told_apart_by_what_the_guard_looks_at(run):
    v = {layer: run.direction("reversion").at(layer)[1] for layer in (0, 1)}
    for arm, row in rows_by_arm(run).items():
        name, start = f"{arm}-s0-000003", "witness" if arm == "mirror" else "aligned"
        by_layer = {}
        for layer in (0, 1):
            moved = run.activations(name, layer)[run.harmful] - run.activations(start, layer)[run.harmful]
            by_layer[layer] = np.linalg.norm(moved.mean(axis=0, dtype=np.float64)) / v[layer]
        assert row["motion_guarded"]["mean"] == pytest.approx(by_layer[1], rel=1e-4)
        assert row["motion_unguarded"]["mean"] == pytest.approx(by_layer[0], rel=1e-4)
    guarded = run.read_table("changes").set_index("checkpoint")["guarded"]
    assert guarded["baseline-s0-000003"] == "1"


def test_the_frozen_probe_by_hand():
    rng = np.random.default_rng(0)
    harmful, fold = np.repeat([True, False], 40), np.tile([True, False], 40)
    aligned = rng.standard_normal((80, 5)) + 8.0 * harmful[:, None]
    assert read_as_harmful(aligned, aligned, harmful, fold) == (1.0, 0.0)
    shifted = aligned - 8.0
    assert read_as_harmful(shifted, aligned, harmful, fold) == (0.0, 0.0), "the order is the same, the side is not"
    half = np.where((np.arange(80) % 4 < 2)[:, None], aligned, aligned - 8.0)
    assert read_as_harmful(half, aligned, harmful, fold) == (0.5, 0.0)
    assert np.isnan(read_as_harmful(aligned, aligned, harmful, harmful)).all()


def test_what_a_fall_of_refusals_goes_with():
    before = {"refusal_harmful": 0.9, "probe_harmful": 1.0, "probe_harmless": 0.1}

    def description_of(refusal, probe):
        return describe_change(before, {"refusal_harmful": refusal, "probe_harmful": probe})

    assert description_of(0.85, 0.2) == "held"
    assert description_of(0.1, 0.95) == "read-out"
    assert description_of(0.1, 0.2) == "representation"
    assert description_of(0.1, 0.6) == "both"
    assert description_of(0.1, None) is None
    blind = {**before, "probe_harmless": 0.6}
    assert describe_change(blind, {"refusal_harmful": 0.1, "probe_harmful": 0.1}) is None
    assert describe_change({}, {"refusal_harmful": 0.1, "probe_harmful": 0.1}) is None


@pytest.mark.parametrize(
    ("tensor", "third"),
    [
        ("model.embed_tokens.weight", "first"),
        ("model.layers.0.mlp.up_proj.weight", "first"),
        ("model.layers.1.input_layernorm.weight", "first"),
        ("model.layers.2.mlp.up_proj.weight", "middle"),
        ("model.layers.3.mlp.up_proj.weight", "last"),
        ("model.norm.weight", "last"),
        ("lm_head.weight", "last"),
    ],
)
def test_every_tensor_has_its_third_of_four_blocks(tensor, third):
    assert third_of(tensor, 4) == third


def test_thirds_are_read_with_the_weights_that_they_name(run):
    """Of two blocks the middle third is the last block: keeping it alone leaves all below as the aligned model's."""
    member = next(member for member in last_members(run) if member.arm == "baseline")
    host = run.model()
    start, end = (merged_weights(host, ref) for ref in (run.lineage.aligned, member.ref))
    weights = mix(start, end, run.n_layers, "middle", drop=False)
    changed = {name for name in start if not torch.equal(weights[name], start[name])}
    assert changed
    assert all(".layers.1." in name for name in changed)
    dropped = mix(start, end, run.n_layers, "middle", drop=True)
    assert all(torch.equal(dropped[name], start[name] if name in changed else end[name]) for name in start)
    host.put(host.aligned)
    before = {name: tensor.clone() for name, tensor in host.model.state_dict().items()}
    tokens = [run.rendered.token_ids[place] for place in np.flatnonzero(run.harmful)]
    with with_weights(host, weights):
        rows = collect(host, tokens)[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in host.model.state_dict().items())
    np.testing.assert_allclose(rows[0], run.activations("aligned", 0)[run.harmful], atol=1e-5)
    table = run.read_table(thirds_stage(member.id)).set_index(["kept", "third"])
    unit, norm = run.direction("reversion").at(run.headline_layer)
    start_mean = run.activations("aligned", run.headline_layer)[run.harmful].mean(axis=0, dtype=np.float64)
    for third in ("first", "middle"):
        with with_weights(host, mix(start, end, run.n_layers, third, drop=False)):
            mean = collect(host, tokens)[0][run.headline_layer].mean(axis=0, dtype=np.float64)
        expected = float((mean - start_mean) @ unit) / norm
        assert table.loc[("keep", third), "return_fraction"] == pytest.approx(expected, abs=1e-6)
    assert abs(table.loc[("keep", "first"), "return_fraction"]) > 1e-4
    questions = run.read_table("completions", filters=[("checkpoint", "==", "aligned"), ("label", "==", "harmful")])
    assert set(table["n"]) == {len(questions)}


def test_thirds_are_read_anew_along_another_way_back(run, bench, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    with Run.writing(tmp_path / "run") as writing:
        stages = writing.manifest.stages
        members = [member for member in last_members(writing) if member.arm == "baseline"]
        name = thirds_stage(members[0].id)
        origins = [stages[name].made_from]
        for witness in (stages["activations/witness"].made_from, "of another witness"):
            stages["activations/witness"].made_from = witness
            write_thirds(writing, writing.model(), members, bench.evaluation, silent)
            origins.append(stages[name].made_from)
    assert origins[0] == origins[1] != origins[2]


def test_the_tables_of_arms_say_where_the_model_changed(run):
    outcome = arms_table([run])
    row = outcome["arms"][0]
    assert all(row[name]["mean"] is not None for name in THIRD_MEASURES)
    assert rows_by_arm(run)["mirror"]["changed"] is None
    assert [part.count("| keep first |") for part in change_markdown(outcome)] == [0, 1]
    outcome["arms"][0]["arm"] = "control:covariance-adalora"
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(*change_tables(outcome))
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_no_baseline_is_held_against_itself(run):
    outcome = arms_table([run])
    outcome["arms"].append({**outcome["arms"][0], "arm": "baseline-lora"})
    rows = [line.strip("| ").split(" | ") for line in experiment_markdown(outcome).splitlines()[2:5]]
    changes = {row[0]: row[-1] for row in rows}
    assert (changes["baseline"], changes["baseline-lora"]) == ("–", "–")
    assert "to" in changes["mirror"]


def test_a_run_of_an_earlier_version_has_no_such_columns(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "changes.parquet").unlink()
    row = rows_by_arm(Run(tmp_path / "run"))["baseline"]
    assert (row["motion_guarded"]["mean"], row["changed"]) == (None, None)
    assert change_tables(arms_table([Run(tmp_path / "run")])) == []
    with Run.writing(tmp_path / "run") as writing:
        write_changes(writing, writing.headline_layer, {})
    assert rows_by_arm(Run(tmp_path / "run"))["baseline"]["motion_guarded"]["mean"] is None
