"""Asking a checkpoint by hand: it gives what was measured, a push moves by what it says, and nothing is left behind."""

import shutil

import numpy as np
import pytest
import torch

from probes.directions.vectors import Vectors
from probes.errors import CheckpointError, GravityError, PromptError, UsageError
from probes.run import Run
from probes.tasks.ask import TOP, Asked, Bench
from tests.builders import CONTEXT, move_weights, save_checkpoint, tiny_model, tiny_tokenizer
from tests.measured import PROMPTS, measured_run

LAYER = 1
STEP = "baseline-s0-000010"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("live")
    measured_run(home)
    return home


@pytest.fixture(scope="module")
def run(home):
    return Run(home / "runs" / "tiny")


@pytest.fixture(scope="module")
def bench(run):
    return Bench.open(run)


@pytest.fixture(scope="module")
def vectors(run):
    return Vectors.read(run.path / "directions" / "reversion.safetensors")


@pytest.mark.parametrize("checkpoint", ["aligned", "witness", STEP])
def test_the_last_token_projects_to_what_was_measured(run, bench, vectors, checkpoint):
    unit, norm = vectors.at(LAYER)
    for place in (0, 17):
        read = bench.read(checkpoint, vectors, Asked(PROMPTS.prompts[place].text, LAYER))
        measured = run.activations(checkpoint, LAYER)[place].astype(np.float64)
        assert read.projections[-1] == pytest.approx(measured @ unit / norm, abs=1e-4)


def test_chances_are_those_of_the_model_alone(home, bench, vectors):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = home / "checkpoints" / "witness"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "break lock 03"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = model(ids).logits[0, -1].double().softmax(-1).numpy()
    read = bench.read("witness", vectors, Asked("break lock 03", LAYER))
    assert read.chances == pytest.approx(expected, abs=1e-6)
    assert "".join(read.tokens) == text
    assert list(read.words) == list(np.argsort(-expected, kind="stable")[:TOP])


@pytest.mark.parametrize("coefficient", [-2.0, 0.5, 3.0])
def test_a_push_moves_every_token_by_its_coefficient_and_leaves_no_trace(bench, vectors, coefficient):
    plain = bench.read("aligned", vectors, Asked("break lock 01", LAYER, new_tokens=5))
    pushed = bench.read("aligned", vectors, Asked("break lock 01", LAYER, coefficient, new_tokens=5))
    again = bench.read("aligned", vectors, Asked("break lock 01", LAYER, new_tokens=5))
    assert pushed.projections - plain.projections == pytest.approx(coefficient, abs=1e-3)
    assert not np.allclose(pushed.chances, plain.chances, atol=1e-6)
    assert (again.chances == plain.chances).all()
    assert again.answer == plain.answer is not None


def test_a_push_by_one_equals_adding_the_difference_of_means(run, bench, vectors):
    """At the last token, pushing the aligned model by 1 puts the mean where the witness's is, along the direction."""
    unit, norm = vectors.at(LAYER)
    harmful = [prompt.text for prompt in PROMPTS.prompts if prompt.label == "harmful"]
    pushed = np.mean([bench.read("aligned", vectors, Asked(text, LAYER, 1.0)).projections[-1] for text in harmful])
    mean = run.activations("witness", LAYER)[: len(harmful)].astype(np.float64).mean(axis=0)
    assert pushed == pytest.approx(mean @ unit / norm, abs=1e-3)


@pytest.mark.parametrize("name", ["../../etc", "nobody", ""])
def test_only_the_lineage_is_opened(bench, vectors, name):
    with pytest.raises(CheckpointError, match="lineage has no checkpoint"):
        bench.read(name, vectors, Asked("x", LAYER))


def test_a_direction_of_another_model_is_refused(bench, vectors):
    foreign = Vectors("other", (0,), np.ones((1, 5), np.float32), np.ones(1, np.float32))
    with pytest.raises(UsageError, match="another model"):
        bench.read("aligned", foreign, Asked("x", 0))
    stranger = Vectors(
        "other", vectors.layers, vectors.direction, vectors.norm, {**vectors.about, "weights_sha256": "f" * 64}
    )
    with pytest.raises(UsageError, match="another model"):
        bench.read("aligned", stranger, Asked("x", LAYER))


def test_what_cannot_be_asked_is_a_sentence(bench, vectors):
    for nothing in ("", " \n"):
        with pytest.raises(UsageError, match="empty"):
            Asked(nothing, LAYER)
    with pytest.raises(UsageError, match="not known at layer"):
        bench.read("aligned", vectors, Asked("x", 99))
    with pytest.raises(PromptError, match="longer than the model's context"):
        bench.read("aligned", vectors, Asked("x" * (CONTEXT + 1), LAYER))


def test_a_place_that_holds_other_weights_by_now_is_refused(run, home, vectors, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(home, again)
    manifest = again / "runs" / "tiny" / "run.json"
    manifest.write_text(manifest.read_text().replace(str(home), str(again)))
    save_checkpoint(again / "checkpoints" / "witness", move_weights(tiny_model(), seed=9, scale=0.02), tiny_tokenizer())
    opened = Bench.open(Run(again / "runs" / "tiny"))
    opened.read("aligned", vectors, Asked("x", LAYER))
    with pytest.raises(CheckpointError, match="other weights"):
        opened.read("witness", vectors, Asked("x", LAYER))
    shutil.rmtree(again / "checkpoints" / "aligned")
    with pytest.raises(GravityError):
        Bench.open(Run(again / "runs" / "tiny"))
