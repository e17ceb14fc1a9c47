"""A killed training ends as if nobody had touched it; `tests.campaign.kill` does the same at length."""

import pytest

from tests import processes


@pytest.mark.slow
def test_a_training_killed_five_times_ends_as_an_undisturbed_one():
    words = ("--verbs", "train", "--draws", "3", "--renames", "2")
    campaign = processes.run(processes.module, "tests.campaign.kill", *words)
    assert campaign.returncode == 0, campaign.stdout + campaign.stderr
    assert campaign.stdout.count("same end") == 5
