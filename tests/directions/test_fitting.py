"""Directions of a run: what is written, that the numbers are those of the methods, resume, and what is left out."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from probes.activations import collect
from probes.directions import METHODS
from probes.directions.contrast import Scene
from probes.directions.controls import TopDrift
from probes.directions.lda import Lda
from probes.directions.readout import readout
from probes.directions.refusal import Refusal
from probes.directions.selection import Candidate, Rule, select
from probes.directions.tracking import fit_layer, read_layer
from probes.engine import open_engine
from probes.errors import UsageError
from probes.interventions.candidates import positions_of
from probes.lineage import Lineage, Trajectory
from probes.models import ModelHost, UnopenedModel
from probes.run import Run
from probes.stages.method_fits import _made_from
from probes.stages.readings import Readings, over_answers
from probes.store import EMBED, FileRecord
from probes.store.manifest import StageRecord
from probes.store.settings import Settings
from probes.tasks.fit import FitOptions, fit_directions
from probes.tasks.measure import measure
from tests import processes
from tests.builders import save_checkpoint, tiny_model, tiny_tokenizer
from tests.guard.lineages import lineage, prompts

TUNED = "baseline-s0-000002"


def classes(run):
    table = run.read_table("prompts")
    return (table["label"] == "harmful").to_numpy(), table["fold"].to_numpy() == 1


def test_every_direction_is_there_at_every_checkpoint(fitted):
    run = Run(fitted)
    assert set(run.directions) == set(METHODS) - {"control:drift"}
    assert set(run.directions_at(TUNED)) == set(METHODS)
    assert "reversion" not in run.directions_at("witness")
    refusal = run.direction("refusal")
    assert refusal.direction.shape == (3, 32)
    assert np.allclose(np.linalg.norm(refusal.direction, axis=1), 1, atol=1e-6)
    assert refusal.about["weights_sha256"] == run.manifest.checkpoints["aligned"]["weights_sha256"]
    assert refusal.about["orientation"] == "harmless towards harmful"
    assert refusal.about["hook"] == "blocks.{l}.hook_resid_post"


@pytest.mark.parametrize("name", ["lda", "refusal", "logistic"])
def test_scores_are_those_of_the_other_fold(fitted, name):
    run = Run(fitted)
    harmful, fold = classes(run)
    tracks = run.read_table("direction_tracks").set_index(["direction", "checkpoint", "layer"])
    options = {"strength": 50.0} if name == "logistic" else {}
    for checkpoint, layer in (("aligned", 0), (TUNED, 2)):
        rows = run.activations(checkpoint, layer).astype(np.float64)
        start = run.activations("aligned", layer).astype(np.float64)
        own, from_aligned = [], []
        for half in (fold, ~fold):
            for fitted_on, into in ((rows, own), (start, from_aligned)):
                probe = METHODS[name](**options).fit(fitted_on[~half], harmful[~half])
                into.append(roc_auc_score(harmful[half], probe.project(rows[half])))
        row = tracks.loc[(name, checkpoint, layer)]
        tolerance = 0.1 if name == "logistic" else 1e-9  # its penalty is found once, at the aligned model
        assert row["refit"] == pytest.approx(np.mean(own), abs=tolerance)
        assert row["auroc"] == pytest.approx(np.mean(from_aligned), abs=tolerance)
        assert row["refit_low"] <= row["refit"] <= row["refit_high"]


def test_how_a_direction_turns(fitted):
    run = Run(fitted)
    tracks = run.read_table("direction_tracks").set_index(["direction", "checkpoint", "layer"])
    for layer in range(3):
        first, last = (run.direction("lda", checkpoint) for checkpoint in ("aligned", TUNED))
        cosine = float(first.direction[layer].astype(float) @ last.direction[layer].astype(float))
        row = tracks.loc[("lda", TUNED, layer)]
        assert row["cosine"] == pytest.approx(cosine, abs=1e-5)
        assert row["angle"] == pytest.approx(np.degrees(np.arccos(cosine)), abs=0.1)
        assert row["norm"] == pytest.approx(last.norm[layer], rel=1e-5)
    assert tracks.loc[("lda", "aligned", 1), "cosine"] == pytest.approx(1.0)


def test_what_is_left_of_the_way_back(fitted):
    """At a checkpoint the reversion is witness − checkpoint; at the witness itself there is none, with the reason."""
    run = Run(fitted)
    harmful, _ = classes(run)
    gap = run.activations("witness", 1).astype(float) - run.activations(TUNED, 1)
    expected = gap[harmful].mean(axis=0)
    left = run.direction("reversion", TUNED)
    assert np.allclose(left.raw[1], expected, atol=1e-4)
    tracks = run.read_table("direction_tracks")
    rows = tracks[(tracks["direction"] == "reversion") & (tracks["checkpoint"] == "witness")]
    assert rows["cosine"].isna().all()
    assert rows["reason"].str.contains("nothing is left of the way back").all()
    twin = run.direction("reversion_did", TUNED)
    assert np.allclose(twin.raw[1], expected - gap[~harmful].mean(axis=0), atol=1e-4)


def test_the_transfer_matrix_has_the_refits_on_its_diagonal(fitted):
    run = Run(fitted)
    transfer = run.read_table("direction_transfer")
    own = transfer[transfer["fitted_on"] == transfer["read_on"]].set_index(["direction", "read_on", "layer"])["auroc"]
    tracks = run.read_table("direction_tracks").set_index(["direction", "checkpoint", "layer"])["refit"]
    joined = own.to_frame("own").join(tracks.rename_axis(["direction", "read_on", "layer"]))
    assert np.allclose(joined["own"], joined["refit"], equal_nan=True)
    assert len(transfer) == len(METHODS) * 3 * 4 * 4


def test_cosines_and_projections(fitted):
    run = Run(fitted)
    frame = run.read_table("direction_cosines").set_index(["checkpoint", "layer", "one", "other"])["cosine"]
    first, second = (run.direction(name, TUNED).direction[2].astype(float) for name in ("lda", "paired_pca"))
    assert frame[TUNED, 2, "lda", "paired_pca"] == pytest.approx(float(first @ second), abs=1e-5)
    places = run.read_table("direction_projections")
    rows = places[(places["direction"] == "lda") & (places["checkpoint"] == TUNED) & (places["layer"] == 2)]
    axis = run.direction("lda").direction[2].astype(float)
    assert np.allclose(rows["projection"], run.activations(TUNED, 2) @ axis, atol=1e-3)


def test_the_drift_control_is_off_the_reversion(fitted):
    run = Run(fitted)
    drift, back = run.direction("control:drift", TUNED), run.direction("reversion")
    assert np.abs((drift.direction.astype(float) * back.direction).sum(axis=1)).max() < 1e-5


def test_tokens_are_those_of_norm_and_unembedding(fitted):
    import torch

    run = Run(fitted)
    host = run.model()
    axis = run.direction("refusal").direction[1].astype(float)
    scale = host.model.model.norm.weight.detach().double().numpy()
    for sign in (1, -1):
        row = sign * axis * np.sqrt(len(axis)) * scale / np.sqrt((axis**2).sum() + 1e-6)
        logits = host.model.lm_head.weight.detach().double().numpy() @ row
        best = np.argsort(-logits)[:10]
        tokens = [token for token in readout(host, axis[None])[0] if token.sign == sign]
        assert [token.text for token in tokens] == [host.tokenizer.decode([int(token_id)]) for token_id in best]
        assert tokens[0].score == pytest.approx(logits[best[0]] - logits.mean(), rel=1e-3)
    assert torch.is_grad_enabled()
    table = run.read_table("direction_readout")
    first = table[(table["direction"] == "refusal") & (table["checkpoint"] == "aligned") & (table["layer"] == 1)]
    assert first[first["sign"] == -1].sort_values("rank")["token"].tolist() == [token.text for token in tokens]


@pytest.mark.parametrize("family", ["gpt2", "neox"])
def test_a_bias_writes_no_token_of_a_direction(family, tmp_path):
    """Through a norm with a bias, the opposite direction lowers each token by as much as the direction raises it."""
    host = ModelHost(save_checkpoint(tmp_path, tiny_model(family), tiny_tokenizer()), device="cpu")
    axis = np.random.default_rng(0).standard_normal(32)
    tokens = readout(host, axis[None], top=272)[0]
    raised, lowered = ([token.score for token in tokens if token.sign == sign] for sign in (1, -1))
    assert len(raised) == 272
    assert np.allclose(raised, -np.array(lowered)[::-1], atol=1e-4)


def test_the_candidates_scores_are_kept_with_the_published_keys_beside_their_estimates(fitted):
    rows = json.loads((fitted / "refusal_candidates.json").read_text())
    assert set(rows[0]) == {"position", "layer", "refusal_score", "steering_score", "kl_div_score", "screened"}
    assert {row["layer"] for row in rows} == {0, 1}, "the rule refuses the last fifth"
    selection = select([Candidate.of_published(row) for row in rows], 3)
    refusal = Run(fitted).direction("refusal")
    place = json.loads(refusal.about["selection_json"])
    if selection.chosen is None:
        assert refusal.declared_layer is None
        assert (place["layer"], place["fails"]) == (selection.nearest[0][0].layer, list(selection.nearest[0][1]))
    else:
        assert refusal.declared_layer == selection.chosen.layer == place["layer"]


def test_a_rule_that_selects_is_in_the_direction(own):
    """With a rule that lets everything pass, the lowest bypass score decides, and the direction says so."""
    selection = fit_directions(own, FitOptions(rule=Rule(max_kl=1e9, min_induce=-1e9, depth=1.0))).selection
    rows = [Candidate.of_published(row) for row in json.loads((own / "refusal_candidates.json").read_text())]
    assert selection is not None
    assert selection.chosen == min(rows, key=lambda row: row.bypass)
    assert Run(own).direction("refusal").declared_layer == selection.chosen.layer


def test_positions_behind_the_instruction():
    assert positions_of([(1, 5, 6, 9, 8), (1, 7, 9, 8), (1, 5, 5, 5, 9, 8)]) == (-2, -1)
    assert positions_of([(1, 5), (1, 6)]) == (-1,)
    assert positions_of([(4, 5), (4, 5)]) == (-1,)


def test_fitting_again_does_nothing_and_leaves_the_same_bytes(own):
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*.parquet")}
    fit_directions(own)
    assert {path: path.stat().st_mtime_ns for path in own.rglob("*.parquet")} == before


def test_what_an_earlier_version_has_fitted_stays(own):
    """There every reading was an input of every method."""
    before = Run(own).read_table("direction_tracks")
    file = own / "direction_fits" / "lda.safetensors"
    changed = file.stat().st_mtime_ns
    with Run.writing(own) as run:
        readings = Readings.of(run, [member.id for member in run.measured])
        run.manifest.stages["direction_fits/lda"].made_from = _made_from(run, "lda", readings, None)
        run.save()
    fit_directions(own, FitOptions(models=False, methods=("logistic",)))
    assert file.stat().st_mtime_ns == changed
    pd.testing.assert_frame_equal(Run(own).read_table("direction_tracks"), before, check_exact=True)


def test_methods_are_chosen_and_what_is_fitted_stays(measured, fitted, tmp_path):
    """One method alone, and then another beside it: the first is not fitted again, and its rows are those of all."""
    patterns = ("direction_*", "readings", "refusal_*", "lda*", "fit.log")
    shutil.copytree(measured, tmp_path / "run", ignore=shutil.ignore_patterns(*patterns))
    run = tmp_path / "run"
    manifest = json.loads((run / "run.json").read_text())
    gone = ("direction_", "readings", "refusal_")
    manifest["stages"] = {name: key for name, key in manifest["stages"].items() if not name.startswith(gone)}
    (run / "run.json").write_text(json.dumps(manifest))
    fit_directions(run, FitOptions(models=False, methods=("lda",)))
    assert set(Run(run).read_table("direction_tracks")["direction"]) == {"lda"}
    assert not (run / "directions" / "logistic.safetensors").exists()
    before = (run / "direction_fits" / "lda.safetensors").stat().st_mtime_ns
    fit_directions(run, FitOptions(models=False, methods=("control:random",)))
    assert (run / "direction_fits" / "lda.safetensors").stat().st_mtime_ns == before
    tracks, every = (Run(place).read_table("direction_tracks") for place in (run, fitted))
    assert list(dict.fromkeys(tracks["direction"])) == ["lda", "control:random"]
    expected = every[every["direction"].isin(["lda", "control:random"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(tracks, expected, check_exact=True)
    with pytest.raises(UsageError, match="There is no such method"):
        FitOptions(methods=("lda", "love"))


def without_fits(measured, place):
    """A copy of a run in which nothing is fitted."""
    shutil.copytree(measured, place, ignore=shutil.ignore_patterns("direction_*", "readings", "refusal_*"))
    manifest = json.loads((place / "run.json").read_text())
    gone = ("direction_", "readings", "refusal_")
    manifest["stages"] = {name: key for name, key in manifest["stages"].items() if not name.startswith(gone)}
    (place / "run.json").write_text(json.dumps(manifest))
    return place


def test_answers_are_read_by_the_passes_that_make_them(fitted):
    """The aligned model's: as they are read afterwards, at every other checkpoint."""
    run = Run(fitted)
    assert "readings/responses/aligned" not in run.manifest.stages
    request, read = over_answers(run), Readings.of(run, ["aligned", TUNED])
    assert len({end - first for first, end in request.spans}) > 1 or request.spans[0][1] - request.spans[0][0] > 1
    host = run.model()
    for checkpoint in ("aligned", TUNED):
        host.put(Lineage.opened(run.manifest.lineage, run.path).ref(checkpoint))
        streams, embedding = collect(host, request.token_ids, spans=request.spans)
        for layer, expected in enumerate(streams):
            assert np.allclose(read.layer(checkpoint, layer)["responses"], expected, rtol=1e-5, atol=1e-5)
        file = load_file(read.places["responses", checkpoint])[EMBED]
        assert np.allclose(file, embedding, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equal_weights_leave_equal_readings_in_any_precision(tmp_path, dtype):
    history, tuned = lineage(tmp_path / "models"), tmp_path / "models" / "tuned"
    shutil.copytree(tmp_path / "models" / "aligned", tuned / "checkpoint-1")
    history = history.with_trajectories((Trajectory.from_folder(tuned),))
    settings = Settings(nulls=False, splits=5, bootstraps=20, dtype=dtype)
    run = measure(history, prompts(0), tmp_path / "run", settings=settings)
    run = fit_directions(run.path, FitOptions(methods=("response_mean",))).run
    last = run.tuned[-1].id
    read = Readings.of(run, ["aligned", last])
    for layer in range(run.n_layers):
        ours, theirs = (read.layer(checkpoint, layer)["responses"] for checkpoint in ("aligned", last))
        assert np.allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_readings_of_an_earlier_version_that_are_gone_are_made_again(own):
    """There the aligned model's had a stage of its own."""
    before = Run(own).read_table("direction_tracks")
    shutil.rmtree(own / "readings")
    file = FileRecord(sha256=64 * "0", size=(own / "directions.json").stat().st_size)
    with Run.writing(own) as run:
        outputs = {"readings/responses/aligned.safetensors": file}
        run.manifest.stages["readings/responses/aligned"] = StageRecord(made_from="earlier", outputs=outputs)
        run.save()
    fit_directions(own)
    pd.testing.assert_frame_equal(Run(own).read_table("direction_tracks"), before, check_exact=True)


def test_workers_leave_the_bytes_of_one_process(measured, tmp_path, monkeypatch):
    everything = Rule(max_kl=1e9, min_induce=-1e9, depth=1.0)  # so that a candidate is selected and read
    for count in (1, 2):
        if count == 2:  # the driver opens no model of its own
            monkeypatch.delattr(UnopenedModel, "opened")
        with open_engine(count):
            fit = fit_directions(without_fits(measured, tmp_path / str(count)), FitOptions(rule=everything))
        assert fit.selection.chosen
        assert not fit.left_out
    alone, shared = (
        {path.relative_to(tmp_path / count): path for path in (tmp_path / count).rglob("*") if path.is_file()}
        for count in ("1", "2")
    )
    assert alone.keys() == shared.keys()
    for name, path in alone.items():
        assert name.name == "run.json" or shared[name].read_bytes() == path.read_bytes(), name
    stages = [
        [(name, stage.outputs) for name, stage in Run(tmp_path / count).manifest.stages.items()] for count in ("1", "2")
    ]
    assert stages[0] == stages[1]


def test_a_killed_fit_goes_on_to_the_same_bytes(measured, fitted, tmp_path):
    """Killed while it works, twice; what it ends with is what the whole one has."""
    run = without_fits(measured, tmp_path / "run")
    for mark in ("readings", "direction_tracks.parquet"):
        ended = processes.kill(processes.gravity_probe, "directions", "fit", run, when=(run / mark).exists)
        assert ended == -signal.SIGKILL
    fit_directions(run)
    for path in [*fitted.glob("direction_*.parquet"), *fitted.glob("directions/**/*.safetensors")]:
        assert (run / path.relative_to(fitted)).read_bytes() == path.read_bytes(), path.name


def test_without_the_models_the_kept_activations_are_enough(measured, tmp_path):
    shutil.copytree(measured, tmp_path / "run", ignore=shutil.ignore_patterns("direction*", "readings", "refusal_*"))
    run = tmp_path / "run"
    manifest = json.loads((run / "run.json").read_text())
    gone = ("direction_", "readings", "refusal_", "directions")
    manifest["stages"] = {name: key for name, key in manifest["stages"].items() if not name.startswith(gone)}
    manifest["lineage"]["aligned"]["model"] = "/nowhere/at-all"
    (run / "run.json").write_text(json.dumps(manifest))
    # The reversion's own files are those of the measurement.
    shutil.copytree(measured / "directions", run / "directions")
    fit = fit_directions(run)
    assert fit.selection is None
    assert "cannot be opened" in fit.left_out[0]
    tracks = Run(run).read_table("direction_tracks")
    reasons = tracks.loc[tracks["direction"] == "response_mean", "reason"]
    assert reasons.str.contains("answers were not read").all()
    assert tracks.loc[tracks["direction"] == "lda", "refit"].notna().all()


def test_a_checkpoint_that_is_gone_is_named_and_the_rest_is_done(fitted, tmp_path):
    """Its kept activations are fitted still; what only its weights could tell is left out."""
    shutil.copytree(fitted, tmp_path / "run")
    (tmp_path / "run" / "readings" / "responses" / f"{TUNED}.safetensors").unlink()
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    last = manifest["lineage"]["trajectories"][0]["checkpoints"][-1]
    last["model"] = "/nowhere/at-all"
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))
    fit = fit_directions(tmp_path / "run")
    assert len(fit.left_out) == 1
    assert fit.left_out[0].startswith(f"{TUNED}: ")
    run = Run(tmp_path / "run")
    tracks = run.read_table("direction_tracks").set_index(["direction", "checkpoint"]).sort_index()
    assert tracks.loc[("lda", TUNED), "refit"].notna().all()
    assert tracks.loc[("response_mean", TUNED), "reason"].str.contains("not where it was").all()
    assert tracks.loc[("response_mean", "witness"), "reason"].isna().all()
    assert TUNED not in set(run.read_table("direction_readout")["checkpoint"])
    assert not run.direction_path("response_mean", TUNED).exists(), "the vector of an earlier fit stays"
    assert not fit_directions(fitted).left_out


def test_tokens_of_a_checkpoint_that_is_gone_stay_while_nothing_else_changes(own):
    manifest = json.loads((own / "run.json").read_text())
    manifest["lineage"]["trajectories"][0]["checkpoints"][-1]["model"] = "/nowhere/at-all"
    (own / "run.json").write_text(json.dumps(manifest))
    before = (own / "direction_readout.parquet").read_bytes()
    assert "not read again" in fit_directions(own).left_out[0]
    assert (own / "direction_readout.parquet").read_bytes() == before


def _choose(own, position, layer):
    """Let the rule choose this place, by the scores that are kept."""
    rows = json.loads((own / "refusal_candidates.json").read_text())
    for row in rows:
        best = (row["position"], row["layer"]) == (position, layer)
        row |= {"refusal_score": float(not best), "steering_score": 1.0, "kl_div_score": 0.0}
    with Run.writing(own) as run:
        run.write_json("refusal_candidates", rows)


def test_an_earlier_selection_is_told_again_only_while_its_token_is_kept(own):
    """Without the models and that token, the refusal direction is of the run's own token, and says so."""
    _choose(own, -3, 1)
    fit_directions(own)
    fit_directions(own, FitOptions(models=False, winsorise=8.0))
    refusal = Run(own).direction("refusal")
    assert (refusal.about["position"], refusal.declared_layer) == ("-3", 1)
    assert not Run(own).has_table("direction_readout"), "tokens of other vectors stay"
    shutil.rmtree(own / "readings")
    fit_directions(own, FitOptions(models=False))
    refusal = Run(own).direction("refusal")
    assert (refusal.about["position"], refusal.declared_layer) == ("-1", None)


def test_readings_of_other_weights_do_not_count(own):
    """A reading is used where its key is that of the checkpoint as it was measured last, and nowhere else."""
    run = Run(own)
    assert Readings.of(run, ["aligned", TUNED]).places.keys() == {("responses", "aligned"), ("responses", TUNED)}
    run.manifest.checkpoints[TUNED]["key"] = "of other weights"
    assert Readings.of(run, ["aligned", TUNED]).places.keys() == {("responses", "aligned")}
    assert Readings.of(run, [TUNED]).layer(TUNED, 0) == {"responses": None}
    run.manifest.checkpoints["aligned"]["key"] = "of other weights"
    assert not Readings.of(run, ["aligned", TUNED]).digests


def test_the_refusal_direction_is_read_at_the_selected_token(own):
    """Where the rule chooses another token than the run's own, every checkpoint is read there."""
    _choose(own, -3, 1)
    fit_directions(own)
    run = Run(own)
    refusal = run.direction("refusal", TUNED)
    host = run.model()
    host.put(Lineage.opened(run.manifest.lineage, run.path).ref(TUNED))
    ids = run.rendered.token_ids
    at_token, _ = collect(host, ids, position=-3)
    harmful, _ = classes(run)
    assert np.allclose(
        refusal.raw[1], at_token[1][harmful].mean(axis=0) - at_token[1][~harmful].mean(axis=0), atol=1e-4
    )
    assert run.direction("refusal").about["position"] == "-3"


def test_a_layer_that_nothing_changes_leaves_a_reason():
    """Where the witness is the aligned model (frozen first layers), what has no direction says so."""
    rng = np.random.default_rng(0)
    harmful, fold = np.arange(24) < 12, np.arange(24) % 2 == 1
    base = rng.standard_normal((24, 8)) + harmful[:, None]
    scenes = {
        name: Scene(base + shift * rng.standard_normal((24, 8)), base, base, harmful, fold)
        for name, shift in (("aligned", 0.0), ("tuned", 0.3))
    }
    fits = fit_layer(scenes)
    assert "nothing is left" in fits["reversion"].reasons[0]
    assert fits["control:drift"].reasons[1] is None
    assert fits["lda"].reasons == [None, None]
    same = {name: Scene(np.ones((24, 8)), np.ones((24, 8)), base, harmful, fold) for name in ("aligned", "tuned")}
    reasons = fit_layer(same)["logistic"].reasons
    assert "do not differ" in reasons[0]


def test_massive_activations_are_held_when_asked(own):
    plain = Run(own).read_table("direction_tracks")
    fit_directions(own, FitOptions(winsorise=1.0))
    held = Run(own).read_table("direction_tracks")
    assert not np.allclose(plain["norm"], held["norm"], equal_nan=True)
    assert json.loads((own / "directions.json").read_text())["winsorise"] == 1.0
    assert Run(own).direction("lda").about["winsorise"] == "1"


def test_wide_models_are_fitted_in_the_span_of_their_prompts():
    """With fewer prompts than dimensions everything is rotated into their span: the same directions come back."""
    rng = np.random.default_rng(0)
    harmful, fold = np.arange(24) < 12, np.arange(24) % 2 == 1
    base = rng.standard_normal((24, 300))
    scenes = {
        name: Scene(base + shift * rng.standard_normal((24, 300)), base, base + 1.0, harmful, fold)
        for name, shift in (("aligned", 0.0), ("tuned", 0.3))
    }
    fits = fit_layer(scenes)
    for name in ("refusal", "lda", "paired_pca", "subspace", "mass_mean"):
        direct = METHODS[name]().fit(scenes["tuned"].own.astype(float), harmful).direction_
        assert abs(fits[name].vectors[2, 1] @ direct) == pytest.approx(1.0, abs=1e-6)
    assert isinstance(METHODS["control:drift"](), TopDrift)
    back = (scenes["aligned"].witness - base)[harmful].mean(axis=0)
    assert abs(fits["control:drift"].vectors[2, 1] @ back) < 1e-9
    read = read_layer(scenes, fits)
    probe = Lda().fit(scenes["tuned"].own[~fold].astype(float), harmful[~fold])
    second_probe = Lda().fit(scenes["tuned"].own[fold].astype(float), harmful[fold])
    expected = np.mean(
        [
            roc_auc_score(harmful[fold], probe.project(scenes["aligned"].own[fold])),
            roc_auc_score(harmful[~fold], second_probe.project(scenes["aligned"].own[~fold])),
        ]
    )
    assert read["lda"].auroc[1, 0] == pytest.approx(expected, abs=1e-9)
    assert Refusal.contrast == "selected"
