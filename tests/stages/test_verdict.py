"""The verdict of a run with many arms, made by the program itself from tiny real checkpoints with topics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.lineage import CheckpointRef, Lineage, Step, Trajectory, Witness
from probes.prompts import PromptSet
from probes.store.settings import Settings
from probes.tasks.measure import judge, measure
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer

TOPICS = [f"topic {index // 4}" for index in range(40)]
PROMPTS = PromptSet.of(
    [f"break lock {index:02d}" for index in range(40)] + [f"paint door {index:02d}" for index in range(40)],
    ["harmful"] * 40 + ["harmless"] * 40,
    topics=TOPICS * 2,
    pairs=[f"pair {index}" for index in range(40)] * 2,
)
FAST = Settings(bootstraps=20, splits=4, draws=199, permutations=199, shams=19)
# Where each arm ends: a share of the way from aligned to witness; the mirror starts at the witness.
ENDS = {"baseline": 0.6, "block": 0.1, "helpful": 0.8, "mirror": 0.9, "control:continued": 0.1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home, tokenizer, aligned = tmp_path_factory.mktemp("arms"), tiny_tokenizer(), tiny_model()
    start = {name: tensor.clone() for name, tensor in aligned.state_dict().items()}
    save_checkpoint(home / "aligned", aligned, tokenizer)
    witness = move_weights(aligned, seed=1, scale=0.1)
    end = {name: tensor.clone() for name, tensor in witness.state_dict().items()}
    save_checkpoint(home / "witness", witness, tokenizer)
    trajectories = []
    for place, (arm, share) in enumerate(ENDS.items()):
        for seed in range(3 if arm in ("baseline", "mirror") else 1):
            torch.manual_seed(100 * place + seed)
            weights = {
                name: torch.lerp(start[name], end[name], share) + 0.002 * torch.randn_like(start[name])
                for name in start
            }
            witness.load_state_dict(weights)
            folder = home / f"{arm.replace(':', '-')}-{seed}"
            save_checkpoint(folder, witness, tokenizer)
            trajectories.append(Trajectory(arm=arm, seed=seed, checkpoints=(Step(step=9, model=str(folder)),)))
    lineage = Lineage(
        name="arms",
        witness=Witness(model=str(home / "witness")),
        aligned=CheckpointRef(model=str(home / "aligned")),
        trajectories=tuple(trajectories),
    )
    return measure(lineage, PROMPTS, home / "runs" / "arms", settings=FAST)


def verdict_of(run, arm, seed=0):
    return next(verdict for verdict in run.verdicts if (verdict["arm"], verdict["seed"]) == (arm, seed))


def test_a_mirror_gets_no_level_and_no_null(run):
    assert {verdict["arm"] for verdict in run.verdicts} == set(ENDS) - {"mirror"}
    assert "mirror" not in set(run.nulls()["arm"])


def test_the_baseline_is_held_against_mirror_and_continued_training(run):
    beside = verdict_of(run, "baseline")["mirror"]
    assert (beside["answer"], beside["runs"]) == ("exceeds", 3), beside
    assert beside["low"] < beside["difference"] < beside["high"]
    assert beside["difference"] == pytest.approx(0.6 - 0.1, abs=0.2)
    assert verdict_of(run, "baseline")["continued"]["runs"] == 1
    assert verdict_of(run, "block")["mirror"]["answer"] == "not_tested"


def test_arms_without_shams_are_not_tested_and_get_them_when_asked(run):
    block = verdict_of(run, "block")
    assert block["level"] <= 3
    assert {"sham_drift: not run", "sham_witness: not run"} <= set(block["untested"])
    drawn = run.read_table("shams").groupby("checkpoint")["draw"].count()
    assert set(drawn.index) == {f"baseline-s{seed}-000009" for seed in range(3)}
    again = judge(run.path, 19, sham_arms=["baseline", "block"])
    assert "block-s0-000009" in set(again.read_table("shams")["checkpoint"])
    assert not any("sham" in entry for entry in verdict_of(again, "block")["untested"])


def test_every_verdict_has_its_qualifiers(run):
    for verdict in run.verdicts:
        assert set(verdict["off_refusal_axis"]) == {"answer", "p", "power"}
        assert set(verdict["mirror"]) == {"answer", "difference", "low", "high", "runs"}
        assert verdict["power"] is None or 0 <= verdict["power"] <= 1
        assert (verdict["level_holm"] is None) == (verdict["arm"] in ("helpful", "control:continued"))


def test_tests_go_by_topic(run):
    """Ten topics: five in a fold, so that signs have thirty-two arrangements; labels change hands within pairs."""
    rows = run.nulls(run.headline_layer).set_index(["checkpoint", "null"])
    sign = rows.loc[("baseline-s0-000009", "sign_flip")]
    assert sign["p"] >= 1 / 40
    assert run.groups is not None
    assert run.pairs is not None
    assert np.isfinite(rows.loc[("baseline-s0-000009", "label_permutation"), "power"])


def test_no_control_is_called_a_reversion_and_the_baseline_only_beside_its_mirror(run):
    for verdict in run.verdicts:
        answers = {verdict[name]["answer"] for name in ("mirror", "continued")}
        if "counts as reversion" in verdict["text"]:
            assert verdict["arm"] == "baseline"
            assert answers == {"exceeds"}
        elif verdict["level"] > 3:
            assert "not count as reversion" in verdict["text"]
        else:
            assert "reversion" not in verdict["text"]
    assert any("counts as reversion" in verdict["text"] for verdict in run.verdicts)
