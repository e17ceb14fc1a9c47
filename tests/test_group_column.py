"""`--group-column` means the same in every verb that reads prompts of one's own."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import probes
from probes.cli import app
from probes.cli.prompt_files import PromptFiles
from probes.errors import UsageError
from probes.prompts import default_prompts
from probes.run import Run
from tests.builders import save_checkpoint, tiny_tokenizer
from tests.guard.lineages import lineage, prompts
from tests.guard.test_train import lines

THEMES = [f"t{number % 8}" for number in range(16)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A lineage file, data, and prompts of every use whose topic stands under `theme`."""
    home = tmp_path_factory.mktemp("place")
    lineage(home)
    (home / "lineage.toml").write_text('[aligned]\nmodel = "./aligned"\n[witness]\nmodel = "./witness"\n')
    for label in ("harmful", "harmless"):
        chosen = [prompt.text for prompt in prompts(0).prompts if prompt.label == label]
        lines(
            home / f"{label}.jsonl",
            [{"prompt": text, "theme": theme} for text, theme in zip(chosen, THEMES, strict=True)],
        )
    for name, start in (("penalty", 100), ("evaluation", 200)):
        rows = [{"text": prompt.text, "label": prompt.label} for prompt in prompts(start, 8).prompts]
        lines(home / f"{name}.jsonl", [{**row, "theme": f"t{number % 4}"} for number, row in enumerate(rows)])
    (home / "penalty.txt").write_text("\n".join(prompt.text for prompt in prompts(100, 8).prompts[:8]))
    lines(home / "data.jsonl", [{"prompt": f"what is {n}", "completion": f"it is {n}"} for n in range(24)])
    return home


def command(*words, code=0):
    result = CliRunner().invoke(app, list(map(str, words)))
    if isinstance(result.exception, UsageError):
        assert code == 2
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.stdout


def files(place):
    return ("--harmful", place / "harmful.jsonl", "--harmless", place / "harmless.jsonl")


def training(place, verb, source, out):
    return [verb, source, *files(place), "--data", place / "data.jsonl", "--out", out, "--steps", 2, "--batch-size", 4]


@pytest.mark.parametrize(
    ("verb", "penalty", "more"),
    [("train", "penalty.txt", ["--device", "cpu"]), ("arms", "penalty.jsonl", ["--arms", "baseline"])],
)
def test_trainings_group_their_probe_prompts_by_the_column_that_is_named(place, tmp_path, verb, penalty, more):
    words = training(place, verb, place / "lineage.toml", tmp_path / "out")
    words += ["--penalty", place / penalty, *more, "--json", "--group-column"]
    assert "has no column 'topics'" in command(*words, "topics", code=2)
    command(*words, "theme")
    assert Run(tmp_path / "out").groups.tolist() == THEMES * 2


def test_arms_of_an_organism_pass_over_no_prompt_file(place, tmp_path):
    words = ["arms", place / "lineage.toml", "--out", tmp_path / "out"]
    assert "Prompt files are for arms of a lineage" in command(*words, *files(place), code=2)
    assert "Prompt files are for arms of a lineage" in command(*words, "--group-column", "theme", code=2)


def test_a_restored_checkpoint_is_judged_by_the_groups_that_are_named(place, tmp_path):
    tuned = save_checkpoint(tmp_path / "tuned", probes_model(), tiny_tokenizer())
    words = ["restore", tuned.model, "--aligned", place / "aligned", "--witness", place / "witness", *files(place)]
    words += ["--out", tmp_path / "out", "--device", "cpu", "--json", "--group-column"]
    assert "has no column 'topics'" in command(*words, "topics", code=2)
    document = json.loads(command(*words, "theme"))
    assert {row["measure"] for row in document["behaviour"]} > {"refusal_harmful"}


def probes_model():
    from tests.builders import move_weights, tiny_model

    return move_weights(tiny_model(), seed=3, scale=0.02)


def test_a_notebook_groups_by_the_column_that_is_named(place, tmp_path):
    run = probes.measure(
        place / "aligned",
        place / "witness",
        [place / "witness"],
        place / "harmful.jsonl",
        place / "harmless.jsonl",
        out=tmp_path / "run",
        group_column="theme",
        nulls=False,
        bootstraps=20,
        splits=4,
    )
    assert run.groups.tolist() == THEMES * 2


def test_every_prompt_file_of_a_training_has_its_topics(place):
    named = PromptFiles(place / "harmful.jsonl", place / "harmless.jsonl", "theme", (place / "penalty.jsonl", None))
    probe, penalty = named.probe_and_penalty()
    assert probe.groups.tolist() == THEMES * 2
    assert penalty.groups.tolist() == [f"t{number % 4}" for number in range(16)]
    assert named.read_labelled(place / "evaluation.jsonl").groups.tolist() == penalty.groups.tolist()
    with pytest.raises(UsageError, match="has no column 'theme'"):
        named.read_labelled(place / "penalty.txt")


def test_a_column_without_files_is_wrong_usage(place):
    with pytest.raises(UsageError, match="your own files"):
        PromptFiles(group_column="theme").read(default_prompts("probe"))
    with pytest.raises(UsageError, match="One class"):
        PromptFiles(harmful=place / "harmful.jsonl").read(default_prompts("probe"))
