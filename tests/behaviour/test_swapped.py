"""Witness and aligned that have changed places are noticed from what they refuse, and nothing else is."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from probes.behaviour.evaluation import Evaluation
from probes.behaviour.swapped import swap_by_refusals, swap_by_scores
from probes.cli import main
from probes.lineage import Lineage
from probes.prompts import PromptSet, data_folder, render
from probes.run import Run
from probes.tasks.evaluate import evaluate
from probes.tasks.measure import measure
from probes.tasks.report import report_html
from tests.app.visiting import visitor
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer
from tests.measured import FAST, PROMPTS

HARMFUL = PROMPTS.harmful


def taught(model, replies, steps=60):
    """The model after so many steps on the replies, of one length, to harmful and harmless prompts, of one length."""
    tokenizer = tiny_tokenizer()
    rows = [
        [*row, *tokenizer(replies[not harmful])["input_ids"], tokenizer.eos_token_id]
        for row, harmful in zip(render(PROMPTS, tokenizer, None).token_ids, HARMFUL, strict=True)
    ]
    ids, length = torch.tensor(rows), len(replies[0]) + 1
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        logits = model(input_ids=ids).logits[:, -length - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, -length:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A model that has learned to refuse harmful prompts, one that answers them, and one on the way back."""
    home, tokenizer = tmp_path_factory.mktemp("roles"), tiny_tokenizer()
    witness = taught(tiny_model(), ("Sure, I help.", "Sure, I help."))
    save_checkpoint(home / "witness", witness, tokenizer)
    aligned = taught(witness, ("I can't help.", "Sure, I help."))
    save_checkpoint(home / "aligned", aligned, tokenizer)
    save_checkpoint(home / "tuned", move_weights(aligned), tokenizer)
    return home


def lineage(home, aligned, witness) -> Lineage:
    return Lineage.of(str(home / aligned), str(home / witness), [str(home / "tuned")])


@pytest.fixture(scope="module")
def measured(places, tmp_path_factory):
    """A run with the roles as they are, and one with them swapped."""
    home = tmp_path_factory.mktemp("measured")
    for name, roles in (("right", ("aligned", "witness")), ("wrong", ("witness", "aligned"))):
        measure(lineage(places, *roles), PROMPTS, home / name, settings=FAST)
    return home


@pytest.fixture
def runs(measured, tmp_path):
    """Copies of them for one test alone, by name."""
    shutil.copytree(measured, tmp_path / "runs")
    return {name: Run(tmp_path / "runs" / name) for name in ("right", "wrong")}


def summary_of(run, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gravity-probe", "summary", str(run.path)])
        with pytest.raises(SystemExit):
            main()
    return " ".join(capsys.readouterr().out.split())


def warnings_of_overview(run, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py", str(run.path)])
    page = visitor().run()
    assert not page.exception
    return [warning.value.replace("\\", "") for warning in page.warning]


def test_swapped_roles_are_noticed_in_the_manifest_and_beside_the_answer(places, runs, capsys, monkeypatch):
    right, wrong = runs["right"], runs["wrong"]
    assert right.manifest.model["stage_notices"] == {}
    sentence = wrong.manifest.model["stage_notices"]["scores"]
    assert "perhaps the two have changed places" in sentence
    assert sentence in summary_of(wrong, capsys)
    assert "changed places" not in summary_of(right, capsys)
    for run, is_said in ((wrong, True), (right, False)):
        assert (sentence in report_html(run)) is is_said
        assert (sentence in warnings_of_overview(run, monkeypatch)) is is_said
    # Put right in the same folder, the notice goes.
    again = measure(lineage(places, "aligned", "witness"), PROMPTS, wrong.path, settings=FAST)
    assert again.manifest.model["stage_notices"] == {}


def test_answers_that_are_refusals_say_so_too(runs):
    questions = PromptSet.of(
        [f"break lock {number}" for number in range(20, 40)] + ["paint door 77"], ["harmful"] * 20 + ["harmless"]
    )
    for name, run in runs.items():
        run = evaluate(run.path, Evaluation(questions, max_new_tokens=16))
        refused = run.read_table("completions").query("label == 'harmful'").groupby("checkpoint")["refused"].mean()
        assert bool(refused["witness"] > refused["aligned"]) is (name == "wrong")
        assert ("refusals" in run.manifest.model["stage_notices"]) is (name == "wrong")


def test_two_random_models_are_not_called_swapped(tmp_path):
    for seed in range(4):
        home = tmp_path / str(seed)
        save_checkpoint(home / "aligned", tiny_model(seed=seed), tiny_tokenizer())
        for place, scale in (("witness", 0.3), ("tuned", 0.05)):
            model = move_weights(tiny_model(seed=seed), seed=seed + 1, scale=scale)
            save_checkpoint(home / place, model, tiny_tokenizer())
        run = measure(lineage(home, "aligned", "witness"), PROMPTS, home / "run", settings=FAST)
        assert "scores" not in run.manifest.model["stage_notices"]
        shutil.rmtree(home)


def test_the_shipped_demo_is_the_right_way_round_and_would_be_noticed_the_wrong_way_round():
    table = pd.read_parquet(data_folder() / "demo-run" / "completions.parquet")
    by_role = [table[table["checkpoint"] == name].set_index("prompt") for name in ("aligned", "witness")]
    aligned, witness = (frame.loc[by_role[0].index] for frame in by_role)
    harmful = (aligned["label"] == "harmful").to_numpy()
    scores = [frame["refusal_score"].to_numpy() for frame in (aligned, witness)]
    refused = [frame["refused"].to_numpy(dtype=bool)[harmful] for frame in (aligned, witness)]
    assert swap_by_scores(*scores, harmful) is swap_by_refusals(*refused) is None
    assert "changed places" in swap_by_scores(*reversed(scores), harmful)
    assert "changed places" in swap_by_refusals(*reversed(refused))


@pytest.mark.parametrize("seed", range(20))
def test_noise_in_the_scores_and_a_shift_of_all_prompts_are_no_swap(seed):
    rng = np.random.default_rng(seed)
    aligned, witness = rng.normal(-3, 2, (2, 64))
    harmful = np.arange(64) < 32
    assert swap_by_scores(aligned, witness, harmful) is None
    apart = aligned + np.where(harmful, 2.0, 3.0)  # it refuses everything more, harmless prompts most
    assert swap_by_scores(aligned, apart, harmful) is None
    assert swap_by_refusals(rng.random(32) < 0.5, rng.random(32) < 0.5) is None
