"""What stands beside a level: mirror and continued training by interval, Holm, histories, the layer; and `assess`."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import probes
from probes.errors import StatisticsError
from probes.verdict.comparisons import ReturnPair, compare_returns
from probes.verdict.families import adjust_levels, is_member, over_histories
from probes.verdict.headline import choose_headline_layer, nominal_layer
from probes.verdict.ladder import judge
from tests.test_verdict import evidence
from tests.worlds import World, power_law


def pairs_of(world, fraction, mirrored, runs=3, spread=0.0):
    """A return of `fraction` beside that of a mirror that returns `mirrored`, in so many runs."""
    back = world.only_harmful(2 * world.like_content())
    aligned, witness = world.checkpoint(0.0), world.checkpoint(back)
    pairs = []
    for _ in range(runs):
        own = fraction + spread * world.rng.standard_normal()
        tuned, mirror = world.checkpoint(own * back), world.checkpoint((1 - mirrored) * back)
        rows = (witness - aligned, tuned - aligned, mirror - witness)
        pairs.append(ReturnPair.of(*(row[world.harmful] for row in rows), mirrored=True))
    return pairs


def test_the_difference_of_returns_is_the_planted_one():
    world = World(np.random.default_rng(0), per_class=64, noise=0.3)
    comparison = compare_returns(pairs_of(world, 0.4, 0.1), world.harmful)
    assert comparison.difference == pytest.approx(0.3, abs=0.03)
    assert comparison.low < comparison.difference < comparison.high
    assert (comparison.answer, comparison.runs) == ("exceeds", 3)
    turned = compare_returns(pairs_of(world, 0.1, 0.4), world.harmful)
    assert (turned.answer, turned.difference) == ("does_not", pytest.approx(-0.3, abs=0.03))


def test_without_a_difference_it_is_said_to_exceed_in_at_most_five_per_cent():
    """One-sided at 2.5 %; the shared noise of the aligned model and of the witness cancels by cross-fitting."""
    exceeds = 0
    for seed in range(200):
        world = World(np.random.default_rng([seed, 3]), per_class=24, spectrum=np.ones(64), noise=1.0)
        exceeds += compare_returns(pairs_of(world, 0.2, 0.2), world.harmful, bootstraps=300).answer == "exceeds"
    assert exceeds <= stats.binom.ppf(0.95, 200, 0.05)


def test_runs_that_differ_and_topics_that_move_together_widen_the_interval():
    def width(**options):
        world = World(np.random.default_rng(4), per_class=64, noise=0.3, topic=16)
        pairs = pairs_of(world, 0.4, 0.1, **{name: options[name] for name in ("runs", "spread") if name in options})
        comparison = compare_returns(pairs, world.harmful, groups=world.groups if options.get("grouped") else None)
        return comparison.high - comparison.low

    assert width(runs=5, spread=0.2) > 1.5 * width(runs=5)


def test_one_or_two_runs_are_prompt_level_only_and_none_are_not_tested():
    world = World(np.random.default_rng(0), per_class=32, noise=0.3)
    comparison = compare_returns(pairs_of(world, 0.4, 0.1, runs=2), world.harmful)
    assert (comparison.answer, comparison.runs) == ("exceeds", 2)
    assert "prompt-level only" in comparison.sentence("its mirror")
    none = compare_returns([], world.harmful)
    assert (none.answer, none.difference, none.runs) == ("not_tested", None, 0)
    few = compare_returns(pairs_of(world, 0.4, 0.1), world.harmful, groups=np.arange(64) % 5)
    assert few.answer == "not_tested"
    assert "too few groups" in few.reason


def verdicts(p_values, arms=None, draws=999):
    arms = arms or [f"arm-{number}" for number in range(len(p_values))]
    judged = []
    for arm, p in zip(arms, p_values, strict=True):
        known = evidence({"sham_drift": p})
        nulls = [null if null.p != p else type(null)(**{**vars(null), "draws": draws}) for null in known.nulls]
        judged.append(judge(type(known)(**{**vars(known), "arm": arm, "nulls": nulls})))
    return judged


def test_levels_are_adjusted_by_holm_over_the_runs_own_trajectories():
    """Of three: 0.01 · 3 and 0.02 · 2 are kept, 0.045 · 1 too; with four, 0.02 · 3 is lost and all that follow."""
    three = adjust_levels(verdicts([0.02, 0.01, 0.045]))
    assert [verdict.level_holm for verdict in three] == [5, 5, 5]
    four = adjust_levels(verdicts([0.02, 0.01, 0.045, 0.2]))
    assert [verdict.level for verdict in four] == [5, 5, 5, 3]
    assert [verdict.level_holm for verdict in four] == [3, 5, 3, 3]
    assert "level_holm" in four[0].to_json()


def test_controls_mirror_and_positive_control_are_no_members():
    arms = ["baseline", "control:random", "mirror", "helpful", "block"]
    assert [is_member(arm) for arm in arms] == [True, False, False, False, True]
    adjusted = adjust_levels(verdicts([0.02, 0.001, 0.001, 0.001, 0.02], arms))
    assert [verdict.level_holm for verdict in adjusted] == [5, None, None, None, 5]


def test_where_the_draws_are_too_few_for_so_many_trajectories_it_says_how_many_it_takes():
    adjusted = adjust_levels(verdicts([0.025, 0.025, 0.025], draws=39))
    assert {verdict.level_holm for verdict in adjusted} == {"not reachable with 39 draws (59 needed)"}
    two = adjust_levels(verdicts([0.025, 0.025], draws=39))
    assert {verdict.level_holm for verdict in two} == {5}


def test_independent_histories_have_a_binomial_p_from_five_on():
    five = over_histories([4, 5, 3, 2, 4])
    assert (five.reached, five.histories) == (3, 5)
    assert five.p == pytest.approx(stats.binom.sf(2, 5, 0.05))
    four = over_histories([4, 5, 5, 4])
    assert (four.reached, four.p) == (4, None)
    assert "too few for a p-value" in four.words


def blocks(separations, seed=0, per_class=48, noise=0.5):
    """Aligned and witness behind each block, so many of the noise's spreads apart on harmful prompts."""
    rng = np.random.default_rng(seed)
    pairs = []
    for separation in separations:
        world = World(rng, per_class=per_class, spectrum=np.ones(64), noise=noise)
        shift = world.only_harmful(separation * noise * world.direction())
        pairs.append((world.checkpoint(0.0), world.checkpoint(shift)))
    return pairs, world.harmful, rng.random(2 * per_class) < 0.5


def test_the_headline_is_the_block_that_tells_aligned_from_witness_best_and_never_the_last():
    pairs, harmful, fold = blocks([0, 12, 4, 0, 40])
    choice = choose_headline_layer(pairs, harmful, fold)
    assert choice.layer == 1
    assert max(choice.d_prime, key=choice.d_prime.get) == 4, "the last block is the best, and is not taken"
    assert set(choice.d_prime) == set(choice.error) == set(range(5))


def test_of_blocks_within_one_standard_error_the_one_nearest_to_three_fifths_is_taken():
    (block,), harmful, fold = blocks([20])
    aligned, witness = block

    def chosen(*shares):
        moved = [(aligned, aligned + share * (witness - aligned)) for share in shares]
        return choose_headline_layer(moved, harmful, fold)

    best = chosen(0.5, 1.0, 0.98, 0.5, 0.98, 0.5, 0.5, 0.5, 0.98, 0.5)
    assert best.ties == (1, 2, 4, 8)
    assert best.layer == 4, "4 and 8 lie two blocks from the sixth; the earlier one is taken"
    assert chosen(*[1.0] * 10).layer == 6


def test_the_headline_is_a_block_at_which_the_aligned_model_tells_the_classes_if_there_is_one():
    pairs, harmful, fold = blocks([40, 4, 4])
    before = choose_headline_layer(pairs, harmful, fold)
    assert (before.layer, before.rule) == (0, "models"), "where none tells them, all blocks are looked at"
    classes = 8 * np.outer(harmful, np.eye(64)[0])
    pairs[1] = tuple(rows + classes for rows in pairs[1])
    choice = choose_headline_layer(pairs, harmful, fold)
    assert choice.d_prime[0] > choice.d_prime[1], "the first tells the models apart better"
    assert choice.auroc[0] < 0.8 <= choice.auroc[1]
    assert (choice.layer, choice.rule) == (1, "classes_and_models")


def test_with_one_prompt_of_a_class_on_fold_a_no_block_is_chosen():
    pairs, harmful, _ = blocks([20, 4])
    fold = harmful & (np.cumsum(harmful) > 1)
    with pytest.raises(StatisticsError, match="single prompt"):
        choose_headline_layer(pairs, harmful, fold)


def test_a_run_whose_rule_was_not_written_down_still_opens():
    run = probes.open(Path(__file__).parents[1] / "data" / "smollm2-run")
    assert run.read_json("headline")["layer"] == run.headline_layer == 24
    assert run.headline_rule is None


def test_the_headline_is_chosen_on_fold_a_alone():
    pairs, harmful, fold = blocks([3, 3, 3, 3])
    spoilt = []
    for aligned, witness in pairs:
        noised = np.where(fold[:, None], 100 * np.random.default_rng(1).standard_normal(witness.shape), witness)
        spoilt.append((np.where(fold[:, None], 0.0, aligned), noised))
    assert choose_headline_layer(pairs, harmful, fold) == choose_headline_layer(spoilt, harmful, fold)


def test_cross_validation_gives_no_separation_where_there_is_none():
    pairs, harmful, fold = blocks([0] * 12)
    choice = choose_headline_layer(pairs, harmful, fold)
    assert abs(np.mean(list(choice.d_prime.values()))) < 0.15


def test_without_a_witness_the_headline_is_at_three_fifths_of_the_depth():
    assert [nominal_layer(depth) for depth in (1, 2, 4, 30, 32)] == [0, 0, 2, 18, 19]


def planted_arrays(seed=0, fraction=0.4, count=39):
    world = World(np.random.default_rng([seed, 9]), per_class=32, spectrum=power_law(128, 0.5), topic=4)
    back = world.only_harmful(2 * world.like_content())
    rows = {
        "aligned": world.checkpoint(0.0),
        "witness": world.checkpoint(back),
        "tuned": world.checkpoint(fraction * back),
    }
    own = np.linalg.norm((rows["tuned"] - rows["aligned"])[world.harmful].mean(axis=0))
    moves = [fraction * 2 * world.like_content() + 0.3 * world.like_content(64) for _ in range(count)]
    lengths = [np.linalg.norm(move[world.harmful].mean(axis=0)) for move in moves]
    shams = [rows["aligned"] + move * (own / length) for move, length in zip(moves, lengths, strict=True)]
    return {**rows, "harmful": world.harmful}, shams, world.groups


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_assess_finds_a_planted_return_in_arrays_of_any_precision(dtype):
    arrays, shams, groups = planted_arrays()
    arrays = {name: rows if rows.dtype == bool else rows.astype(dtype) for name, rows in arrays.items()}
    verdict = probes.assess(**arrays, shams=[sham.astype(dtype) for sham in shams], groups=groups, layer=3)
    assert verdict.level == 5
    assert 0 <= verdict.power <= 1
    assert verdict.p <= 0.05
    assert "layer 3" in verdict.text.lower()
    assert verdict.off_refusal_axis.answer == "also_off"
    assert {line.name for line in verdict.profile} == set(probes.nulls.PROFILE) - {"sham_drift_weights"}
    assert all(test.power is not None for test in verdict.tests)


def test_without_shams_no_level_above_3_is_given():
    arrays, _, _ = planted_arrays()
    verdict = probes.assess(**arrays)
    assert (verdict.level, verdict.decided_by) == (3, "sham_drift")
    assert verdict.name == "towards the witness; not tested: sham_drift, sham_witness"


def test_assess_is_the_same_every_time_and_another_with_another_seed():
    arrays, shams, _ = planted_arrays()
    first, again, other_seed = (probes.assess(**arrays, shams=shams, seed=seed) for seed in (0, 0, 1))
    assert first.to_json() == again.to_json()
    assert first.tests != other_seed.tests


def test_assess_refuses_what_cannot_be_judged():
    arrays, shams, _ = planted_arrays()
    with pytest.raises(StatisticsError, match="do not belong together"):
        probes.assess(**arrays, shams=[sham[:-1] for sham in shams])
    with pytest.raises(StatisticsError, match="groups do not fit"):
        probes.assess(**arrays, groups=["a"] * 5)
    with pytest.raises(StatisticsError, match="too few groups"):
        probes.assess(**arrays, groups=["a", "b"] * 32)
    with pytest.raises(StatisticsError, match="A seed is a whole number"):
        probes.assess(**arrays, seed=-1)
    with pytest.raises(StatisticsError, match="witness equals"):
        probes.assess(**{**arrays, "witness": arrays["aligned"]})


def test_assess_needs_no_torch():
    code = "import sys; from probes.verdict.assess import assess; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_one_with_few_draws_beside_others_with_many_is_not_reachable():
    """Only one arm has shams: the many draws of the others' tests do not help it."""
    (few,) = verdicts([0.025], draws=39)
    three = adjust_levels([few, *verdicts([0.2, 0.3])])
    assert three[0].level_holm == "not reachable with 39 draws (59 needed)"
    after_others = adjust_levels([few, *verdicts([0.001, 0.002])])
    assert after_others[0].level_holm == 5, "the last of three by Holm is not multiplied"


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.01, 99), (0.03, 33), (0.07, 14)])
def test_the_number_of_draws_that_are_needed_can_reach_alpha(alpha, needed):
    (known,) = verdicts([0.2], draws=5)
    evidence = replace(known.evidence, alpha=alpha)
    words = next(iter(evidence.missing([known.decided_by]).values()))
    assert words == f"5 draws are too few, {needed} or more are needed"
    assert 1 / (needed + 1) <= alpha < 1 / needed


def test_assess_takes_tensors_that_numpy_does_not_read_and_refuses_copies_of_one_sham():
    arrays, shams, _ = planted_arrays()
    tensors = {name: torch.tensor(rows) for name, rows in arrays.items()}
    as_bfloat = {name: rows if name == "harmful" else rows.bfloat16() for name, rows in tensors.items()}
    as_bfloat["tuned"].requires_grad_()
    rounded = {name: rows.detach().float().numpy() for name, rows in as_bfloat.items() if name != "harmful"}
    assert probes.assess(**as_bfloat) == probes.assess(**rounded, harmful=arrays["harmful"])
    with pytest.raises(StatisticsError, match="the same, so they are one draw"):
        probes.assess(**arrays, shams=[shams[0]] * 39)
