"""A killed training ends as if nobody had touched it; `tests.campaign.kill` does the same at length."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_training_killed_five_times_ends_as_an_undisturbed_one():
    words = [sys.executable, "-m", "tests.campaign.kill", "--verbs", "train", "--draws", "3", "--renames", "2"]
    campaign = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert campaign.returncode == 0, campaign.stdout + campaign.stderr
    assert campaign.stdout.count("same end") == 5
