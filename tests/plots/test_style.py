import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import plotly.io as pio
import pytest

from probes.experiments.experiment import DRAWN, EVERY_ARM
from probes.lineage import ROLES
from probes.plots import labels, style
from probes.plots.sheet import Sheet
from probes.plots.step_axis import StepAxis
from tests.plots.contrast import contrast


def test_colours_are_those_of_the_design_and_no_colour_is_alone():
    colours = {name: mark.colour for name, mark in style.MARKS.items()}
    assert colours == {
        "pretrained": "#7F7F7F",
        "witness": "#E69F00",
        "aligned": "#0072B2",
        "baseline": "#D55E00",
        "block": "#009E73",
        "push": "#CC79A7",
    }
    looks = {(mark.symbol, mark.dash) for mark in style.MARKS.values()}
    assert len(looks) == len(style.MARKS) - 1  # aligned and baseline share a circle; only baseline has a line
    assert style.mark_of("control:random") == style.CONTROL
    assert style.CONTROL.dash == style.mark_of("anchor").dash == "dot"


def test_no_two_of_the_projects_arms_and_thirty_others_look_alike():
    drawn = [f"{control}:{draw}" for control in DRAWN for draw in range(5)]
    arms = [*style.MARKS, *EVERY_ARM, *drawn, *(f"made-up {number}" for number in range(30))]
    marks = {arm: style.mark_of(arm) for arm in arms}
    assert len({(mark.colour, mark.symbol, mark.dash) for mark in marks.values()}) == len(marks)
    lines = {arm: mark for arm, mark in marks.items() if arm not in ROLES}
    assert len({(mark.colour, mark.solid, mark.dash) for mark in lines.values()}) == len(lines), "in space"


@pytest.mark.parametrize("stem", ["block:", "push:", "control:", ""])
def test_thirty_made_up_arms_of_one_family_look_like_kin_and_not_alike(stem):
    arms = [f"{stem}made-up {number}" for number in range(30)]
    marks = [style.mark_of(arm) for arm in arms]
    assert len({(mark.colour, mark.symbol, mark.dash) for mark in marks}) == len({*map(repr, marks)}) == 30
    assert len({mark.colour for mark in marks}) == 3
    assert marks == [style.mark_of(arm) for arm in arms], "the same in every figure"


def test_the_projects_own_arms_look_the_same_in_every_process():
    script = "from probes.plots import style; print([style.mark_of(arm) for arm in {!r}])"
    later = [*EVERY_ARM][::-1]
    process = subprocess.run([sys.executable, "-c", script.format(later)], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == str([style.mark_of(arm) for arm in later])


def test_arms_have_one_order():
    shuffled = ["control:random", "push", "anchor", "block:did", "baseline", "witness", "block", "push"]
    assert style.in_order(shuffled) == [
        *("witness", "baseline", "block", "block:did", "push", "anchor", "control:random"),
    ]


def test_both_templates_are_registered():
    assert {"gravity", "gravity-dark"} <= set(pio.templates)
    assert pio.templates["gravity"].layout.paper_bgcolor != pio.templates["gravity-dark"].layout.paper_bgcolor


@pytest.mark.parametrize("ink", style.INKS)
def test_small_type_and_outlines_in_every_arms_colour_can_be_read(ink):
    for arm in [
        *style.MARKS,
        *EVERY_ARM,
        *(f"{stem}{count}" for stem in ("block:", "push:", "") for count in range(9)),
    ]:
        mark = style.mark_of(arm)
        assert contrast(style.legible(mark.colour, style.INKS[ink]), style.INKS[ink].background) >= 4.5, arm
        assert style.edge(mark, ink)["color"] == style.legible(mark.colour, style.INKS[ink])


def test_contrast_is_that_of_the_web_content_guidelines():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


def test_zero_is_drawn_apart_from_the_logarithms():
    axis = StepAxis.of([100, 1, 10, 0])
    assert axis.position(10) - axis.position(1) == pytest.approx(axis.position(100) - axis.position(10)) == 1
    assert axis.position(0) < axis.gap < axis.position(1)


def test_a_step_axis_with_one_step_or_none_has_room():
    for steps in ([], [0], [50]):
        low, high = StepAxis.of(steps).range
        assert low < StepAxis.of(steps).zero < high


@pytest.mark.parametrize("width", [175.0, 340.0])
def test_the_steps_that_are_written_have_room_side_by_side_and_the_last_is_among_them(width):
    ticks = StepAxis.of(range(50, 1050, 50)).ticks(width)
    assert ticks["tickangle"] == 0
    assert {"0", "1,000"} <= set(ticks["ticktext"])
    assert len(ticks["ticktext"]) > 3
    unit = width / (ticks["range"][1] - ticks["range"][0])
    written = sorted(zip(ticks["tickvals"], ticks["ticktext"], strict=True))
    for (left, before), (right, after) in pairwise(written):
        assert (right - left) * unit > 6.0 * (len(before) + len(after)) / 2


@pytest.mark.parametrize("places", [[0.0, 0.0, 0.0], [0.9, 0.95, 1.0], [0.1, 0.5, 0.9], [-3.0, 0.5, 7.0]])
def test_labels_are_moved_apart_and_stay_inside(places):
    moved = labels.spread(places, 0.2, 0.0, 1.0)
    assert all(later - earlier >= 0.2 - 1e-12 for earlier, later in pairwise(moved))
    assert min(moved) >= 0
    assert max(moved) <= 1


def test_names_beside_marks_cover_neither_marks_nor_lines_nor_each_other():
    scale = (100.0, 100.0)

    def draw_obstacles(scale):
        drawn = [labels.marks([(0.5, 0.5), (0.52, 0.5)], scale), labels.line([0.0, 2.0], [0.5, 0.5], scale)]
        return [*drawn, labels.above_and_below((0.1, 0.6), scale)]

    spots = [labels.Spot(0.5, 0.5, "baseline", "#000000"), labels.Spot(0.52, 0.5, "control:random", "#000000")]
    notes, obstacles = labels.beside(spots, draw_obstacles, [scale, (200.0, 200.0)]), draw_obstacles(scale)
    boxes = []
    for spot, note in zip(spots, notes, strict=True):
        width = 6.8 * len(spot.text)
        right_by, up_by = (note["ax"], -note["ay"]) if note["showarrow"] else (note["xshift"], note["yshift"])
        left = spot.x * scale[0] + right_by - (0 if note["xanchor"] == "left" else width)
        middle = spot.y * scale[1] + up_by
        boxes.append((left, middle - 8.5, left + width, middle + 8.5))
    assert all(note["showarrow"] for note in notes), "not on the line, and so with a leader"
    for first, second in [
        (boxes[0], boxes[1]),
        *((box, tuple(mark)) for box in boxes for part in obstacles for mark in part),
    ]:
        apart = first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
        assert apart, (first, second)


def test_no_leader_crosses_a_name_and_a_name_without_a_free_place_stays_in_the_plot():
    scale = (100.0, 100.0)

    def obstacles(scale):
        rows = [labels.line([0.0, 4.0], [y, y], scale) for y in (0.4, 0.5, 0.6)]
        return [*rows, labels.left_of(0.0, scale), labels.above_and_below((0.0, 2.5), scale)]

    spots = [labels.Spot(0.9 + 0.2 * place, 0.5, f"control:{place}", "#000000") for place in range(3)]
    names, leaders = [], []
    for spot, note in zip(spots, labels.beside(spots, obstacles, [scale]), strict=True):
        right, up = (note["ax"], -note["ay"]) if note["showarrow"] else (note["xshift"], note["yshift"])
        x, y, width = spot.x * 100, spot.y * 100, 6.8 * len(spot.text)
        left = x + right - (0 if note["xanchor"] == "left" else width)
        names.append((left, y + up - 8, left + width, y + up + 8))
        shares = [
            share for share in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9) if share * np.hypot(right, up) > 20
        ]  # off the mark
        leaders.append([(x + share * right, y + share * up) for share in shares])
        assert left >= 0
        assert 0 <= y + up <= 250
    assert sum(map(len, leaders)) > 3
    for place, leader in enumerate(leaders):
        for left, low, right, top in names[:place] + names[place + 1 :]:
            assert not [at for at in leader if left < at[0] < right and low < at[1] < top]
    crowded = labels.beside(spots[:1], lambda scale: [*obstacles(scale), *all_of_the_plot(scale)], [scale])
    assert crowded[0]["xanchor"] == "left", "the other side is the axis"


def all_of_the_plot(scale):
    return [labels.line([0.0, 4.0], [0.1 * row, 0.1 * row], scale) for row in range(26)]


@pytest.mark.parametrize("ends", [[0.5, 0.5], [0.1, 0.1, 0.1], [0.5]])
def test_names_at_the_edge_have_leaders_where_they_are_moved_or_their_lines_end_early(ends):
    sheet, early = Sheet(), len(ends) == 1
    names = [labels.EndLabel(y, f"arm {place}", "#000000", x=1.0 if early else 9.9) for place, y in enumerate(ends)]
    labels.label_ends(sheet, names, (0.0, 1.0), 300, (0.0, 10.0))
    fig = sheet.figure()
    places = {note.text: note.y for note in fig.layout.annotations}
    moved = [name for name in names if abs(places[name.text] - name.y) > 0.05]
    assert early or moved
    leaders = {trace.y[0]: (trace.x[0], trace.x[-1], trace.y[-1]) for trace in fig.data}
    for name in moved or names:
        assert leaders[name.y][:2] == (name.x, 10.0)
    assert {trace.y[-1] for trace in fig.data} <= set(places.values())


def test_labels_with_room_stay_where_they_are():
    assert labels.spread([0.1, 0.5, 0.9], 0.2, 0.0, 1.0) == [0.1, 0.5, 0.9]


def test_text_of_a_run_is_no_markup():
    assert style.plain("<a href='x'>&") == "&lt;a href='x'&gt;&amp;"


def test_numbers_have_true_minus_signs_and_absent_ones_a_dash():
    assert (style.decimal(-0.5), style.decimal(None), style.decimal(float("nan"))) == ("−0.50", "–", "–")


def test_a_scale_is_its_own_colours_at_its_places_and_between_them_halfway():
    scale = [(0.0, "#000000"), (0.5, "#204060"), (1.0, "#FFFFFF")]
    assert [style.on_scale(scale, share) for share in (-1.0, 0.0, 0.25, 0.5, 1.0, 2.0)] == [
        "#000000",
        "#000000",
        "#102030",
        "#204060",
        "#FFFFFF",
        "#FFFFFF",
    ]


@pytest.mark.parametrize("high", [1e-4, 0.0031, 0.05, 0.19, 0.5, 1.0, 1.06, 3.0, float("inf"), float("nan"), 0.0])
def test_ticks_of_shares_are_round_distinct_and_written_with_a_space(high):
    ticks = style.percent_ticks(high)
    assert 3 <= len(ticks["tickvals"]) <= 6
    assert len(set(ticks["ticktext"])) == len(ticks["ticktext"])
    assert all(re.fullmatch(r"\d+(\.\d+)? %", text) for text in ticks["ticktext"])
    shares = [float(text.removesuffix(" %")) / 100 for text in ticks["ticktext"]]
    assert shares == pytest.approx(ticks["tickvals"])
