"""A lineage of tiny real checkpoints in, a run out: planted drift found, nothing done twice, kills survived."""

from __future__ import annotations

import io
import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from probes.behaviour.evaluation import Evaluation
from probes.directions.vectors import Vectors
from probes.errors import ActivationError, CheckpointError, GravityError, RunFolderError, UsageError
from probes.lineage import CheckpointRef, Lineage, Step, Trajectory, Witness
from probes.nulls import PROFILE, SPECIFICITY, TOWARDS_WITNESS
from probes.progress import silent
from probes.prompts import PromptSet
from probes.run import Run
from probes.stages.shams import write_shams
from probes.stages.weights import write_weights
from probes.store.manifest import StageRecord
from probes.store.settings import Settings
from probes.tasks.compare import compare
from probes.tasks.evaluate import evaluate
from probes.tasks.measure import judge, measure
from probes.tasks.summarise import summarise
from probes.terminal.show_run import comparison_tables
from probes.verdict.headline import RULES, choose_headline_layer
from tests import processes
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer
from tests.measured import measured_run

PROMPTS = PromptSet.of(
    [f"break lock {index:02d}" for index in range(16)] + [f"paint door {index:02d}" for index in range(16)],
    ["harmful"] * 16 + ["harmless"] * 16,
)
FAST = Settings(bootstraps=20, splits=4, draws=99, permutations=99, nulls=False)
WITH_NULLS = FAST.model_copy(update={"nulls": True})


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> Lineage:
    """Aligned, a witness some way off, and a run that goes a third, then two thirds of that way in the weights."""
    home = tmp_path_factory.mktemp("history")
    tokenizer = tiny_tokenizer()
    aligned = tiny_model()
    start = {name: tensor.clone() for name, tensor in aligned.state_dict().items()}
    save_checkpoint(home / "aligned", aligned, tokenizer)
    witness = move_weights(aligned, seed=1, scale=0.1)
    end = {name: tensor.clone() for name, tensor in witness.state_dict().items()}
    save_checkpoint(home / "witness", witness, tokenizer)
    for step, share in ((1, 1 / 3), (10, 2 / 3)):
        witness.load_state_dict({name: torch.lerp(start[name], end[name], share) for name in start})
        save_checkpoint(home / "out" / f"checkpoint-{step}", witness, tokenizer)
    return Lineage(
        name="planted",
        witness=Witness(model=str(home / "witness")),
        aligned=CheckpointRef(model=str(home / "aligned")),
        trajectories=(Trajectory.from_folder(home / "out"),),
    )


@pytest.fixture(scope="module")
def run(history, tmp_path_factory) -> Run:
    return measure(history, PROMPTS, tmp_path_factory.mktemp("runs") / "planted", settings=WITH_NULLS)


def with_checkpoint(history: Lineage, folder: Path) -> Lineage:
    run = Trajectory(checkpoints=(Step(step=1, model=str(folder)),))
    return history.model_copy(update={"trajectories": (run,)})


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a run but the manifest, whose times differ from run to run."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", ".lock")
    }


def test_a_checkpoint_on_the_way_to_the_witness_is_found_there(run):
    last = summarise(run).trajectories[0].checkpoints[-1]
    for layer in last.layers:
        assert layer.alignment is not None
        assert layer.alignment > 0.9
        assert layer.return_fraction == pytest.approx(2 / 3, abs=0.15)


def test_the_run_holds_what_its_design_promises(run):
    files = set(files_of(run.path))
    assert files >= {
        "prompts.parquet",
        "drift.parquet",
        "nulls.parquet",
        "shams.parquet",
        "projections.parquet",
        "verdict.json",
        "maps/plane.parquet",
        "directions/reversion.safetensors",
        "directions/reversion_did.safetensors",
        "activations/aligned.safetensors",
        "activations/witness.safetensors",
        "activations/baseline-s0-000001.safetensors",
        "activations/baseline-s0-000010.safetensors",
    }
    manifest = run.manifest
    assert manifest.status == "finished"
    assert manifest.config["headline_layer"] == 1
    assert len(manifest.checkpoints["aligned"]["weights_sha256"]) == 64
    assert manifest.prompts["harmful"] == 16
    assert set(manifest.packages) >= {"torch", "transformers", "transformer-lens"}


def test_projections_put_aligned_at_zero_and_witness_at_one(run):
    frame = run.read_table("projections")
    harmful = frame[frame["label"] == "harmful"].groupby(["checkpoint", "layer"])["projection"].mean()
    assert np.allclose(harmful["aligned"], 0, atol=1e-5)
    assert np.allclose(harmful["witness"], 1, atol=1e-5)


def test_the_plane_holds_the_return_fraction_and_the_off_axis_norm(run):
    plane = run.read_table("maps/plane").set_index(["checkpoint", "layer"])
    drift = run.read_table("drift").set_index(["checkpoint", "layer", "statistic"])["value"]
    for layer in range(3):
        place = plane.loc["baseline-s0-000010", layer]
        assert place["along"] == pytest.approx(drift["baseline-s0-000010", layer, "return_fraction"], abs=1e-5)
        # Two checkpoints span two off-axis directions, so the plane holds all of it.
        assert np.hypot(place["across"], place["third"]) == pytest.approx(
            drift["baseline-s0-000010", layer, "off_axis"], abs=1e-5
        )


def test_directions_are_unit_vectors_from_aligned_to_witness(run):
    vectors = Vectors.read(run.path / "directions" / "reversion.safetensors")
    harmful = PROMPTS.harmful
    gap = run.activations("witness", 2) - run.activations("aligned", 2)
    mean = gap[harmful].astype(np.float64).mean(axis=0)
    assert np.linalg.norm(vectors.direction, axis=1) == pytest.approx(1)
    assert vectors.raw[2] == pytest.approx(mean, abs=1e-4)
    assert vectors.about["orientation"] == "aligned towards witness"
    assert vectors.about["weights_sha256"] == run.manifest.checkpoints["aligned"]["weights_sha256"]


def test_every_checkpoint_and_layer_has_every_activation_level_null_and_the_last_one_its_shams(run):
    nulls = run.read_table("nulls")
    shams = {"sham_drift", "sham_witness", "sham_drift_weights"}
    names = set(nulls["null"])
    assert names == {*TOWARDS_WITNESS, *SPECIFICITY, *PROFILE}
    counts = nulls[~nulls["null"].isin(shams)].groupby(["checkpoint", "layer"])["null"].nunique()
    assert set(counts.index) == {
        (name, layer) for name in ("baseline-s0-000001", "baseline-s0-000010") for layer in range(3)
    }
    assert (counts == len(names - shams)).all()
    drawn = nulls[nulls["null"].isin(shams)]
    assert set(zip(drawn["checkpoint"], drawn["layer"], strict=True)) == {("baseline-s0-000010", 1)}
    assert nulls["p"].dropna().between(0, 1).all()
    judged = nulls[(nulls["checkpoint"] == "baseline-s0-000010") & (nulls["layer"] == 1)].set_index("null")
    decide = judged.loc[[*TOWARDS_WITNESS, *SPECIFICITY]]
    assert decide.loc[decide["p"].notna(), "power"].between(0, 1).all()
    corrected = nulls[nulls["p_max"].notna()]
    one_tie = 1 / 100  # scaling the layers can break one tie between a draw and the observed value
    assert (corrected["p_max"] >= corrected["p"] - one_tie).all()


def test_judging_behaviour_afterwards_writes_the_verdict_again(run, tmp_path):
    """Its last step hangs on behaviour; all else in it, made again from what is kept, is the same."""
    shutil.copytree(run.path, tmp_path / "run")
    before = run.read_json("verdict")
    Run(tmp_path / "run").path.joinpath("verdict.json").write_text(json.dumps({"trajectories": []}))
    prompts = PromptSet.of([f"mend roof {n}" for n in range(8)], ["harmful"] * 4 + ["harmless"] * 4)
    judged = evaluate(tmp_path / "run", Evaluation(prompts, max_new_tokens=2))
    assert judged.read_json("verdict") == before


def test_a_prompt_beyond_the_context_is_left_out_of_the_run_and_listed(history, tmp_path):
    long = PromptSet.of(["break " + "lock " * 40], ["harmful"]).prompts
    run = measure(history, PromptSet(long + PROMPTS.prompts), tmp_path / "run", settings=FAST)
    assert run.prompts.texts == PROMPTS.texts
    ((prompt, tokens),) = run.manifest.prompts["left_out"]
    assert (prompt, tokens > 64) == (long[0].id, True)
    assert len(run.activations("witness", 0)) == len(PROMPTS) == len(run.harmful)


def test_other_topics_are_another_run_of_the_same_prompts(history, tmp_path):
    """The hash of the texts stays, so what was read stays; the folds are made anew."""
    topics = [f"t{number % 8}" for number in range(16)] * 2
    measured = measure(history, PROMPTS, tmp_path / "run", settings=FAST)
    alone, keys = measured.fold.tolist(), measured.keys
    grouped = PromptSet.of(PROMPTS.texts, [prompt.label for prompt in PROMPTS.prompts], topics=topics)
    measured = measure(history, grouped, tmp_path / "run", settings=FAST)
    assert measured.fold.astype(int).tolist() == grouped.folds(0).tolist() != alone
    assert measured.groups.tolist() == topics
    assert measured.keys == keys


def test_behaviour_of_other_weights_no_longer_counts(history, tmp_path):
    """Trained again into the same folder and measured again: what was judged before was another model."""
    folder = tmp_path / "tuned"
    save_checkpoint(folder, move_weights(tiny_model(), seed=5, scale=0.05), tiny_tokenizer())
    again = with_checkpoint(history, folder)
    with Run.writing(measure(again, PROMPTS, tmp_path / "run", settings=FAST).path) as writing:
        writing.manifest.stages["behaviour"] = StageRecord(made_from="of these weights")
        writing.save()
    assert "behaviour" in measure(again, PROMPTS, tmp_path / "run", settings=FAST).manifest.stages
    save_checkpoint(folder, move_weights(tiny_model(), seed=6, scale=0.05), tiny_tokenizer())
    assert "behaviour" not in measure(again, PROMPTS, tmp_path / "run", settings=FAST).manifest.stages


def test_the_headline_is_chosen_from_aligned_and_witness_before_any_checkpoint_is_read(history, tmp_path):
    layers = range(3)
    run = measure(history, PROMPTS, tmp_path / "run", settings=FAST)
    chosen = run.read_json("headline")
    assert chosen["layer"] == run.headline_layer == run.manifest.config["headline_layer"]
    blocks = [(run.activations("aligned", layer), run.activations("witness", layer)) for layer in layers]
    again = choose_headline_layer(blocks, run.harmful, run.fold, seed=0)
    assert [again.layer, *again.d_prime.values()] == [chosen["layer"], *chosen["d_prime"]]
    assert chosen["rule"] == again.rule
    assert run.headline_rule == RULES[again.rule]
    stages = list(run.manifest.stages)
    first = min(stages.index(f"activations/{member.id}") for member in run.tuned)
    assert stages.index("headline") < first
    declared = measure(history, PROMPTS, tmp_path / "run", settings=FAST.model_copy(update={"headline_layer": 0}))
    assert declared.headline_layer == 0
    assert "headline" not in declared.manifest.stages
    assert declared.headline_rule is None
    with pytest.raises(UsageError, match="No such layer"):
        measure(history, PROMPTS, tmp_path / "run", settings=FAST.model_copy(update={"headline_layer": 9}))


def test_the_verdict_names_its_layer_and_its_null(run):
    verdict = run.read_json("verdict")
    (only,) = verdict["trajectories"]
    assert verdict["layer"] == 1
    assert only["level"] >= 2
    assert only["trajectory"]["steps"] == [1, 10]
    for line in (only, only["trajectory"]):
        assert line["low"] <= line["alignment"] <= line["high"]
    crossfit = run.drift(statistic="alignment_crossfit", layer=1).set_index("checkpoint")["value"]
    assert only["alignment"] == crossfit["baseline-s0-000010"], "the last checkpoint is judged"
    assert only["level_holm"] in (only["level"], 3)
    assert verdict["arms"][0]["words"] == "prompt-level only"


def test_measuring_again_does_nothing_and_changes_no_byte(run, history):
    before, times = files_of(run.path), {path: path.stat().st_mtime_ns for path in run.path.rglob("*.parquet")}
    measure(history, PROMPTS, run.path, settings=WITH_NULLS)
    assert files_of(run.path) == before
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*.parquet")} == times


def test_another_run_under_the_same_root_measures_nothing_again(run, history):
    second = measure(history, PROMPTS, run.path.parent / "again", settings=FAST)
    mine, theirs = run.activations_path("witness"), second.activations_path("witness")
    assert mine.stat().st_ino == theirs.stat().st_ino


def test_the_same_inputs_give_the_same_bytes(run, history, tmp_path):
    measure(history, PROMPTS, tmp_path / "elsewhere" / "run", settings=WITH_NULLS)
    mine, theirs = files_of(run.path), files_of(tmp_path / "elsewhere" / "run")
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name] and not name.startswith("directions/")] == []


def test_more_shams_keep_the_ones_that_are_there(run):
    before = run.read_table("shams")
    judge(run.path, shams=41)
    after = run.read_table("shams")
    first_draws = after[after["draw"] < 39].reset_index(drop=True)
    moves = ["first", "second"]
    assert first_draws.drop(columns=moves).equals(before.drop(columns=moves))
    assert all(np.array_equal(np.stack(first_draws[name]), np.stack(before[name])) for name in moves)
    assert after["draw"].max() == 40


def test_shams_move_the_activations_as_far_as_fine_tuning_did(run):
    """Noise at the weights' own norm is scaled until the mean displacement is as long; the profile's line is not."""
    shams = run.read_table("shams")
    assert shams["reached"].mean() >= 0.9
    near = shams[shams["reached"]]
    assert near["moved"].between(0.9, 1.1).all(), "16 harmful prompts: the search reads all of them"
    norms = np.linalg.norm((np.stack(shams["first"]) + np.stack(shams["second"])) / 2, axis=1)
    own = run.drift(statistic="displacement_norm", layer=1).set_index("checkpoint")["value"]["baseline-s0-000010"]
    np.testing.assert_allclose(norms, shams["moved"] * own, rtol=1e-4)
    assert (shams["loss"] > 0).all()
    assert shams["loss_before"].nunique() == 1
    assert shams["weight_moved"].std() > 0.05, "at the weights' own norm some move further than others"


def test_a_draw_that_an_earlier_version_left_short_is_drawn_anew(run):
    """Its search gave up where there was a scale; it did not say how far it had seen the noise go."""
    shams = run.read_table("shams")
    older = shams.drop(columns="farthest")
    older.loc[3, ["reached", "scale"]] = False, 77.0
    older.loc[5, "loss"] = 77.0  # is kept, whatever it says
    with Run.writing(run.path) as writing:
        writing.write_table("shams", older)
        write_shams(writing, writing.model(), silent)
    again = Run(run.path).read_table("shams")
    assert again["scale"][3] == pytest.approx(shams["scale"][3])
    assert again["reached"][3]
    assert again["scale"].drop(3).equals(shams["scale"].drop(3))
    assert again["loss"][5] == 77
    with Run.writing(run.path) as writing:
        writing.write_table("shams", shams)


def measure_until(lineage, out, phase, begun):
    """Measure, and from the beginning of `phase` on wait for the end."""

    def report(progress):
        if progress.phase == phase:
            begun.touch()
            time.sleep(60)

    measure(lineage, PROMPTS, out, settings=FAST, report=report)


def test_a_kill_mid_stage_is_gone_on_from_and_ends_with_the_same_bytes(history, tmp_path):
    whole, out = tmp_path / "a" / "run", tmp_path / "b" / "run"
    measure(history, PROMPTS, whole, settings=FAST)
    for place, phase in enumerate(("reading activations", "measuring drift")):
        begun = tmp_path / f"begun-{place}"
        assert processes.kill(measure_until, history, out, phase, begun, when=begun.exists) == -signal.SIGKILL
        assert not (out / "drift.parquet").exists()
    measure(history, PROMPTS, out, settings=FAST)
    mine, theirs = files_of(whole), files_of(out)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name] and not name.startswith("directions/")] == []


def test_a_checkpoint_that_gives_nan_is_named_and_leaves_no_file(history, tmp_path):
    broken = tmp_path / "broken"
    source = Path(history.trajectories[0].checkpoints[0].model)
    broken.mkdir()
    for file in source.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ActivationError, match="baseline-s0-000001") as caught:
        measure(with_checkpoint(history, broken), PROMPTS, tmp_path / "run", settings=FAST)
    assert "layer 1" in str(caught.value)
    assert not (tmp_path / "run" / "activations" / "baseline-s0-000001.safetensors").exists()


def test_a_witness_equal_to_the_aligned_model_is_refused(history, tmp_path):
    same = history.model_copy(update={"witness": Witness(model=history.aligned.model)})
    with pytest.raises(GravityError, match="witness"):
        measure(same, PROMPTS, tmp_path / "run", settings=FAST)


def test_a_class_with_too_few_prompts_is_refused_before_any_model_is_read(history, tmp_path):
    few = PromptSet.of(["a b", "c d", "e f"], ["harmful", "harmful", "harmless"])
    with pytest.raises(GravityError, match="too few"):
        measure(history, few, tmp_path / "run", settings=FAST)
    assert not (tmp_path / "run").exists()


def test_unrelated_weights_are_refused_by_their_distance(history, tmp_path):
    save_checkpoint(tmp_path / "stranger", tiny_model(seed=7), tiny_tokenizer())
    with pytest.raises(CheckpointError, match="unrelated"):
        measure(with_checkpoint(history, tmp_path / "stranger"), PROMPTS, tmp_path / "run", settings=FAST)


def test_two_processes_do_not_write_one_run(history, tmp_path):
    with Run.writing(tmp_path / "run"), pytest.raises(RunFolderError, match="Another process"):
        measure(history, PROMPTS, tmp_path / "run", settings=FAST)


def test_the_command_measures_without_a_line_of_code(history, tmp_path):
    for label in ("harmful", "harmless"):
        texts = [prompt.text for prompt in PROMPTS.prompts if prompt.label == label]
        (tmp_path / f"{label}.txt").write_text("\n".join(texts))
    folder = Path(history.trajectories[0].checkpoints[0].model).parent
    done = processes.run(
        processes.gravity_probe,
        "measure",
        *("--witness", history.witness.model, "--aligned", history.aligned.model),
        *("--trajectory", f"mine@3={folder}"),
        *("--harmful", tmp_path / "harmful.txt", "--harmless", tmp_path / "harmless.txt"),
        *("--out", tmp_path / "run", "--no-nulls", "--set", "bootstraps=20", "--json"),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(trajectory["arm"], trajectory["seed"]) for trajectory in document["trajectories"]] == [("mine", 3)]
    assert Run(tmp_path / "run").manifest.config["bootstraps"] == 20


def test_comparing_two_checkpoints_shows_layers_and_weights(run):
    comparison = compare(run, "baseline-s0-000001", "baseline-s0-000010")
    assert [row["layer"] for row in comparison["layers"]] == [0, 1, 2]
    assert all(row["cosine"] > 0.9 for row in comparison["layers"])
    assert all(row["basis_shared"] for row in comparison["layers"])
    assert comparison["weights_missing"] is None
    # This run goes straight towards the witness, so all of its weight drift lies in the alignment's span.
    assert all(row["inside"] == pytest.approx(1, abs=1e-4) for row in comparison["weights"])


def test_comparing_says_what_of_the_change_no_activation_sees(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "kept")
    comparison = compare(run, "baseline-s0-000001", "baseline-s0-000010")
    symmetries, total = comparison["symmetries"], sum(row["frobenius"] ** 2 for row in comparison["weights"])
    assert [part["part"] for part in symmetries["parts"]][:2] == ["layers.0.attention", "layers.0.mlp"]
    assert 0 < symmetries["along"] < 1
    assert 0 < symmetries["random"] < 1
    assert sum(part["along"] * part["frobenius"] ** 2 for part in symmetries["parts"]) == pytest.approx(
        symmetries["along"] * total
    )
    with Run.writing(tmp_path / "kept") as writing:
        write_weights(writing, "baseline-s0-000001", "baseline-s0-000010", comparison)
    table = Run(tmp_path / "kept").read_table("symmetries/baseline-s0-000001--baseline-s0-000010")
    assert table.to_dict("records") == symmetries["parts"]
    assert f"{100 * symmetries['along']:.2g} % of ‖Δ‖²" in " ".join(_text_of(comparison).split())
    assert "symmetries" not in _text_of(compare(run, "aligned", "aligned"))


def _text_of(comparison):
    console = Console(width=200, record=True, file=io.StringIO())
    for table in comparison_tables(comparison):
        console.print(table)
    return console.export_text()


def test_comparing_with_what_is_not_there_lists_what_is(run):
    with pytest.raises(UsageError, match="baseline-s0-000010"):
        compare(run, "aligned", "nobody")


def test_a_run_whose_checkpoints_are_gone_still_compares_its_layers(run, tmp_path):
    import shutil

    shutil.copytree(run.path, tmp_path / "shipped")
    manifest = json.loads((tmp_path / "shipped" / "run.json").read_text())
    manifest["lineage"]["aligned"]["model"] = str(tmp_path / "gone")
    (tmp_path / "shipped" / "run.json").write_text(json.dumps(manifest))
    comparison = compare(Run(tmp_path / "shipped"), "aligned", "witness")
    assert comparison["weights"] == []
    assert "gone" in comparison["weights_missing"]
    assert comparison["layers"][0]["distance"] == pytest.approx(1)


def test_weights_that_are_others_by_now_are_not_compared_as_those_that_were_measured(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "moved_on")
    manifest = json.loads((tmp_path / "moved_on" / "run.json").read_text())
    manifest["lineage"]["aligned"]["model"] = manifest["lineage"]["witness"]["model"]
    (tmp_path / "moved_on" / "run.json").write_text(json.dumps(manifest))
    comparison = compare(Run(tmp_path / "moved_on"), "aligned", "witness")
    assert (comparison["weights"], comparison["symmetries"]) == ([], None)
    assert "holds other weights than those that were measured" in comparison["weights_missing"]


def test_what_is_gone_cut_off_or_changed_is_made_anew(tmp_path):
    """Every file that a stage has written, deleted, cut or altered: the same command gives the same bytes again."""
    path = measured_run(tmp_path).path
    outputs = {name for record in Run(path).manifest.stages.values() for name in record.outputs}
    before = {name: (path / name).read_bytes() for name in outputs}
    assert {"drift.parquet", "noise.parquet", "prompts.parquet", "pairs.parquet", "spectra.parquet"} <= outputs
    for number, name in enumerate(sorted(outputs)):
        content = before[name]
        damaged = (None, content[:-9], content[:-1] + bytes([content[-1] ^ 1]))[number % 3]
        (path / name).unlink()
        if damaged is not None:
            (path / name).write_bytes(damaged)
    assert measured_run(tmp_path).manifest.status == "finished"
    changed = [name for name in outputs if (path / name).read_bytes() != before[name]]
    assert not changed


def test_activations_of_another_version_of_the_extraction_are_not_adopted(tmp_path, monkeypatch):
    """A neighbour with the same weights and prompts is adopted, and one of an earlier extraction is not."""
    first = measured_run(tmp_path)
    lineage, prompts = first.lineage, first.prompts
    copied = measure(lineage, prompts, tmp_path / "runs" / "again", settings=first.settings)
    assert copied.keys == first.keys
    monkeypatch.setattr("probes.stages.activations._EXTRACTION", 10_000)
    anew = measure(lineage, prompts, tmp_path / "runs" / "later", settings=first.settings)
    assert set(anew.keys.values()).isdisjoint(first.keys.values())
