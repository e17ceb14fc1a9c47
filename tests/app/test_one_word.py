"""One word, one estimand: what a page's words say of a number is what the run's tables hold under that word."""

import html
import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from probes.run import Run
from probes.statistics import decimal, percent
from tests.app.visiting import turn_to, visitor

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "data" / "demo-run"
LAST, EARLIER = ("baseline", 100, 2), ("block", 20, 1)


@pytest.fixture(scope="module", params=[LAST, EARLIER], ids=["default", "another arm, step and layer"])
def screens(request):
    """The words of every page on the shipped run at one place, and the place."""
    arm, step, layer = request.param
    at = visitor({"arm": arm, "step": str(step), "layer": str(layer)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["main.py", str(DEMO)])
        at.run()
        pages = {"overview": read(at)}
        for page in ("layers", "displacement", "trajectories", "compare", "directions", "behaviour"):
            pages[page] = read(turn_to(at, f"views/{page}.py"))
    return request.param, pages


def read(at):
    """A page's words without markup, and its tables."""
    assert not at.exception
    bodies = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", element.proto.body)) for element in at.get("html"))
    words = " ".join([at.title[0].value.replace("\\", ""), bodies.replace("\xa0", " ")])
    return " ".join(words.split()), [table.value for table in at.dataframe], at.get("plotly_chart")


def read_statistic(place, statistic):
    arm, step, layer = place
    rows = Run(DEMO).drift(arm=arm, statistic=statistic, layer=layer)
    return float(rows[rows["step"] == step]["value"].iloc[0])


def numbers(pages, pattern):
    """Every number that a pattern's group finds in the words of any page, with the page."""
    return [(page, match) for page, (words, _, _) in pages.items() for match in re.findall(pattern, words)]


@pytest.mark.parametrize(
    ("pattern", "statistic", "pages_that_say_it"),
    [
        (r"([−\d.]+) off it", "off_axis", {"displacement", "trajectories"}),
        (r"([−\d.]+) (?:of the way back,|along the way back|return fraction)", "return_fraction", {"overview"}),
        (r"([−\d.]+) alignment with the way back, cross-fitted", "alignment_crossfit", {"overview"}),
    ],
)
def test_a_word_has_one_value_on_every_page(screens, pattern, statistic, pages_that_say_it):
    place, pages = screens
    numbers_in_words = numbers(pages, pattern)
    assert pages_that_say_it <= {page for page, _ in numbers_in_words}
    assert {number for _, number in numbers_in_words} == {decimal(read_statistic(place, statistic))}


def test_the_tables_say_what_the_words_say(screens):
    place, pages = screens
    table = next(table for table in pages["displacement"][1] if "angle" in table and "arm" not in table)
    row = table[table["step"] == place[1]].iloc[0]
    assert row["off_axis"] == pytest.approx(read_statistic(place, "off_axis"))
    assert row["along"] == pytest.approx(read_statistic(place, "return_fraction"))
    everything = pages["trajectories"][1][-1]
    own = everything[(everything["arm"] == place[0]) & (everything["step"] == place[1])].iloc[0]
    for statistic in ("off_axis", "return_fraction", "alignment_crossfit"):
        assert own[statistic] == pytest.approx(read_statistic(place, statistic))


def test_the_part_along_the_main_off_axis_direction_has_a_name_of_its_own(screens):
    place, pages = screens
    plane = pd.read_parquet(DEMO / "maps" / "plane.parquet")
    arm, step, layer = place
    own = plane[(plane["arm"] == arm) & (plane["step"] == step) & (plane["layer"] == layer)].iloc[0]
    assert f"{decimal(own['across'])} is along the main off-axis direction" in pages["trajectories"][0]
    specs = [json.loads(chart.proto.spec) for page in pages.values() for chart in page[2]]
    for trace in (trace for spec in specs for trace in spec["data"]):
        assert ", across %{y" not in str(trace.get("hovertemplate")), "neither the length nor the main part"


def test_rates_are_those_of_the_selected_step_everywhere(screens):
    (arm, step, _), pages = screens
    rows = Run(DEMO).table("behaviour")
    own = rows[(rows["arm"] == arm) & (rows["step"] == step)].set_index("measure")["value"]
    assert f"{percent(own['refusal_harmful'])} of harmful requests refused at step {step}" in pages["overview"][0]
    assert pages["behaviour"][0].startswith(f"Harmful compliance: {percent(own['harmful_compliance'])}")


def test_the_overview_is_of_the_selected_arm_and_says_what_was_judged_elsewhere(screens):
    place, pages = screens
    words = pages["overview"][0]
    assert words.startswith(place[0].capitalize())
    assert ("judged at the last step, 100, the level at the pre-registered layer 2" in words) == (place != LAST)


def test_the_first_step_beyond_is_by_the_verdicts_tests_at_its_level(screens):
    (arm, _, layer), pages = screens
    rows = Run(DEMO).nulls(layer)
    tests = ("sign_flip", "covariance_aligned", "covariance_difference", "random_difference")
    rows = rows[(rows["arm"] == arm) & rows["null"].isin(tests) & rows["p"].notna()]
    beyond = [step for step, part in rows.groupby("step") if (part["p"] <= 0.05).all()]
    sentence = f"step {min(beyond):,} first beyond all" if beyond else "no step was beyond all"
    assert f"{sentence} of the verdict's tests at layer {layer}, p ≤ 0.05" in pages["overview"][0]


def test_the_angle_that_is_held_against_the_null_is_the_tests_own(screens):
    (arm, step, layer), pages = screens
    rows = Run(DEMO).nulls(layer)
    rows = rows[(rows["arm"] == arm) & (rows["step"] == step) & (rows["statistic"] == "alignment_crossfit")]
    words = pages["displacement"][0]
    beyond = rows[~rows["null"].str.contains("isotropic")].dropna(subset=["limit"])
    hardest = beyond.loc[beyond["limit"].idxmax()]
    assert ("nearer than that" in words) == bool(hardest["observed"] > hardest["limit"])
