"""A killed training ends as if nobody had touched it; `tests.campaign.kill` does the same at length."""

import pytest

from tests import processes


@pytest.mark.slow
def test_a_training_killed_at_a_moment_and_at_two_renames_ends_as_an_undisturbed_one():
    words = ("--verbs", "train", "--draws", "1", "--renames", "2")
    campaign = processes.run(processes.module, "tests.campaign.kill", *words)
    assert campaign.returncode == 0, campaign.stdout + campaign.stderr
    assert campaign.stdout.count("same end") == 3
