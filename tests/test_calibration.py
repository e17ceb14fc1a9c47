"""How often the ladder errs over 500 simulated runs of each world, and how often it finds what is there.

A share is at most 5 % when the count is not above the 95th percentile of a binomial with 5 % (33 of 500).
`CALIBRATION_RUNS=N` simulates more or fewer; `pytest -s` prints how many runs reached each level.
"""

import os

import numpy as np
import pytest
from scipy import stats

from tests.worlds import World, power_law, verdict_of

pytestmark = pytest.mark.slow
RUNS = int(os.environ.get("CALIBRATION_RUNS", "500"))
MOST = stats.binom.ppf(0.95, RUNS, 0.05)
DRAWS = 99


def unrelated(rng, spectrum):
    """Witness and checkpoint moved in directions of the content's covariance that have nothing to do with another."""
    world = World(rng, per_class=16, spectrum=spectrum)
    places = (0.0, world.like_content(), 0.5 * world.like_content())
    return world, [world.checkpoint(place) for place in places], None


def isotropic(rng):
    return unrelated(rng, np.ones(96))


def powers(rng):
    return unrelated(rng, power_law(96))


def shared_endpoint(rng):
    """Fine-tuning shrinks what is special about the aligned model, as noise on its weights does; prompts are noisy."""
    world = World(rng, per_class=16, spectrum=power_law(96, 0.5), noise=1.0)
    special = world.like_content()
    aligned, witness = world.checkpoint(special), world.checkpoint(world.like_content())

    def perturbed():
        shrunk = -rng.uniform(0.2, 0.6) * special + 0.3 * world.like_content()
        return aligned + shrunk + 0.5 * world.like_content(32)

    return world, [aligned, witness, perturbed()], [perturbed() for _ in range(19)]


def shared_prompt_noise(rng):
    """Nothing is shared but the aligned model's noise on each prompt, which is as large as the prompts' content."""
    world = World(rng, per_class=16, spectrum=power_law(96, 0.5), noise=1.0)
    return world, [world.checkpoint(place) for place in (0.0, world.like_content(), 0.7 * world.like_content())], None


def common_mode(rng):
    """The witness differs on harmful prompts above all; the checkpoint falls back alike on all prompts."""
    world = World(rng, per_class=16, spectrum=power_law(96, 0.5), noise=0.7)
    common, specific = world.like_content(), world.only_harmful(world.like_content())
    return world, [world.checkpoint(place) for place in (0.0, common + specific, 0.5 * common)], None


def common_mode_with_loud_specific_noise(rng):
    """The same, and prompts move to and fro along the very direction that is specific, whatever their label."""
    world = World(rng, per_class=16, spectrum=np.ones(96), noise=0.3)
    common, specific = world.like_content(), world.like_content()
    aligned, witness = world.checkpoint(0.0), world.checkpoint(common + world.only_harmful(specific))
    along = rng.standard_normal((32, 1)) * specific / 4
    return world, [aligned, witness, world.checkpoint(0.5 * common + along)], None


def reversion(rng, fraction=0.3):
    """64 prompts of width 512, half of them harmful; shams are noise of the displacement's size."""
    world = World(rng, per_class=32, spectrum=power_law(512, 0.5))
    back = world.only_harmful(world.like_content()) + 0.5 * world.like_content()
    aligned, witness, tuned = (world.checkpoint(share * back) for share in (0.0, 1.0, fraction))
    shams = [aligned + fraction * world.like_content() + world.noise * world.like_content(64) for _ in range(19)]
    return world, [aligned, witness, tuned], shams


def levels(make, runs=RUNS):
    """The levels that `runs` simulated trajectories reach."""
    found = []
    for run in range(runs):
        world, checkpoints, shams = make(np.random.default_rng([run, 2026]))
        found.append(verdict_of(world, *checkpoints, draws=DRAWS, shams=shams, splits=10)[0].level)
    print(f"{make.__name__}: levels 1 to 5 reached {np.bincount(found, minlength=6)[1:]} times of {runs}")  # noqa: T201
    return np.array(found)


@pytest.mark.parametrize("make", [isotropic, powers, shared_endpoint, shared_prompt_noise])
def test_without_reversion_at_most_five_per_cent_reach_level_4(make):
    found = levels(make)
    assert (found >= 4).sum() <= MOST
    assert (found >= 2).mean() > 0.5, "a displacement that is hardly ever measurable would show nothing"


@pytest.mark.parametrize("make", [common_mode, common_mode_with_loud_specific_noise])
def test_a_common_mode_shift_reaches_level_5_at_most_five_times_in_a_hundred(make):
    found = levels(make)
    assert (found == 5).sum() <= MOST
    assert (found == 4).mean() > 0.5, "where level 4 is hardly ever reached, level 5 cannot be wrong"


def test_a_reversion_of_three_tenths_is_found_nine_times_in_ten():
    assert (levels(reversion, max(20, RUNS // 5)) >= 4).mean() >= 0.9
