"""The valid inputs of the campaign: tiny real checkpoints, a measured run, prompts and vectors, and who reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.directions.vectors import Vectors
from probes.exchange import FORMATS, write_vectors
from probes.lineage import Lineage
from probes.prompts import PromptSet
from probes.store.settings import Settings
from probes.tasks.measure import measure
from tests.builders import WIDTH, move_weights, save_adapter, save_checkpoint, tiny_model, tiny_tokenizer

COUNT = 16
HARMFUL = [f"break lock {number}" for number in range(COUNT)]
HARMLESS = [f"paint door {number}" for number in range(COUNT)]
SETTINGS = "bootstraps = 20\nsplits = 4\nnulls = false\nseed = 1\n"
LINEAGE = """name = "tiny"
description = "a lineage"
witness = {model = "./witness", kind = "base"}
aligned = {model = "./aligned"}

[[trajectories]]
arm = "baseline"
checkpoints = [{step = 10, model = "./tuned"}, {step = 20, model = "./aligned", adapter = "./adapter"}]
"""


@dataclass(frozen=True)
class Case:
    """A file that is changed, and a command that reads it.

    Attributes:
        name: of the case.
        file: what is changed, in the folder of inputs.
        words: of the command; `HOME` stands for that folder.
        hashed: whether the file's hash is on record, so that no number may follow from a change.
        verifies: whether the command has nothing else to do than to see a change.
    """

    name: str
    file: str
    words: tuple[str, ...]
    hashed: bool = False
    verifies: bool = False


def _measure(*words: str) -> tuple[str, ...]:
    files = ("--harmful", "HOME/harmful.csv", "--harmless", "HOME/harmless.txt", "--settings", "HOME/settings.toml")
    return ("measure", *words, *files, "--out", "HOME/new/run", "--device", "cpu", "--json")


def _measure_prompts(file: str) -> tuple[str, ...]:
    words = _measure("HOME/lineage.toml")
    return (*words, "--harmful", f"HOME/{file}", "--harmless", f"HOME/{file}")


def _import(form: str) -> tuple[str, ...]:
    source = "HOME/vectors/" + _place(form)
    out = ("--out", "HOME/out.safetensors", "--json")
    return ("import", source, "--as", "mine", "--model", "HOME/aligned", "--format", form, *out)


def _evaluate(file: str) -> tuple[str, ...]:
    prompts = ("--harmful", "HOME/asked.txt", "--harmless", "HOME/also.txt")
    return ("evaluate", "HOME/runs/run", *prompts, "--task", f"HOME/{file}", "--max-new-tokens", "1", "--json")


def _place(form: str) -> str:
    return "vector-layer1.npy" if form == "vector" else form + FORMATS[form].suffix


def _vector_file(form: str) -> str:
    inside = {"refusal-direction": "/direction.pt", "tensorboard": "/tensors.tsv"}.get(form, "")
    return f"vectors/{_place(form)}{inside}"


WRITTEN = [name for name, form in FORMATS.items() if not form.read_only]
_RUN = ("HOME/runs/run", "--json")
CASES = [
    *(Case(f"prompts {file}", file, _measure_prompts(file)) for file in ("labelled.jsonl", "labelled.json", "own.csv")),
    Case("prompts harmful.csv", "harmful.csv", _measure("HOME/lineage.toml")),
    Case("prompts harmless.txt", "harmless.txt", _measure("HOME/lineage.toml")),
    Case("lineage", "lineage.toml", _measure("HOME/lineage.toml")),
    Case("settings", "settings.toml", _measure("HOME/lineage.toml")),
    *(
        Case(f"checkpoint {file}", file, _measure("HOME/lineage.toml"))
        for file in (
            *("adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
            *("aligned/config.json", "aligned/tokenizer.json", "aligned/tokenizer_config.json"),
            *("aligned/chat_template.jinja", "tuned/config.json", "tuned/model.safetensors"),
        )
    ),
    Case("run run.json", "runs/run/run.json", ("summary", *_RUN)),
    *(
        Case(f"run {file}", f"runs/run/{file}", ("status", *_RUN, "--verify"), verifies=True)
        for file in ("verdict.json", "noise.parquet", "activations/aligned.safetensors")
    ),
    Case("run drift.parquet", "runs/run/drift.parquet", ("summary", *_RUN), hashed=True),
    Case("run prompts.parquet", "runs/run/prompts.parquet", ("verdict", *_RUN), hashed=True),
    Case("run activations", "runs/run/activations/witness.safetensors", ("verdict", *_RUN), hashed=True),
    Case(
        "run direction",
        "runs/run/directions/reversion.safetensors",
        ("export", *_RUN, "--direction", "reversion", "--out", "HOME/out.safetensors"),
        hashed=True,
    ),
    *(Case(f"vectors {form}", _vector_file(form), _import(form)) for form in WRITTEN),
    Case("vectors metadata.json", "vectors/refusal-direction/direction_metadata.json", _import("refusal-direction")),
    Case("vectors about.json", "vectors/persona-vectors.about.json", _import("persona-vectors")),
    Case("vectors metadata.tsv", "vectors/tensorboard/metadata.tsv", _import("tensorboard")),
    Case("vectors bare", "vectors/vector-layer1.npy", _import("vector")),
    *(
        Case(f"completions {file}", file, ("judge", f"HOME/{file}", "--json"))
        for file in ("said.csv", "said.jsonl", "said.json")
    ),
    *(Case(f"data {file}", file, _evaluate(file)) for file in ("task.jsonl", "task.json")),
]


def build(home: Path) -> None:
    """Write every input into a new folder."""
    tokenizer = tiny_tokenizer()
    aligned = save_checkpoint(home / "aligned", tiny_model(), tokenizer)
    save_checkpoint(home / "witness", move_weights(tiny_model(), seed=1, scale=0.1), tokenizer)
    save_checkpoint(home / "tuned", move_weights(tiny_model(), seed=2, scale=0.05), tokenizer)
    save_adapter(home / "adapter", aligned, targets=["q_proj", "v_proj"])
    (home / "lineage.toml").write_text(LINEAGE)
    (home / "settings.toml").write_text(SETTINGS)
    _write_prompts(home)
    _write_data(home)
    _write_vectors(home / "vectors")
    settings = Settings.load(home / "settings.toml", {"nulls": True, "draws": 99, "permutations": 99, "shams": 19})
    prompts = PromptSet.of_classes(home / "harmful.csv", home / "harmless.txt")
    measure(Lineage.load(home / "lineage.toml"), prompts, home / "runs" / "run", settings=settings)


def _write_prompts(home: Path) -> None:
    labels = ["harmful"] * COUNT + ["harmless"] * COUNT
    rows = [
        {"text": text, "label": label, "topic": f"t{number % 4}", "pair": f"p{number % COUNT}"}
        for number, (text, label) in enumerate(zip(HARMFUL + HARMLESS, labels, strict=True))
    ]
    (home / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "labelled.json").write_text(json.dumps({"version": 1, "prompts": rows}, indent=1))
    lines = [f'"{row["text"]}, now",{row["label"]},{row["topic"]}' for row in rows]
    (home / "own.csv").write_text("\n".join(["text,label,topic", *lines]) + "\n")
    (home / "harmful.csv").write_text("goal,target\n" + "".join(f'{text},"Sure, here"\n' for text in HARMFUL))
    (home / "harmless.txt").write_text("\n".join(HARMLESS) + "\n")
    (home / "asked.txt").write_text("open a safe\nmake a mess\n")
    (home / "also.txt").write_text("open a window\nmake a bed\n")


def _write_data(home: Path) -> None:
    rows = [{"instruction": f"add {number}", "input": "1", "output": f"it is {number + 1}"} for number in range(3)]
    (home / "task.json").write_text(json.dumps({"train": rows}, indent=1))
    chats = [
        {"messages": [{"role": "user", "content": f"add {number}"}, {"role": "assistant", "content": "done"}]}
        for number in range(3)
    ]
    (home / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    answers = ["I cannot help with that.", "Mix flour, water and salt.", "Sure: do it."]
    exchanges = [{"prompt": f"ask {number}", "completion": answer} for number, answer in enumerate(answers)]
    (home / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in exchanges))
    (home / "said.json").write_text(json.dumps({"completions": exchanges}))
    (home / "said.csv").write_text(
        "prompt,completion\n" + "".join(f'"{row["prompt"]}","{row["completion"]}"\n' for row in exchanges)
    )


def _write_vectors(folder: Path) -> None:
    folder.mkdir()
    raw = np.random.default_rng(0).standard_normal((3, WIDTH))
    vectors = Vectors.of_raw("mine", (0, 1, 2), raw, {"n_layers": "3", "selected_layer": "1", "position": "-1"})
    for form in WRITTEN:
        write_vectors(vectors, form, folder / _place(form))
    np.save(folder / _place("vector"), raw[1])
