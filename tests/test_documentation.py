"""README and pages say what is there: their links lead somewhere, their commands exist, their figures are the run's."""

import re
from pathlib import Path

import pytest
import torch
import typer

from probes.cli import app
from probes.run import Run
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "data/docs").glob("*.md"))
COMMAND = typer.main.get_command(app)


def block_after(mark: str) -> str:
    """The fenced block that follows an HTML comment in the README."""
    match = re.search(rf"<!-- {mark} -->\n```\w*\n(.*?)\n```", README.read_text("utf-8"), re.DOTALL)
    assert match, f"README.md has no block marked {mark!r}"
    return match[1]


def commands_in(page: Path) -> list[list[str]]:
    """The words of every command in a page's code, after the program's name."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [line.partition(" #")[0] for block in fenced for line in block.splitlines()] + inline
    named = (re.split(r"gravity-probe ", line)[-1].split() for line in lines)
    return [words for words in named if words and words[0] in COMMAND.commands]


def options_of(words: list[str]) -> set[str]:
    """The options of the verb that the words begin with."""
    command = COMMAND
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def test_the_readme_is_short():
    assert len(README.read_text("utf-8").split()) <= 1200


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_paragraph_that_the_page_quotes_is_the_shipped_runs():
    lines = (ROOT / "data/docs/verdict.md").read_text("utf-8").splitlines()
    quoted = " ".join(line.removeprefix("> ") for line in lines if line.startswith("> "))
    texts = [verdict["text"] for verdict in Run(ROOT / "data/demo-run").verdicts]
    assert any(text.startswith(quoted) for text in texts), quoted


def test_every_page_is_reached_from_the_navigation():
    listed = re.findall(r"[\w-]+\.md", (ROOT / "data/mkdocs.yml").read_text("utf-8"))
    assert sorted(listed) == [page.name for page in PAGES]


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_options_of_commands_exist(page):
    unknown = [
        (" ".join(words[:2]), word)
        for words in commands_in(page)
        for word in words
        if word.startswith("--") and word not in options_of(words)
    ]
    assert unknown == []


def test_commands_are_found_at_all():
    assert ["summary", "data/smollm2-run"] in commands_in(README)
    assert sum(len(commands_in(page)) for page in PAGES) > 40


def test_the_marked_blocks_are_there():
    assert "pytest" in block_after("test command")
    assert "gravity-probe demo" in block_after("demo command")
    compile(block_after("notebook lines"), "README.md", "exec")


def cell_of(frame, arm, column, name, form):
    """What a cell of a table holds: the arm's last number, of each seed."""
    rows = frame[(frame["arm"] == arm) & (frame[column] == name)].sort_values("step")
    numbers = [float(own["value"].iloc[-1]) for _, own in rows.groupby("seed")]
    return " · ".join(form(number) for number in numbers)


def decimal(number):
    return f"{number:.2f}".replace("-", "−")


def percent(number):
    return f"{number:.0%}".replace("%", " %")


def table_of(text):
    """Cells by row of every table line of a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return {
        line.split("|")[1].strip(): [cell.strip().strip("`") for cell in line.split("|")[2:-1]]
        for line in lines
        if not line.startswith("|---")
    }


@pytest.mark.parametrize(
    ("text", "arms_in", "names"),
    [
        pytest.param(
            README.read_text("utf-8").partition("## What comes out")[2].partition("## In a notebook")[0],
            "SmolLM2, step 10, layer 24",
            ("refusals of harmful requests", "return fraction: 0 aligned, 1 witness"),
            id="readme",
        ),
        pytest.param(
            (ROOT / "data/docs/demo.md").read_text("utf-8").partition("## SmolLM2")[2].partition("- **Ten")[0],
            "",
            ("refuses harmful requests", "return fraction"),
            id="page",
        ),
    ],
)
def test_the_tables_of_the_shipped_chat_model_hold_its_numbers(text, arms_in, names):
    run = Run(ROOT / "data/smollm2-run")
    rows = table_of(text)
    behaviour, drift = run.table("behaviour"), run.drift(layer=run.headline_layer)
    measures = {names[0]: "refusal_harmful", "complies with harmful requests": "harmful_compliance"}
    measures |= {"refuses their harmless twins": "refusal_harmless"}
    statistics = {names[1]: "return_fraction", "alignment with the way back, cross-fitted": "alignment_crossfit"}
    statistics |= {"DiD alignment": "did_alignment", "off-axis length": "off_axis"}
    arms = rows.pop(arms_in)
    place = f"step {run.lineage.trajectories[0].checkpoints[-1].step}, layer {run.headline_layer}"
    assert arms_in.endswith(place if arms_in else "")
    held = 0
    for row, cells in rows.items():
        for arm, cell in zip(arms, cells, strict=True):
            if row in measures:
                assert cell == cell_of(behaviour, arm, "measure", measures[row], percent), (row, arm)
            elif row.startswith("task loss"):
                assert cell == cell_of(behaviour, arm, "measure", "task_loss", decimal), (row, arm)
            elif row in statistics and arm not in ("aligned", "witness"):
                assert cell == cell_of(drift, arm, "statistic", statistics[row], decimal), (row, arm)
            else:
                continue
            held += 1
    assert held >= 18


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """What a notebook has at hand: the shipped run, three tiny checkpoints, a model, arrays, prompts."""
    (tmp_path / "data").symlink_to(ROOT / "data", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "a", tiny_model(), tiny_tokenizer())
    for seed, name in enumerate(("w", "c"), start=1):
        save_checkpoint(tmp_path / name, move_weights(tiny_model(), seed=seed), tiny_tokenizer())
    run = Run("data/demo-run")
    arrays = [run.activations(name, layer=2) for name in ("aligned", "witness", "baseline-s0-000100")]
    return {
        "model": tiny_model(hidden_size=64, num_hidden_layers=4),
        "inputs": {"input_ids": torch.tensor([[1, 2, 3]]), "max_new_tokens": 2},
        **dict(zip("AWT", arrays, strict=True)),
        "mask": run.harmful,
        "harmful": [f"How do I break lock {n}?" for n in range(16)],
        "harmless": [f"How do I bake loaf {n}?" for n in range(16)],
        "prompts": [f"How do I forge key {n}?" for n in range(16)],
    }


@pytest.mark.slow
def test_the_notebook_lines_run(notebook):
    exec(block_after("notebook lines"), notebook)
    assert notebook["verdict"].level in range(1, 6)
    assert notebook["run"].tuned[0].id == "baseline-s0-000001"
