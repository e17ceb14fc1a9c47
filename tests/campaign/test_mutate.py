"""Changed inputs end in a result or in a refusal; `tests.campaign.mutate` does the same at length."""

import time

import pytest

from tests import processes
from tests.campaign.inputs import CASES
from tests.campaign.mutate import Hang, limits
from tests.campaign.mutations import mutate


@pytest.mark.slow
def test_thirty_changed_inputs_end_without_a_traceback():
    campaign = processes.run(processes.module, "tests.campaign.mutate", "--draws", "30", "--seed", "1")
    assert campaign.returncode == 0, campaign.stdout + campaign.stderr
    assert campaign.stdout.splitlines()[-1].split()[:2] == ["all", "30"]


def test_every_case_has_a_name_of_its_own():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.toml", "a.csv", "a.safetensors", "a.bin"])
def test_a_change_follows_from_its_seed_and_is_one(tmp_path, name):
    import random

    content = b'{"a": [1, {"b": "c"}]}' if "json" in name else b"a,b\n1,2\n"
    if name == "a.safetensors":
        content = (24).to_bytes(8, "little") + b'{"__metadata__":{"a":1}}' + b"\0" * 16
    changed = 0
    for seed in range(40):
        results = []
        for copy in ("one", "two"):
            path = tmp_path / copy / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            results.append((mutate(path, random.Random(seed)), path.read_bytes()))
        assert results[0] == results[1]
        changed += results[0][1] != content
    assert changed > 30


def test_a_hang_is_told_by_the_processors_time_and_not_by_a_busy_machines_clock():
    with limits(seconds=0.3, waiting=5.0):
        time.sleep(0.6)
    with pytest.raises(Hang), limits(seconds=0.3, waiting=60.0):
        _run_for_ever()
    with pytest.raises(Hang), limits(seconds=60.0, waiting=0.2):
        time.sleep(5)
    time.sleep(0.3)  # and nothing is left that would raise later


def _run_for_ever():
    while True:
        pass


@pytest.mark.slow
def test_a_campaign_goes_on_where_another_was_stopped():
    """Draw 594 of seed 4711 (settings that are blank, so that every default counts) was called a hang once."""
    words = ["--draws", "595", "--from", "594", "--seed", "4711", "--only", "settings"]
    campaign = processes.run(processes.module, "tests.campaign.mutate", *words)
    assert campaign.returncode == 0, campaign.stdout + campaign.stderr
    assert campaign.stdout.splitlines()[-1].split()[:3] == ["all", "1", "1"]
