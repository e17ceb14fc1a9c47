"""The wells: what density they are of, how many basins it has, and that paths lie above them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import gaussian_kde

from probes.plots import well
from probes.plots.well_depth import CEILING, Well, make_well
from probes.plots.well_surface import surface

WIDE, HIGH = (-1.0, 2.0), (-1.0, 1.0)


def prompts(witness_at=1.0, n=60, spread=0.12):
    rng = np.random.default_rng(0)
    rows = [
        (arm, label, *(rng.standard_normal(2) * spread + (at if label == "harmful" else 9.0, 0.0)))
        for arm, at in (("aligned", 0.0), ("witness", witness_at), ("pretrained", witness_at))
        for label in ("harmful", "harmless")
        for _ in range(n)
    ]
    return pd.DataFrame(rows, columns=["arm", "label", "projection", "across"])


def paths():
    rows = [("aligned", 0, 0, 0.0, 0.0), ("witness", 0, 0, 1.0, 0.0)]
    rows += [("baseline", 0, step, 0.9 * share, 0.1 * share) for step, share in ((1, 0.2), (10, 0.6), (100, 1.0))]
    rows += [("block", 0, step, -0.2 * share, 0.0) for step, share in ((1, 0.2), (10, 0.6), (100, 1.0))]
    rows += [("push", 0, step, 3.0 * share, 0.4 * share) for step, share in ((1, 0.2), (10, 0.6), (100, 1.0))]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "along", "across"])


def test_the_depth_is_minus_the_logarithm_of_both_groups_densities_half_and_half():
    table = prompts()
    density, harmful = make_well(table, WIDE, HIGH), table[table["label"] == "harmful"]
    columns = ["projection", "across"]
    aligned = gaussian_kde(harmful[harmful["arm"] == "aligned"][columns].to_numpy().T)
    earlier = gaussian_kde(harmful[harmful["arm"] != "aligned"][columns].to_numpy().T)
    assert density.bandwidths == pytest.approx((60 ** (-1 / 6), 120 ** (-1 / 6)))
    expected = [-np.log(0.5 * aligned(spot) + 0.5 * earlier(spot))[0] for spot in ((0.0, 0.0), (1.0, 0.1), (0.2, 0.1))]
    depths = density.depth_at([0.0, 1.0, 0.2], [0.0, 0.1, 0.1])
    np.testing.assert_allclose(depths - depths[0], np.array(expected) - expected[0], atol=0.02)
    assert density.depth.min() == 0
    assert density.depth.max() == CEILING
    assert list(density.depth_at([99.0], [0.0])) == [CEILING]


@pytest.mark.parametrize(("witness_at", "basins"), [(0.0, 1), (0.1, 1), (1.0, 2), (1.6, 2)])
def test_planted_clouds_are_counted(witness_at, basins):
    assert make_well(prompts(witness_at), WIDE, HIGH).basins == basins


def test_a_few_prompts_far_from_the_rest_are_no_basin():
    table = prompts()
    strays = pd.DataFrame({"arm": "witness", "label": "harmful", "projection": [-0.9, -0.9], "across": [0.8, 0.85]})
    assert make_well(pd.concat([table, strays]), WIDE, HIGH).basins == 2


@pytest.mark.parametrize("table", [prompts(n=7), prompts().assign(across=0.0)], ids=["few", "on a line"])
def test_without_a_density_there_is_no_well_and_the_figure_says_so(table):
    assert make_well(table[table["arm"] != "pretrained"], WIDE, HIGH) is None
    for draw in (well.contour, surface):
        fig = draw(table[table["arm"] != "pretrained"], paths(), subtitle="")
        assert "No well" in fig.layout.title.text


@pytest.mark.parametrize("draw", [well.contour, surface])
def test_the_estimator_is_stated_and_a_density_is_not_called_a_force(draw):
    fig = draw(prompts(), paths(), subtitle="run · layer 2")
    (caption,) = (note.text.replace("<br>", " ") for note in fig.layout.annotations if note.name == "caption")
    assert "Gaussian kernels, Scott's bandwidth (0.51 and 0.45 of their spreads)" in caption
    assert "A density is not a force" in caption
    assert fig.layout.title.text == "Where harmful prompts lie: 2 basins"


def test_paths_are_opaque_lie_above_the_surface_and_end_where_it_ends():
    fig = surface(prompts(), paths(), subtitle="")
    ground = next(trace for trace in fig.data if trace.type == "surface")
    density = Well(np.array(ground.x), np.array(ground.y), np.array(ground.z), (), ())
    lines = [trace for trace in fig.data if trace.type == "scatter3d" and trace.legendgroup]
    assert {trace.legendgroup for trace in lines} == {"baseline", "block", "push"}
    for trace in lines:
        np.testing.assert_allclose(trace.z, density.depth_at(trace.x, trace.y) + 0.15)
        assert trace.opacity in (None, 1)
        assert max(trace.x) <= density.along[-1]
    keys = [trace for trace in fig.data if trace.showlegend is not False and trace.type == "scatter3d"]
    assert [key.name for key in keys] == ["baseline", "block", "push → 3.00, outside"]
    looks = {(key.line.color, key.line.dash, key.marker.symbol) for key in keys}
    assert len(looks) == len(keys), "the legend tells arms apart by more than their colour"


def test_every_layer_has_its_panel_with_its_number_of_basins_to_one_scale():
    layers = {0: prompts(0.0), 1: prompts(1.0)}
    table = pd.concat([own.assign(layer=layer) for layer, own in layers.items()])
    ways = pd.concat([paths().assign(layer=layer) for layer in layers])
    fig = well.multiples(table, ways, layers=[0, 1], subtitle="", headline=1)
    titles = [note.text for note in fig.layout.annotations if (note.text or "").startswith("layer")]
    assert titles == ["layer 0: 1 basin", "layer 1 ★: 2 basins"]
    assert len({axis.range for axis in fig.select_xaxes() if axis.range}) == 1
    assert [axis.scaleanchor for axis in fig.select_yaxes()] == [axis.anchor for axis in fig.select_yaxes()]


def test_the_mirror_sets_out_from_the_witness_and_every_other_arm_from_the_aligned_model():
    mirror = pd.DataFrame([("mirror", 0, 10, 1.1, 0.3)], columns=["arm", "seed", "step", "along", "across"])
    begun = {arm: tuple(path.iloc[0]) for arm, _, path in well.ways(pd.concat([paths(), mirror], ignore_index=True))}
    assert begun == {"mirror": (0, 1.0, 0.0)} | {arm: (0, 0.0, 0.0) for arm in ("baseline", "block", "push")}


def test_seeds_of_an_arm_that_leaves_share_one_name():
    second = paths().query("arm == 'push'").assign(seed=1, along=lambda rows: rows["along"] * 1.1)
    figure = well.contour(prompts(), pd.concat([paths(), second], ignore_index=True), subtitle="")
    notes = [(note.name, note.text) for note in figure.layout.annotations if note.name in ("far", "leaves")]
    assert notes == [("leaves", ""), ("far", "push, 3.00 to 3.30 of the way"), ("leaves", "")]
