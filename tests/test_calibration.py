"""How often the ladder errs over simulated runs of each world, and how often it finds what is there.

A share is at most 5 % when the count is not above the 95th percentile of a binomial with 5 % (33 of 500); what is
there has to be found in at least 90 %. The whole table is
`python -m tests.calibration`; a quick subset runs always, all worlds with `-m calibration`.
"""

import glob
import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from probes.run import Run
from tests.calibration import simulate, write_table
from tests.calibration_worlds import SHAMS, TRIALS, Trial, beyond_noise, out_of_reach, shared_endpoint
from tests.type_checks import no_type_checks
from tests.worlds import World, power_law, verdict_of

RUNS = int(os.environ.get("CALIBRATION_RUNS", "500"))
QUICK = 60
QUICKLY = [name for name, trial in TRIALS.items() if "4096" not in name and "256 prompts" not in name][::3]
DATA = os.path.join(os.path.dirname(__file__), "..", "data")
# Shipped runs that hold the baseline's activations; a whole run of a real model is added by CALIBRATION_RUN=FOLDER.
REAL = [os.path.dirname(os.path.dirname(file)) for file in sorted(glob.glob(f"{DATA}/*-run/activations/baseline-*"))]
REAL += [os.environ["CALIBRATION_RUN"]] if os.environ.get("CALIBRATION_RUN") else []
MOST_LAYERS = 6


@pytest.mark.parametrize("name", QUICKLY)
def test_a_few_trajectories_of_every_third_world(name):
    counts = simulate(TRIALS[name], QUICK // 2 if "width 512" in name else QUICK)
    assert counts.holds, write_table([counts])


@pytest.mark.calibration
@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_claims_hold_over_five_hundred_trajectories(name):
    counts = simulate(TRIALS[name], RUNS)
    assert counts.holds, write_table([counts])


@pytest.mark.parametrize(
    "name", [name for name in TRIALS if name.startswith(("common", "unrelated")) and "4096" not in name]
)
def test_worlds_are_not_won_by_saying_nothing(name):
    """A displacement that is hardly ever measurable shows nothing, nor does level 5 where level 4 is never reached."""
    levels = simulate(TRIALS[name], 12).levels
    assert (levels >= (4 if TRIALS[name].level == 5 else 2)).mean() > 0.5


def test_without_groups_topics_would_be_taken_for_evidence():
    """What the groups are for: the same world, judged as if prompts were independent."""
    trial = replace(TRIALS["topics of eight of one class, the shams' do not"], options={"grouped": False})
    assert simulate(trial, 2 * QUICK).claimed > 0.1 * 2 * QUICK


def test_without_the_cap_what_the_shams_alone_answer_would_be_taken_for_reversion():
    """What the cap is for: a shared endpoint beyond weight noise, judged as if the sham tests were of no account."""
    trial = Trial("shared endpoint", partial(beyond_noise, shared_endpoint), options={"saturated": True})
    assert simulate(trial, QUICK).claimed == 0
    uncapped = replace(trial, options={"saturated": True, "capped": False})
    assert simulate(uncapped, QUICK).claimed > 0.5 * QUICK


def test_where_weight_noise_goes_every_way_it_cannot_be_decided():
    """No test could have found it, and so nothing is said to be explained."""
    for seed in range(8):
        world, checkpoints, shams = out_of_reach(np.random.default_rng([seed, 4]), gap=0.3)
        verdict, results = verdict_of(world, *checkpoints, shams=shams, splits=10, power=True)
        assert verdict.level == 3
        assert results["sham_drift"].power < 0.8
        assert "cannot decide against sham_" in verdict.name
        assert "told apart" not in verdict.text


@pytest.fixture(scope="module", params=REAL, ids=lambda path: os.path.basename(os.path.normpath(path)))
def real(request):
    """A run of real checkpoints, the layers that are looked at, and the cosines of its weight noise by layer."""
    run = Run(request.param)
    layers = range(run.n_layers)
    if len(layers) > MOST_LAYERS:
        layers = sorted({*np.linspace(1, len(layers) - 2, MOST_LAYERS - 1).astype(int).tolist(), run.headline_layer})
    shams = run.read_table("shams")
    old = "cosine" in shams  # of an earlier version: cosines alone, of every layer
    last = shams[shams["checkpoint"].str.startswith("baseline")]["checkpoint"].max()
    rows = shams[(shams["checkpoint"] == last) & ((shams["null"] == "sham_drift") if old else True)]
    if old:
        return run, {layer: rows[rows["layer"] == layer]["cosine"].to_numpy() for layer in layers}
    # Today's shams are read at the headline layer alone; elsewhere weight noise is taken to lean no way.
    cosines = {layer: np.zeros(SHAMS) for layer in layers} | {run.headline_layer: rows["drift"].to_numpy()}
    return run, cosines


def last_of_baseline(run):
    """The last checkpoint of the baseline of which the run holds activations."""
    return max((member for member in run.measured if member.arm == "baseline"), key=lambda member: member.step).id


def planted_in(run, layer, cosines, seed):
    """A return at cosine 0.66 beside noise like prompts within their class; shams have the cosines that were seen."""
    rng = np.random.default_rng([seed, 66])
    world = World(rng, per_class=1, spectrum=power_law(run.activations("aligned", layer).shape[1]))
    world.harmful, world.groups, world.pairs = run.harmful, run.groups, run.pairs
    aligned, witness, tuned = (
        run.activations(name, layer).astype(np.float64) for name in ("aligned", "witness", last_of_baseline(run))
    )
    centred = aligned - np.where(
        run.harmful[:, None], *(aligned[own].mean(axis=0) for own in (run.harmful, ~run.harmful))
    )
    back = (witness - aligned)[run.harmful].mean(axis=0)
    unit, length = back / np.linalg.norm(back), np.linalg.norm((tuned - aligned)[run.harmful].mean(axis=0))
    residuals = tuned - aligned
    for own in (run.harmful, ~run.harmful):
        residuals[own] -= residuals[own].mean(axis=0)

    def off():
        noise = rng.standard_normal(len(centred)) @ centred
        noise -= (noise @ unit) * unit
        return noise / np.linalg.norm(noise)

    def move(cosine):
        signs = rng.choice([-1.0, 1.0], (len(aligned), 1))
        return (
            aligned
            + run.harmful[:, None] * length * (cosine * unit + np.sqrt(1 - cosine**2) * off())
            + signs * residuals
        )

    shams = [move(cosine) for cosine in np.resize(cosines, SHAMS)]
    return world, [aligned, witness, move(0.66)], shams


def found_in(run, layer, cosines, seed):
    """Whether a planted return is told apart; NaN where weight noise reaches it, which then is said.

    The power is asked only of what is not told apart: the rest has no use for it.
    """
    for power in (False, True):
        world, checkpoints, shams = planted_in(run, layer, cosines, seed)
        verdict, results = verdict_of(world, *checkpoints, shams=shams, splits=10, power=power)
        if verdict.level >= 4:
            break
    reached = max(results["sham_drift"].p, results["sham_witness"].p) > 0.05
    assert not reached or "cannot decide against" in verdict.name, verdict.name
    assert "explain" not in verdict.text
    return np.nan if reached else float(verdict.level >= 4)


def test_a_return_planted_in_real_activations_is_found_where_no_weight_noise_reaches_it(real):
    """What the covariance centred over all prompts used to explain away: the gap between the classes was in it."""
    run, cosines = real
    shares = []
    for layer in cosines:
        hits = [found_in(run, layer, cosines[layer], 0)]
        with no_type_checks():
            hits += [found_in(run, layer, cosines[layer], seed) for seed in range(1, 30)]
        shares.append(np.nanmean(hits) if np.isfinite(hits).any() else np.nan)
        if max(cosines[layer]) < 0.6:
            assert np.isfinite(hits).mean() > 0.5, "weight noise does not reach the planted cosine here"
    assert np.isfinite(shares).sum() >= 2, shares
    assert np.nanmin(shares) >= 0.9, shares
