"""How a direction turned: every arm is in the legend, and the legend has its room."""

import pandas as pd
import pytest

from probes.plots.directions import turning

ARMS = ["baseline", "block", "push", "control:continued", "control:random", "helpful", "mirror"]


def draw(arms, seeds=(0,)):
    rows = [(arm, seed, step) for arm in arms for seed in seeds for step in (1, 10)]
    rows += [(role, 0, 0) for role in ("aligned", "witness", "pretrained")]
    numbers = {name: 0.9 for name in ("angle", "norm", "auroc", "refit", "cosine")}
    table = pd.DataFrame(rows, columns=["arm", "seed", "step"]).assign(**numbers)
    return turning(table, direction="refusal", chosen=(arms[0], seeds[0]), subtitle="run")


@pytest.mark.parametrize("seeds", [(0,), (1, 2)])
def test_every_arm_is_named_once_whatever_its_seeds(seeds):
    named = [trace.name for trace in draw(ARMS, seeds).data if trace.showlegend]
    assert sorted(named) == sorted([*ARMS, "aligned", "witness", "pretrained"])


def test_a_longer_legend_takes_room_above_and_none_of_the_panels():
    few, many = draw(ARMS[:3]).layout, draw(ARMS).layout
    assert many.margin.t - few.margin.t == many.height - few.height >= 2 * 12
