"""The published rule on published scores, by hand, and when nothing passes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.directions.selection import Candidate, Rule, read_scores, select
from probes.errors import StatisticsError, UsageError
from tests import processes

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "published" / "gemma-2b-it"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published direction is not here")


def candidate(position=-1, layer=3, bypass=-5.0, induce=2.0, kl=0.02):
    return Candidate(position, layer, bypass, induce, kl)


def command(*words):
    return processes.run(processes.gravity_probe, "directions", *words)


@published
def test_the_rule_picks_the_published_place():
    published_place = json.loads((PUBLISHED / "direction_metadata.json").read_text())
    selection = select(read_scores(PUBLISHED / "direction_evaluations.json"), 18)
    assert selection.chosen is not None
    assert (selection.chosen.position, selection.chosen.layer) == (published_place["pos"], published_place["layer"])


@published
def test_the_published_direction_is_the_mean_difference_at_that_place():
    place = json.loads((PUBLISHED / "direction_metadata.json").read_text())
    means = torch.load(PUBLISHED / "mean_diffs.pt", weights_only=True, map_location="cpu").numpy()
    direction = torch.load(PUBLISHED / "direction.pt", weights_only=True, map_location="cpu").numpy()
    assert np.array_equal(means[place["pos"], place["layer"]], direction)


def test_the_lowest_bypass_score_of_those_that_pass_is_taken():
    good, better, early = candidate(bypass=-5.0), candidate(bypass=-7.0, position=-2), candidate(bypass=-6.0, layer=0)
    loud, silent, late = (
        candidate(bypass=-9.0, kl=0.2),
        candidate(bypass=-9.0, induce=-0.1),
        candidate(bypass=-9.0, layer=8),
    )
    selection = select([good, loud, better, silent, late, early], 10)
    assert selection.chosen == better
    assert (selection.passing, selection.candidates) == (3, 6)


@pytest.mark.parametrize(
    ("off", "passes"),
    [
        ({"layer": 7}, True),
        ({"layer": 8}, False),
        ({"kl": 0.0999}, True),
        ({"kl": 0.1}, False),
        ({"induce": 0.0}, False),
        ({"induce": 1e-9}, True),
        ({"kl": math.nan}, False),
        ({"bypass": math.nan}, False),
    ],
)
def test_each_filter_has_its_edge(off, passes):
    assert (select([candidate(**off)], 10).chosen is not None) == passes


def test_the_depth_is_a_whole_number_of_layers():
    """int(0.8 · 18) = 14, so layer 13 is the last."""
    assert select([candidate(layer=13)], 18).chosen
    assert select([candidate(layer=14)], 18).chosen is None


def test_when_nothing_passes_it_says_what_is_near_and_what_to_relax():
    far = candidate(bypass=-9.0, kl=0.5, induce=-3.0, layer=9)
    near = candidate(bypass=-4.0, kl=0.15)
    selection = select([far, near, candidate(kl=0.4), candidate(induce=-1.0)], 10)
    assert selection.chosen is None
    assert selection.nearest[0] == (near, ("max_kl",))
    assert selection.nearest[-1] == (far, ("depth", "max_kl", "min_induce"))
    assert selection.relax == ("--max-kl above 0.15", "--min-induce below -1")
    assert select([far], 10).relax == ()
    relaxed = select([far, near, candidate(kl=0.4), candidate(induce=-1.0)], 10, Rule(max_kl=0.151))
    assert relaxed.chosen == near


def test_of_equals_the_first_is_taken():
    assert select([candidate(position=-3), candidate(position=-1)], 10).chosen.position == -3


def test_what_is_no_list_of_scores_is_refused(tmp_path):
    file = tmp_path / "scores.json"
    for text, message in [
        ("{", "no whole JSON"),
        ("{}", "holds no scores"),
        ('[{"position": -1, "layer": 0}]', "'refusal_score'"),
        ('[{"position": "x", "layer": 0, "refusal_score": 0, "steering_score": 0, "kl_div_score": 0}]', "no number"),
    ]:
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_scores(file)
    with pytest.raises(UsageError, match="There is no file of scores"):
        read_scores(tmp_path / "absent.json")
    with pytest.raises(StatisticsError, match="no candidates"):
        select([], 10)
    with pytest.raises(StatisticsError, match="outside"):
        select([candidate(layer=10)], 10)


@published
def test_the_command_prints_position_and_layer():
    done = command("select", PUBLISHED / "direction_evaluations.json", "--layers", 18, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["position"], document["layer"]) == (-2, 10)
    done = command("select", PUBLISHED / "direction_evaluations.json", "--layers", 18)
    assert "position -2" in done.stdout
    assert "layer 10" in done.stdout


def test_the_command_says_when_nothing_passes(tmp_path):
    file = tmp_path / "scores.json"
    row = {"position": -1, "layer": 2, "refusal_score": -3.0, "steering_score": 1.0, "kl_div_score": 0.3}
    file.write_text(json.dumps([row]))
    done = command("select", file, "--layers", 10, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["position"] is None
    assert document["nearest"][0]["layer"] == 2
    assert document["relax"] == ["--max-kl above 0.3"]
    done = command("select", file, "--layers", 10)
    assert done.returncode == 1
    assert "no candidate passes" in done.stdout.lower()
    assert "--max-kl above 0.3" in done.stdout
    assert command("select", file, "--layers", 10, "--max-kl", 0.31).returncode == 0
    assert command("select", file).returncode == 2
