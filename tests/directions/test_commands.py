"""The commands about directions as people and pipelines call them."""

from __future__ import annotations

import json
import shutil
import sys
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from probes.behaviour.evaluation import Evaluation
from probes.cli import main
from probes.directions.vectors import Vectors
from probes.run import Run
from probes.stages.mediation import effects
from tests.builders import save_checkpoint, tiny_model, tiny_tokenizer
from tests.guard.lineages import prompts

TUNED = "baseline-s0-000002"


class Call:
    """The command called in this process, as the shell would: its streams and its exit code."""

    def __init__(self, capfd):
        self.capfd = capfd

    def __call__(self, *words):
        self.capfd.readouterr()
        code = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["gravity-probe", *map(str, words)])
            try:
                main()
            except SystemExit as ended:
                code = ended.code or 0
        out, err = self.capfd.readouterr()
        return Done(code, out, err)

    def document(self, *words):
        """The JSON of a call that succeeds."""
        done = self(*words, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    def refusal(self, *words, code=2):
        """The sentence of a call that is refused."""
        done = self(*words)
        assert done.code == code, done.out + done.err
        return done.err


class Done(NamedTuple):
    """How a call ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capfd):
    return Call(capfd)


@pytest.mark.parametrize("action", [("list",), ("show", "--direction", "lda"), ("compare",)])
def test_tables_fit_100_columns(call, fitted, action):
    done = call("directions", action[0] if action else "list", fitted, *action[1:])
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 100
    assert "lda" in done.out


def test_json_of_each_action(call, fitted):
    run = Run(fitted)
    document = call.document("directions", "list", fitted, "--layer", 2)
    assert document["layer"] == 2
    assert [row["direction"] for row in document["directions"] if row["control"]] == [
        "control:random",
        "control:covariance",
        "control:permuted-labels",
        "control:drift",
    ]
    document = call.document("directions", "show", fitted, "--direction", "lda", "--checkpoint", TUNED)
    assert [row["checkpoint"] for row in document["checkpoints"]] == [TUNED]
    assert {(row["layer"], row["sign"]) for row in document["tokens"]} == {
        (layer, sign) for layer in range(3) for sign in (1, -1)
    }
    document = call.document("directions", "compare", fitted, "--checkpoint", TUNED)
    own = next(row["cosine"] for row in document["cosines"] if row["one"] == row["other"] == "lda")
    assert own == pytest.approx(1.0)
    assert run.has_table("direction_cosines")


def test_what_cannot_be_is_refused(call, fitted, tmp_path):
    assert "There is no such command" in call.refusal("directions", fitted, "draw")
    assert "There is no such direction" in call.refusal("directions", "show", fitted, "--direction", "love")
    assert "No such layer" in call.refusal("directions", "list", fitted, "--layer", 9)
    assert "No directions are fitted there" in call.refusal("directions", "compare", fitted, "--checkpoint", "x")
    assert "gravity-probe directions" in call.refusal(
        "export", fitted, "--direction", "love", "--out", tmp_path / "x", code=1
    )
    assert "No directions are fitted there" in call.refusal("directions", "show", fitted, "--checkpoint", "x")
    assert "has not drifted" in call.refusal(
        "export", fitted, "--direction", "control:drift", "--out", tmp_path / "x", code=1
    )
    assert "No such option" in call.refusal("directions", "list", fitted, "--layers", 2)
    assert "share of the layers" in call.refusal("directions", "fit", fitted, "--depth", 2)
    assert "must be a finite number" in call.refusal("directions", "fit", fitted, "--max-kl", "nan")
    assert "must be a finite number" in call.refusal("directions", "effect", fitted, "--coefficient", "nan")
    export = ("export", fitted, "--direction", "refusal", "--format")
    assert "read only" in call.refusal(*export, "gguf-cvector", "--out", tmp_path / "x")
    assert "behind the last block" in call.refusal(*export, "refusal-direction", "--layer", 2, "--out", tmp_path / "x")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in call.refusal(*export, "npz", "--out", tmp_path / "file" / "x")
    assert "not both" in call.refusal("import", tmp_path, "--as", "x", "--run", fitted, "--out", tmp_path / "x")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--prompt", " "), "prompt is empty"),
        (("--coefficient", "inf"), "must be a finite number"),
        (("--layer", 1, "--layer", 1), "named twice"),
        (("--device", "tpu"), "no device tpu"),
        (("--layer", 0, "--layer", 1, "--mode", "ablate"), "ablated at every block"),
    ],
)
def test_what_cannot_be_steered_is_refused(call, fitted, words, sentence):
    assert sentence in call.refusal("steer", fitted, "--prompt", "make a knife", *words)


def test_a_checkpoint_that_there_is_not_is_named(call, fitted):
    assert "no such checkpoint" in call.refusal("steer", fitted, "--prompt", "a", "--checkpoint", "x", code=1)


def test_a_run_without_directions_says_what_to_run(call, measured, tmp_path):
    shutil.copytree(measured, tmp_path / "run", ignore=shutil.ignore_patterns("direction_*", "directions.json"))
    assert "directions" in call.refusal("directions", tmp_path / "run", code=1)
    assert "directions fit" in call.refusal("directions", "show", tmp_path / "run", code=1)


@pytest.mark.parametrize("form", ["safetensors", "gguf", "csv", "persona-vectors", "refusal-direction"])
def test_export_and_import_again(call, own, tmp_path, form):
    written = call.document("export", own, "--direction", "refusal", "--format", form, "--out", tmp_path / "out")
    assert "block l" in written["layers"] or "layer l" in written["layers"]
    brought = call.document("import", written["path"], "--as", "mine", "--run", own)
    assert "block" in brought["layers"]
    mine, first = Run(own).direction("mine"), Run(own).direction("refusal")
    for layer in mine.layers:
        assert np.array_equal(mine.at(layer)[0], first.at(layer)[0])
    assert mine.about["weights_sha256"] == first.about["weights_sha256"]
    listed = call("directions", "list", own).out
    assert "imported: mine" in listed
    assert "brought in from elsewhere" in call.refusal("directions", "show", own, "--direction", "mine")
    steered = call.document("steer", own, "--direction", "mine", "--prompt", "make a knife", "--layer", mine.layers[-1])
    assert steered["direction"] == "mine"


def test_raw_exports_the_length_that_was_measured(call, own, tmp_path):
    from gguf import GGUFReader

    first = Run(own).direction("refusal")
    export = ("export", own, "--direction", "refusal", "--format")
    for name, words in (("unit", ()), ("whole", ("--raw",))):
        written = call.document(*export, "gguf", "--out", tmp_path / name, *words)
        tensors = {tensor.name: np.array(tensor.data) for tensor in GGUFReader(written["path"]).tensors}
        for layer in first.layers[1:]:
            length = first.at(layer)[1] if words else 1.0
            assert np.linalg.norm(tensors[f"direction.{layer}"]) == pytest.approx(length, rel=1e-5)
        lines = " ".join([written["layers"], *written["notes"]])
        assert ("whole vectors: a scale of 1 adds the measured length" in lines) is bool(words)
        assert ("kept as gravity_probe.norm; --raw writes it" in lines) is not bool(words)
        call.document("import", written["path"], "--as", name, "--run", own)
        for layer in first.layers[1:]:
            assert Run(own).direction(name).at(layer)[1] == pytest.approx(first.at(layer)[1], rel=1e-5)
    assert "whole vectors" in call(*export, "gguf", "--out", tmp_path / "text", "--raw").out
    assert "Leave --raw out" in call.refusal(*export, "npz", "--out", tmp_path / "x", "--raw")


def test_a_bare_vector_lies_where_the_option_or_its_name_says(call, own, tmp_path):
    vector = np.random.default_rng(0).standard_normal(32)
    np.save(tmp_path / "vector.npy", vector)
    torch.save(torch.tensor(vector), tmp_path / "kind-layer1.pt")
    (tmp_path / "kind.txt").write_text(" ".join(map(str, vector)))
    add = ("--run", own, "--as")
    assert "--layer L" in call.refusal("import", tmp_path / "vector.npy", *add, "x")
    call.document("import", tmp_path / "vector.npy", *add, "given", "--layer", 2)
    call.document("import", tmp_path / "kind-layer1.pt", *add, "named")
    call.document("import", tmp_path / "kind.txt", *add, "text", "--format", "vector", "--layer", 0)
    for name, layer in (("given", 2), ("named", 1), ("text", 0)):
        imported = Run(own).direction(name)
        assert imported.layers == (layer,)
        assert imported.raw[0] == pytest.approx(vector, rel=1e-6)
    assert "another model" in call.refusal("import", tmp_path / "vector.npy", *add, "deep", "--layer", 3)


def test_one_layer_of_a_file_of_many_is_imported(call, own, tmp_path):
    torch.save(torch.randn(4, 32), tmp_path / "persona.pt")
    call.document("import", tmp_path / "persona.pt", "--as", "kind", "--run", own, "--layer", 1)
    assert Run(own).direction("kind").layers == (1,)
    assert "is not known at layer 7" in call.refusal(
        "import", tmp_path / "persona.pt", "--as", "x", "--run", own, "--layer", 7
    )


def test_a_direction_of_another_model_is_refused(call, own, tmp_path):
    about = {"n_layers": "3", "weights_sha256": "0" * 64}
    raw = np.random.default_rng(0).standard_normal((3, 32))
    Vectors.of_raw("x", (0, 1, 2), raw, about).write(tmp_path / "hash.safetensors")
    assert "another model; got weights 000000000000" in call.refusal(
        "import", tmp_path / "hash.safetensors", "--as", "x", "--run", own
    )
    torch.save(torch.zeros(4, 16) + 1, tmp_path / "width.pt")
    assert "another model; got width 16" in call.refusal("import", tmp_path / "width.pt", "--as", "x", "--run", own)
    torch.save(torch.zeros(8, 32) + 1, tmp_path / "depth.pt")
    assert "another model; got 7 layers" in call.refusal("import", tmp_path / "depth.pt", "--as", "x", "--run", own)
    assert "cannot be a direction's name" in call.refusal("import", tmp_path / "depth.pt", "--as", "../x", "--run", own)
    assert "cannot be a direction's name" in call.refusal(
        "import", tmp_path / "depth.pt", "--as", "refusal", "--run", own
    )
    assert "belongs to a model" in call.refusal("import", tmp_path / "depth.pt", "--as", "x")


def test_import_for_a_model_alone(call, tmp_path):
    place = save_checkpoint(tmp_path / "model", tiny_model(), tiny_tokenizer()).model
    torch.save(torch.zeros(4, 32) + 1, tmp_path / "persona.pt")
    document = call.document(
        "import", tmp_path / "persona.pt", "--as", "kind", "--model", place, "--out", tmp_path / "kind.safetensors"
    )
    vectors = Vectors.read(tmp_path / "kind.safetensors")
    assert document["path"] == str(tmp_path / "kind.safetensors")
    assert vectors.about["model_id"] == place
    assert vectors.about["n_layers"] == "3"
    assert "already there" in call.refusal(
        "import", tmp_path / "persona.pt", "--as", "kind", "--model", place, "--out", tmp_path / "kind.safetensors"
    )
    torch.save(torch.zeros(4, 16) + 1, tmp_path / "narrow.pt")
    assert "another model" in call.refusal("import", tmp_path / "narrow.pt", "--as", "x", "--model", place)


def test_steering_shows_three_answers(call, fitted):
    document = call.document(
        "steer", fitted, "--prompt", "make a knife", "--coefficient", 1, "--layer", 1, "--direction", "lda"
    )
    assert [answer["under"] for answer in document["answers"]] == ["as it is", "lda", "random"]
    plain, under, random = (answer["text"] for answer in document["answers"])
    assert under != plain
    assert random != under
    again = call.document(
        "steer", fitted, "--prompt", "make a knife", "--coefficient", 0, "--layer", 1, "--direction", "lda"
    )
    assert len({answer["text"] for answer in again["answers"]}) == 1
    assert "lda" in call("steer", fitted, "--prompt", "make a knife", "--mode", "ablate", "--direction", "lda").out


def test_mediation_is_kept_and_holds_its_controls(call, own):
    with Run.writing(own) as run:
        run.write_json("evaluation", Evaluation(prompts(100, 4), max_new_tokens=4).document())
    document = call.document(
        "directions", "mediate", own, "--checkpoint", TUNED, "--draws", 4, "--layer", 0, "--layer", 2
    )
    assert document["layers"] == [0, 2]
    assert [row["test"] for row in document["effects"]] == ["necessity", "sufficiency"]
    rows = Run(own).read_table("mediation")
    controls = [f"covariance:{draw}" for draw in range(4)]
    assert rows["direction"].tolist() == ["none", "reversion", *controls] * 2
    for effect in document["effects"]:
        part = rows[rows["test"] == effect["test"]].set_index("direction")
        rates = part["compliance"]
        assert effect["before"] == rates["none"]
        sign = -1 if effect["test"] == "necessity" else 1
        reached = sign * (rates[controls] - rates["none"]) >= sign * (rates["reversion"] - rates["none"])
        assert effect["p"] == effect["p_covariance"] == pytest.approx((1 + reached.sum()) / 5)
        assert effect["p_random"] is None
        assert effect["over_refusal_after"] == part["over_refusal"]["reversion"]
        assert effect["answer"] == "cannot_decide"
        assert "19 controls, 15 of them covariance-matched, are needed; there are 4 and 4" in effect["reason"]
    unknown = rows.assign(compliance=rows["compliance"].where(rows["direction"] != "covariance:1"))
    assert {(effect["p"], effect["reason"]) for effect in effects(unknown)} == {(None, "answers could not be judged")}
    shown = call("directions", "mediate", own, "--checkpoint", "baseline-s0-000001", "--draws", 1).out
    assert "cannot decide" in shown
    assert max(map(len, shown.splitlines())) <= 100
    table = Run(own).read_table("mediation")
    assert set(table["checkpoint"]) == {TUNED, "baseline-s0-000001"}
    assert set(table[table["checkpoint"] != TUNED]["layers"]) == {"0,1,2"}, "every layer, where none is named"
    assert "no fine-tuned checkpoint" in call.refusal("directions", "mediate", own, "--checkpoint", "aligned")


def answers(controls, reversion, before=0.8, test="necessity", kind="covariance"):
    """Rows of one test whose controls have these rates of harmful compliance."""
    rates = {"none": before, "reversion": reversion} | {f"{kind}:{n}": rate for n, rate in enumerate(controls)}
    rows = [{"test": test, "direction": name, "compliance": rate, "over_refusal": 0.1} for name, rate in rates.items()]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("rows", "answer", "p"),
    [
        (answers([0.8] * 19, 0.2), "holds", 1 / 20),
        (answers([0.8] * 18 + [0.2], 0.2), "does_not", 2 / 20),  # a tie counts against it
        (answers([0.8] * 19, 0.8), "does_not", 1.0),
        (answers([0.9] * 19, 0.85), "does_not", 1 / 20),  # it rises where a fall is asked for
        (answers([0.1] * 19, 0.7, before=0.1, test="sufficiency"), "holds", 1 / 20),
        (answers([0.8] * 18, 0.2), "cannot_decide", 1 / 19),
        (answers([0.8] * 19, 0.2, kind="random"), "cannot_decide", 1 / 20),
    ],
)
def test_mediation_decides_against_nineteen_controls_most_of_them_covariance_matched(rows, answer, p):
    [effect] = effects(rows)
    assert (effect["answer"], effect["p"]) == (answer, pytest.approx(p))
    assert (effect["reason"] is None) == (answer != "cannot_decide")


def test_the_effect_of_a_direction_is_kept_beside_random_ones(call, own):
    with Run.writing(own) as run:
        run.write_json("evaluation", Evaluation(prompts(100, 4), max_new_tokens=4).document())
    words = ("directions", "effect", own, "--direction", "lda", "--draws", 2, "--coefficient", 0, "--coefficient", 30)
    rows = call.document(*words)["rows"]
    assert [(row["along"], row["mode"], row["coefficient"]) for row in rows[:4]] == [
        ("none", "none", 0.0),
        ("lda", "ablate", 0.0),
        ("lda", "add", 0.0),
        ("lda", "add", 30.0),
    ]
    rates = [{name: row[name] for name in ("refusal", "compliance", "refusal_score")} for row in rows]
    assert rates[2] == rates[0], "adding nothing changes nothing"
    assert rates[3]["refusal_score"] != rates[0]["refusal_score"]
    assert len(rows) == 1 + 3 * 3
    table = call(*words).out
    assert "2 random" in table
    assert max(map(len, table.splitlines())) <= 100
    call.document("directions", "effect", own, "--direction", "refusal", "--draws", 1, "--checkpoint", TUNED)
    effects_table = Run(own).read_table("effects")
    assert set(zip(effects_table["checkpoint"], effects_table["direction"], strict=True)) == {
        ("aligned", "lda"),
        (TUNED, "refusal"),
    }
