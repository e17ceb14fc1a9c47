"""A run without a witness, and one with an ablated witness: what is defined, what is not, and that no reader breaks."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest

import probes
from probes import drift
from probes.behaviour.evaluation import Evaluation
from probes.directions import METHODS
from probes.directions.contrast import Scene
from probes.directions.tracking import fit_layer, read_layer
from probes.errors import LineageError, RunFolderError
from probes.lineage import ABLATED, NO_WITNESS, Lineage
from probes.models.hooks import ablate
from probes.models.view import view_of
from probes.prompts import PromptSet
from probes.run import Run
from probes.stages.maps import MapOptions, write_maps
from probes.stages.weights import total_drift
from probes.store.settings import Settings
from probes.tasks.check import return_gate
from probes.tasks.compare import compare
from probes.tasks.evaluate import evaluate
from probes.tasks.measure import measure
from probes.tasks.report import report_html
from probes.tasks.restore import Lineages
from probes.tasks.summarise import summarise
from probes.terminal import console
from probes.terminal.show_run import probe_table, summary_table
from tests.app.commands import commands_of
from tests.app.test_pages import PAGES
from tests.app.visiting import visitor
from tests.builders import save_fine_tunes

PROMPTS = PromptSet.of(
    [f"break lock {index:02d}" for index in range(24)] + [f"paint door {index:02d}" for index in range(24)],
    ["harmful"] * 24 + ["harmless"] * 24,
)
QUESTIONS = Evaluation(
    PromptSet.of(
        [f"steal car {index:02d}" for index in range(20)] + [f"wash car {index:02d}" for index in range(20)],
        ["harmful"] * 20 + ["harmless"] * 20,
    ),
    max_new_tokens=4,
)
FAST = Settings(bootstraps=20, splits=4, draws=99, permutations=99, shams=19)
ESTIMATE = "ablated: an estimate"


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    """An aligned model, a full fine-tune of it, and a LoRA adapter on it."""
    home = tmp_path_factory.mktemp("places")
    save_fine_tunes(home, scale=0.05)
    return home


def lineage_of(places, witness=None) -> Lineage:
    return Lineage.of(places / "aligned", witness, [f"1={places / 'tuned'}", f"2={places / 'adapter'}"])


@pytest.fixture(scope="module")
def runs(places, tmp_path_factory) -> Path:
    """`none`: measured without a witness; `estimate`: with an ablated one; both asked, with every map."""
    root = tmp_path_factory.mktemp("runs")
    for name, witness in (("none", None), ("estimate", ABLATED)):
        measure(lineage_of(places, witness), PROMPTS, root / name, settings=FAST)
        evaluate(root / name, QUESTIONS)
        with Run.writing(root / name) as run:
            write_maps(run, MapOptions(methods=("pca",)))
    return root


def test_what_needs_no_witness_is_measured_and_the_rest_says_why_not(runs):
    run = Run(runs / "none")
    rows = run.drift(arm="baseline")
    defined = rows.dropna(subset="value")
    assert set(defined["statistic"]) == set(drift.WITHOUT_WITNESS)
    assert set(rows[~rows["statistic"].isin(drift.WITHOUT_WITNESS)]["reason"]) == {NO_WITNESS}
    assert set(run.manifest.checkpoints) == {"aligned", "baseline-s0-000001", "baseline-s0-000002"}
    assert not (run.path / "directions" / "reversion.safetensors").exists()
    assert run.read_json("headline")["reason"] == NO_WITNESS
    assert run.headline_rule == "the block at 0.6 of the depth"
    assert {entry["name"] for entry in run.verdicts} == {"not defined: no witness"}
    assert {entry["level"] for entry in run.verdicts} == {None}
    assert not run.has_table("nulls")


def test_the_displacement_is_the_one_that_a_run_with_a_witness_has(runs):
    frames = [Run(runs / name).drift(arm="baseline", statistic="displacement_norm") for name in ("none", "estimate")]
    assert frames[0]["value"].tolist() == pytest.approx(frames[1]["value"].tolist(), nan_ok=True)


def test_the_summary_names_what_is_not_defined(runs):
    summary = summarise(Run(runs / "none"))
    assert summary.witness == NO_WITNESS
    assert summary.not_defined["return_fraction"] == "not defined: no witness"
    last = summary.trajectories[0].checkpoints[-1]
    assert all(layer.alignment is None and layer.displacement_norm > 0 and layer.probe for layer in last.layers)
    assert last.weight_drift > 0
    assert summary.trajectories[0].safety is not None
    assert summarise(Run(runs / "estimate")).not_defined == {}


def test_the_terminal_says_so_too(runs):
    with console().capture() as out:
        pass
    screen = console()
    for name, words in (("none", "not defined: no witness"), ("estimate", ESTIMATE)):
        summary = summarise(Run(runs / name))
        with screen.capture() as out:
            screen.print(summary_table(summary, {}, {}))
            screen.print(probe_table(summary, {}))
        assert words in " ".join(out.get().split())
        assert "did not track behaviour" in " ".join(out.get().split())


def test_the_safety_answer_is_the_same_with_and_without_a_witness(runs):
    answers = [summarise(Run(runs / name)).trajectories[0].safety for name in ("none", "estimate")]
    assert answers[0] == answers[1]


def test_reports_comparisons_and_gates_work_without_one(runs):
    run = Run(runs / "none")
    page = report_html(run)
    assert "The way back is not defined: no witness" in page
    assert page.index("safety") < page.index("The way back")
    assert "displacement" in page.lower()
    compared = compare(run, "aligned", "baseline-s0-000001")
    assert {row["distance"] for row in compared["layers"]} == {None}
    assert all(row["frobenius"] >= 0 and row["inside"] is None for row in compared["weights"])
    assert not return_gate(run, 0.5).passed
    assert NO_WITNESS in return_gate(run, 0.5).sentence
    with pytest.raises(RunFolderError, match="no witness"):
        run.direction("reversion")
    with pytest.raises(LineageError, match="Restoring needs a witness"):
        Lineages.of("baseline-s0-000001", run, None, None)
    with pytest.raises(LineageError, match="with weights of its own"):
        Lineages.of("baseline-s0-000001", Run(runs / "estimate"), None, None)


def test_the_probe_is_that_of_the_fitted_refusal_direction(runs):
    """The same four numbers by the other road: the estimator that `directions fit` uses."""
    run = Run(runs / "estimate")
    table = run.read_table("probe")
    for layer in range(run.n_layers):
        values = {member.id: run.activations(member.id, layer) for member in run.measured}
        scenes = {
            name: Scene(rows, values["aligned"], values["witness"], run.harmful, run.fold)
            for name, rows in values.items()
        }
        fits = fit_layer(scenes, {"refusal": METHODS["refusal"]})
        reading = read_layer(scenes, fits)["refusal"]
        rows = table[table["layer"] == layer].set_index("checkpoint").loc[list(values)]
        vectors = fits["refusal"].vectors[2]
        assert rows["cosine"].to_numpy() == pytest.approx(vectors @ vectors[0], abs=1e-9)
        assert rows["auroc"].to_numpy() == pytest.approx(reading.auroc[0], abs=1e-9)
        assert rows["refit"].to_numpy() == pytest.approx(np.diag(reading.auroc), abs=1e-9)
        assert rows["norm"].to_numpy() == pytest.approx(fits["refusal"].norm, abs=1e-9)


def test_weight_drift_is_the_distance_of_the_weights(runs, places):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def weights(model):
        return torch.cat([parameter.detach().double().flatten() for parameter in model.state_dict().values()])

    aligned = AutoModelForCausalLM.from_pretrained(places / "aligned")
    tuned = AutoModelForCausalLM.from_pretrained(places / "tuned")
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(places / "aligned"), places / "adapter")
    start = weights(aligned)
    expected = [float((weights(model) - start).norm()) for model in (tuned, merged.merge_and_unload())]
    assert list(total_drift(Run(runs / "none")).values()) == pytest.approx(expected, rel=1e-4)


def test_an_ablated_witness_is_the_aligned_model_without_its_direction(runs, places):
    """Read again by hand: transformers' model under the hooks, prompt by prompt."""
    from transformers import AutoModelForCausalLM

    run = Run(runs / "estimate")
    model = AutoModelForCausalLM.from_pretrained(places / "aligned").eval()
    direction = run.ablated_direction
    activations = run.activations("witness", 1)
    with torch.no_grad(), ablate(view_of(model), direction):
        for prompt in (0, 30):
            ids = torch.tensor([run.rendered.token_ids[prompt]])
            rows = model(ids, output_hidden_states=True).hidden_states[2][0, -1].double().numpy()
            assert activations[prompt] == pytest.approx(rows, abs=2e-4)
    assert np.abs(activations @ direction).max() < 1e-4 * np.abs(activations).max()
    assert np.abs(run.activations("aligned", 1) @ direction).max() > 1e-2


def test_no_weights_are_written_and_the_aligned_model_stays_itself(runs):
    run = Run(runs / "estimate")
    model = run.model()
    plain = [parameter.clone() for parameter in model.model.parameters()]
    ids = torch.tensor([run.rendered.token_ids[0]])
    with torch.no_grad():
        before = model.model(ids).logits
        model.put(run.lineage.witness)
        changed = model.model(ids).logits
        model.put(run.lineage.aligned)
        after = model.model(ids).logits
    assert torch.equal(before, after)
    assert not torch.allclose(before, changed)
    assert all(torch.equal(*pair) for pair in zip(plain, model.model.parameters(), strict=True))
    assert not list(run.path.rglob("model*.safetensors"))


def test_an_estimate_is_called_one_everywhere(runs):
    run = Run(runs / "estimate")
    document = run.read_json("ablated")
    assert document["estimate"] is True
    witness = run.lineage.witness
    assert witness.passes_rule is document["passes_rule"]
    assert ("no candidate passes" in witness.label) is not document["passes_rule"]
    for verdict in run.verdicts:
        if "towards the witness" in verdict["name"]:
            assert ESTIMATE in verdict["name"]
        assert verdict["off_refusal_axis"]["answer"] == "not_defined"
        assert verdict["mirror"]["answer"] == "not_defined"
        for sentence in re.split(r"(?<=[a-z)])\. ", verdict["text"]):
            assert ESTIMATE in sentence or "the witness" not in sentence or "refusal axis is not defined" in sentence
    assert ESTIMATE in run.direction("reversion").about["witness_estimate"]
    assert ESTIMATE in report_html(run)
    assert ESTIMATE in summarise(run).witness
    assert ESTIMATE in return_gate(run, 5.0).sentence


def test_the_rule_s_failure_stands_in_the_label(places, tmp_path):
    witness = lineage_of(places, ABLATED).witness
    assert "no candidate" not in witness.label
    assert "no candidate passes the published rule, the best is taken" in replace_rule(witness, passes=False).label
    assert "no candidate" not in replace_rule(witness, passes=True).label


def replace_rule(witness, *, passes):
    return witness.model_copy(update={"passes_rule": passes})


def test_measuring_again_does_nothing_again(runs, places):
    for name, witness in (("none", None), ("estimate", ABLATED)):
        before = {path: path.stat().st_mtime_ns for path in (runs / name).glob("*.parquet")}
        measure(lineage_of(places, witness), PROMPTS, runs / name, settings=FAST)
        assert {path: path.stat().st_mtime_ns for path in (runs / name).glob("*.parquet")} == before


def test_a_folder_measured_with_a_witness_forgets_it(places, tmp_path):
    quick = FAST.model_copy(update={"nulls": False})
    measure(lineage_of(places, ABLATED), PROMPTS, tmp_path / "run", settings=quick)
    run = measure(lineage_of(places), PROMPTS, tmp_path / "run", settings=quick)
    assert "witness" not in run.manifest.checkpoints
    assert run.directions == ["ablated"] or not run.directions
    assert summarise(run).witness == NO_WITNESS


def test_a_lineage_file_may_leave_the_witness_out_or_have_it_ablated(tmp_path):
    text = 'name = "mine"\n[aligned]\nmodel = "org/aligned"\n'
    (tmp_path / "none.toml").write_text(text)
    (tmp_path / "ablated.toml").write_text('witness = "ablated"\n' + text)
    assert Lineage.load(tmp_path / "none.toml").witness is None
    witness = Lineage.load(tmp_path / "ablated.toml").witness
    assert (witness.model, witness.kind) == ("org/aligned", ABLATED)


def test_a_notebook_measures_without_a_witness(places, tmp_path):
    run = probes.measure(
        places / "aligned",
        None,
        places / "adapter",
        harmful=[f"break lock {index:02d}" for index in range(16)],
        harmless=[f"paint door {index:02d}" for index in range(16)],
        out=tmp_path / "run",
        bootstraps=20,
        splits=4,
    )
    assert not run.has_witness
    assert run.read_table("probe")["cosine"].notna().all()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["none", "estimate"])
def test_no_page_breaks(monkeypatch, runs, name, page):
    at = open_page(monkeypatch, runs, name, page)
    assert not at.exception
    assert not at.error
    text = json.dumps([element.proto.body for element in at.get("html")] + [at.title[0].value])
    if page in ("views/trajectories.py", "views/displacement.py", "views/overview.py") and name == "none":
        assert NO_WITNESS in text


def test_the_overview_opens_with_the_answer(monkeypatch, runs, places, tmp_path):
    at = open_page(monkeypatch, runs, "none", "views/overview.py")
    answer = Run(runs / "none").read_json("safety")[0]
    assert at.title[0].value == f"Baseline\\: safety {answer['answer']}"
    measure(lineage_of(places), PROMPTS, tmp_path / "silent", settings=FAST)
    at = open_page(monkeypatch, tmp_path, "silent", "views/overview.py")
    assert "not judged yet" in at.title[0].value
    assert "gravity-probe evaluate" in commands_of(at)[0]


def open_page(monkeypatch, root, name, page) -> AppTest:
    st.cache_data.clear()
    monkeypatch.setattr(sys, "argv", ["main.py", str(root)])
    return visitor({"run": name}).switch_page(page).run()
