"""Every figure: what is drawn, in which colour, with which axes."""

import math

import numpy as np
import pandas as pd
import pytest

from probes.plots import style
from probes.plots.by_step import by_step
from probes.plots.heatmap import CELLS, heatmap, run_limits
from probes.plots.lineage_path import lineage_path
from probes.plots.projections import density, projections
from probes.plots.trajectories import plane, space
from probes.statistics import MEASURES, STATISTICS, statistic_of

EVIL = "<script>x</script>"


def steps(values, arm="baseline", seed=0, wide=0.1):
    rows = [(arm, seed, step, value, value - wide, value + wide) for step, value in values.items()]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "value", "low", "high"])


def traces(fig, name):
    return [trace for trace in fig.data if trace.name == name]


def notes(fig, name):
    return [note.text for note in fig.layout.annotations if note.name == name]


TWO_ARMS = pd.concat(
    [
        steps({1: 0.1, 10: 0.4, 100: 0.8}),
        steps({1: 0.0, 10: 0.1, 100: -0.2}, arm="block"),
        steps({0: 1.0}, arm="witness"),
    ]
)
NULLS = pd.DataFrame(
    {
        "null": ["isotropic"] * 2 + ["sham_drift"] * 2,
        "step": [1, 100, 1, 100],
        "limit": [0.2, 0.2, 0.4, 0.5],
        "draws": 999,
    }
)


class TestByStep:
    def test_lines_have_their_arms_colour_and_the_measured_values(self):
        fig = by_step(TWO_ARMS, statistic="return_fraction", subtitle="run")
        (line,) = traces(fig, "baseline s0")
        assert list(line.y) == [0.1, 0.4, 0.8]
        assert list(line.x) == [0, 1, 2]
        assert line.line.color == "#D55E00"
        assert traces(fig, "block s0")[0].line.color == "#009E73"

    def test_the_band_is_the_interval(self):
        fig = by_step(steps({1: 0.1, 10: 0.4}, wide=0.05), statistic="alignment", subtitle="run")
        (band,) = traces(fig, "band baseline")
        assert np.allclose(band.y, [0.15, 0.45, 0.35, 0.05])

    def test_axes_have_units_and_zero_is_apart(self):
        fig = by_step(TWO_ARMS, statistic="return_fraction", subtitle="run")
        assert "0 aligned, 1 witness" in fig.layout.yaxis.title.text
        assert "log" in fig.layout.xaxis.title.text
        assert fig.layout.xaxis.ticktext[0] == "0"
        assert fig.layout.xaxis.tickvals[0] < -0.1

    def test_the_aligned_model_begins_a_return_at_zero_and_the_witness_lies_at_one(self):
        fig = by_step(TWO_ARMS, statistic="return_fraction", subtitle="run")
        assert list(traces(fig, "aligned")[0].y) == [0.0]
        assert list(traces(fig, "witness")[0].y) == [1.0]

    def test_nulls_are_lines_named_at_the_right_end(self):
        fig = by_step(TWO_ARMS, statistic="alignment", subtitle="run", nulls=NULLS)
        assert list(traces(fig, "null:sham_drift")[0].y) == [0.4, 0.5]
        assert {"sham drift p99", "isotropic p99"} <= set(notes(fig, "end-label"))
        assert max(traces(fig, "nulls")[0].y) == 0.5

    def test_the_isotropic_null_is_never_alone(self):
        alone = NULLS[NULLS["null"] == "isotropic"]
        fig = by_step(TWO_ARMS, statistic="alignment", subtitle="run", nulls=alone)
        assert not [trace.name for trace in fig.data if "null" in trace.name]

    def test_several_seeds_are_several_lines_with_one_name(self):
        rows = pd.concat([steps({1: 0.1, 10: 0.2}, seed=0), steps({1: 0.2, 10: 0.4}, seed=1)])
        fig = by_step(rows, statistic="alignment", subtitle="run")
        assert [trace.name for trace in fig.data if trace.mode == "lines+markers"] == ["baseline s0", "baseline s1"]
        assert notes(fig, "end-label") == ["baseline (2 seeds)"]

    def test_undefined_values_are_left_out_and_nothing_at_all_is_an_empty_figure(self):
        rows = steps({1: math.nan, 10: 0.4})
        assert list(traces(by_step(rows, statistic="alignment", subtitle="run"), "baseline s0")[0].x) == [1]
        assert by_step(steps({1: math.nan}), statistic="alignment", subtitle="run").data == ()

    def test_rates_always_span_the_whole_range(self):
        low, high = by_step(steps({1: 0.4}), statistic="refusal_harmful", subtitle="run").layout.yaxis.range
        assert low <= 0 < 1 <= high

    def test_names_from_a_run_are_escaped(self):
        fig = by_step(steps({1: 0.1, 10: 0.2}, arm=EVIL), statistic="alignment", subtitle="run")
        assert "<script>" not in str(notes(fig, "end-label")) + str([trace.hovertemplate for trace in fig.data])


def grid(statistic="return_fraction", n_layers=3):
    rows = [(layer, step, 0.1 * layer * step, None) for layer in range(-1, n_layers) for step in (1, 2, 5)]
    return pd.DataFrame(rows, columns=["layer", "step", "value", "reason"])


class TestHeatmap:
    @pytest.mark.parametrize("statistic", [name for name, about in STATISTICS.items() if about.diverging])
    def test_diverging_colours_are_centred_on_zero_and_their_limits_come_from_the_run(self, statistic):
        rows = grid().assign(value=lambda rows: rows["value"] * 0.56)
        shown = traces(heatmap(rows, statistic=statistic, subtitle="run"), "map")[0]
        assert -shown.zmin == shown.zmax == pytest.approx(0.56)
        assert shown.colorscale[1] == (0.5, style.INKS["light"].middle)

    def test_limits_are_those_of_every_arm_except_one_far_away(self):
        rows = [
            (arm, top * share)
            for arm, top in (("baseline", 0.3), ("block", -0.41), ("push", 3.2))
            for share in (0.1, 1.0)
        ]
        table = pd.DataFrame(rows, columns=["arm", "value"])
        assert run_limits(table, "return_fraction") == pytest.approx((-0.41, 0.41))
        assert run_limits(table, "displacement_norm") == pytest.approx((0.0, 0.41))
        assert run_limits(table, "auroc") == run_limits(table, "share_moved") == (0.0, 1.0)
        assert run_limits(table[table["value"] > 9], "return_fraction") == (-1.0, 1.0)

    def test_the_caption_says_the_limits_and_what_lies_beyond_them(self):
        inside = heatmap(grid(), statistic="return_fraction", subtitle="run", limits=(-2.0, 2.0))
        beyond = heatmap(grid(), statistic="return_fraction", subtitle="run", limits=(-0.3, 0.3))
        assert "limits −2.00 and 2.00, the same for every arm" in notes(inside, "caption")[0].replace("<br>", " ")
        assert "beyond" not in notes(inside, "caption")[0]
        assert "Values beyond them have the ends' colours." in notes(beyond, "caption")[0].replace("<br>", " ")

    def test_layers_rise_from_the_embedding_and_the_headline_is_marked(self):
        fig = heatmap(grid(), statistic="alignment", subtitle="run", headline=1)
        assert fig.layout.yaxis.ticktext == ("embed", "0", "<b>1</b> ★", "2")
        assert "layer" in fig.layout.yaxis.title.text
        assert traces(fig, "map")[0].z[0][0] == pytest.approx(-0.1)

    def test_every_cell_answers_a_click_with_its_layer_and_step(self):
        (cells,) = traces(heatmap(grid(), statistic="alignment", subtitle="run"), CELLS)
        assert [list(spot) for spot in cells.customdata][:4] == [[-1, 1], [-1, 2], [-1, 5], [0, 1]]
        assert len(cells.x) == 12

    def test_the_selected_cell_is_outlined(self):
        shapes = heatmap(grid(), statistic="alignment", subtitle="run", selected=(1, 5)).layout.shapes
        assert [(shape.x0 < 2 < shape.x1, shape.y0 < 2 < shape.y1) for shape in shapes] == [(True, True)]
        assert not heatmap(grid(), statistic="alignment", subtitle="run", selected=(9, 5)).layout.shapes

    def test_an_undefined_value_is_a_dash_with_its_reason_escaped(self):
        rows = grid()
        rows.loc[0, ["value", "reason"]] = [math.nan, f"folds {EVIL}"]
        fig = heatmap(rows, statistic="alignment", subtitle="run")
        assert notes(fig, "undefined") == ["–"]
        assert "not defined: folds &lt;script" in traces(fig, CELLS)[0].hovertext[0]

    def test_a_deep_model_has_no_numbers_and_few_names(self):
        fig = heatmap(grid(n_layers=80), statistic="alignment", subtitle="run", headline=37)
        assert traces(fig, "map")[0].texttemplate is None
        assert len(fig.layout.yaxis.ticktext) < 32
        assert "<b>37</b> ★" in fig.layout.yaxis.ticktext


def plane_table():
    rows = [("baseline", 0, step, step / 100, step / 200, step / 300) for step in (1, 10, 80)]
    rows += [("aligned", 0, 0, 0.0, 0.0, 0.0), ("witness", 0, 0, 1.0, 0.0, 0.0), ("pretrained", 0, 0, 0.7, 0.3, 0.1)]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "along", "across", "third"])


class TestTrajectories:
    @pytest.mark.parametrize("draw", [plane, space])
    def test_aligned_is_the_origin_and_the_witness_lies_at_one(self, draw):
        fig = draw(plane_table(), subtitle="run")
        aligned, witness = traces(fig, "aligned")[0], traces(fig, "witness")[0]
        assert (aligned.x[0], aligned.y[0], witness.x[0], witness.y[0]) == (0, 0, 1, 0)
        assert (aligned.marker.color, witness.marker.color) == ("#0072B2", "#E69F00")
        assert traces(fig, "pretrained")[0].x[0] == 0.7

    @pytest.mark.parametrize("draw", [plane, space])
    def test_paths_leave_the_origin_and_their_markers_grow(self, draw):
        (path,) = traces(draw(plane_table(), subtitle="run"), "baseline s0")
        assert list(path.x) == [0.0, 0.01, 0.1, 0.8]
        assert list(path.customdata) == [0, 1, 10, 80]
        assert list(path.marker.size) == sorted(path.marker.size)

    def test_scales_are_equal_and_named_with_units(self):
        fig = plane(plane_table(), subtitle="run")
        assert fig.layout.yaxis.scaleanchor == "x"
        assert "return fraction" in fig.layout.xaxis.title.text
        assert "‖v‖" in fig.layout.yaxis.title.text
        scene = space(plane_table(), subtitle="run").layout.scene
        assert scene.aspectmode == "data"
        assert all(axis.title.text for axis in (scene.xaxis, scene.yaxis, scene.zaxis))

    def test_the_chosen_step_is_ringed(self):
        (ring,) = traces(plane(plane_table(), subtitle="run", step=10), "ring")
        assert (ring.x[0], ring.y[0]) == (0.1, 0.05)
        assert not traces(plane(plane_table(), subtitle="run", step=11), "ring")

    def test_what_stands_in_for_the_witness_is_said(self):
        assert "witness (base model stands in)" in notes(
            plane(plane_table(), subtitle="run", witness="witness (base model stands in)"), "role"
        )


class TestLineagePath:
    rows = pd.DataFrame(
        [
            ("witness", 0, 0, 1.0, 0.9, 1.1, 8.0),
            ("baseline", 0, 1, 0.2, 0.1, 0.3, 2.0),
            ("baseline", 0, 9, 0.8, 0.7, 0.9, 6.0),
        ],
        columns=["arm", "seed", "step", "return_fraction", "low", "high", "distance"],
    )

    def test_the_arm_is_drawn_from_the_aligned_model_to_where_it_went(self):
        fig = lineage_path(self.rows, subtitle="run")
        assert list(traces(fig, "baseline")[0].x) == [0.0, 0.2, 0.8]
        assert list(traces(fig, "interval")[0].x) == [0.7, 0.9]
        assert "return fraction" in fig.layout.xaxis.title.text

    def test_distances_are_written(self):
        fig = lineage_path(self.rows, subtitle="run")
        assert notes(fig, "distance") == ["‖v‖ = 8.00"]
        assert {"0.80", "6.00"} <= set(notes(fig, "lane"))


class TestProjections:
    table = pd.DataFrame(
        {
            "checkpoint": ["aligned"] * 6,
            "arm": "aligned",
            "label": ["harmful"] * 3 + ["harmless"] * 3,
            "projection": [0.0, 0.1, 0.2, 1.0, 1.1, 1.2],
            "text": [EVIL] * 6,
        }
    )

    def test_harmful_lies_above_filled_and_harmless_below_open(self):
        fig = projections(self.table, [("aligned", "aligned")], subtitle="run")
        harmful, harmless = traces(fig, "prompts aligned harmful")[0], traces(fig, "prompts aligned harmless")[0]
        assert list(harmful.x) == [0.0, 0.1, 0.2]
        assert (harmful.marker.symbol, harmless.marker.symbol) == ("circle", "circle-open")
        assert min(harmful.y) > 0 > max(harmless.y)
        assert harmful.marker.color == "#0072B2"
        assert "return fraction" in fig.layout.xaxis.title.text

    def test_prompts_are_escaped(self):
        fig = projections(self.table, [("aligned", "aligned")], subtitle="run")
        assert traces(fig, "prompts aligned harmful")[0].hovertext[0] == "&lt;script&gt;x&lt;/script&gt;"

    def test_a_density_integrates_to_one_and_stands_where_its_values_are(self):
        values = np.random.default_rng(0).normal(0.5, 0.1, 300)
        grid_of = np.linspace(-1, 2, 3001)
        curve = density(values, grid_of)
        assert np.trapezoid(curve, grid_of) == pytest.approx(1, abs=1e-3)
        assert grid_of[curve.argmax()] == pytest.approx(0.5, abs=0.05)

    def test_one_prompt_and_equal_prompts_can_be_drawn(self):
        for values in ([0.3], [0.3, 0.3, 0.3]):
            table = self.table.head(len(values)).assign(projection=values)
            assert projections(table, [("aligned", "aligned")], subtitle="run").data

    def test_many_rows_have_fewer_points_each_which_is_said_and_the_means_are_of_all(self):
        names = [f"step {step}" for step in range(40)]
        values = np.random.default_rng(0).normal(size=(len(names), 200))
        rows = [
            (name, "baseline", "harmful", value, "") for name, own in zip(names, values, strict=True) for value in own
        ]
        table = pd.DataFrame(rows, columns=["checkpoint", "arm", "label", "projection", "text"])
        fig = projections(table, [(name, name) for name in names], subtitle="run")
        assert sum(len(trace.x) for trace in fig.data if "prompts" in trace.name) <= 1600 / 2
        assert "Of 200 prompts a class at most 20 are drawn as points." in " ".join(notes(fig, "caption")).replace(
            "<br>", " "
        )
        assert [traces(fig, f"mean {name} harmful")[0].x[0] for name in names] == pytest.approx(
            list(values.mean(axis=1))
        )


@pytest.mark.parametrize("name", [*STATISTICS, *MEASURES])
def test_every_statistic_has_a_title_an_axis_a_definition_and_help(name):
    about = statistic_of(name)
    assert all([about.title, about.axis, about.meaning, about.reading])


def test_a_statistic_that_is_not_known_keeps_its_own_name():
    assert statistic_of("odd_one").axis == "odd one"
