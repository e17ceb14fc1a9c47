"""The step at which a picture is stopped is in the address, and it is drawn at that step for a fresh visitor."""

import json
import re

import pytest

from tests.app.serving import CHROMIUM, PATIENCE, settle

PICTURES = {
    "trajectories": ({"play": "yes"}, "trajectories-plane-moving"),
    "displacement": ({"play": "yes"}, "prompt-arrows-moving"),
    "manifold": ({"play": "yes", "shown": "trajectory"}, "manifold-2-moving"),
}


def figure_of(at):
    return next(spec for chart in at.get("plotly_chart") if (spec := json.loads(chart.proto.spec)).get("frames"))


@pytest.mark.parametrize("page", PICTURES)
def test_a_picture_is_drawn_at_the_addresss_step_and_at_the_last_where_it_names_none(visit, page):
    query, picture = PICTURES[page]
    last = figure_of(visit(page, query))
    early = figure_of(visit(page, {**query, "frame": f"{picture}:5"}))
    names = [frame["name"] for frame in early["frames"]]
    assert early["layout"]["sliders"][0]["active"] == names.index("5")
    assert last["layout"]["sliders"][0]["active"] == len(names) - 1
    frame = early["frames"][names.index("5")]
    for place, part in zip(frame["traces"], frame["data"], strict=True):
        assert {name: early["data"][place].get(name) for name in part} == part
    assert early["data"] != last["data"]
    assert early["frames"] == last["frames"]
    for absent in (f"{picture}:7", "another:5", "5", ":"):
        at = visit(page, {**query, "frame": absent})
        assert figure_of(at)["data"] == last["data"]
        is_said = any("frame=" in warning.value.replace("\\", "") for warning in at.warning)
        assert is_said == (absent != "another:5"), "that is of a picture on another page"


SHOWN = "document.querySelector('.slider-label')?.textContent.trim() === 'step {}'"


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)")
def test_the_step_at_which_it_is_stopped_is_in_the_link_and_at_the_next_layer(served_demo, browser):
    page, receiver = (browser.new_context(viewport={"width": 1440, "height": 1000}).new_page() for _ in range(2))
    for tab in (page, receiver):
        tab.set_default_timeout(PATIENCE)
    page.goto(f"{served_demo}/trajectories?run=demo-run&play=yes&layer=1")
    settle(page)
    page.get_by_role("slider").focus()
    page.evaluate("document.querySelector('.js-plotly-plot').isTheSame = true")
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    page.wait_for_url(re.compile(r"frame=trajectories-plane-moving(:|%3A)2(&|$)"))
    settle(page)
    assert page.evaluate("document.querySelector('.js-plotly-plot').isTheSame"), "it is not drawn anew for that"
    receiver.goto(page.url)
    receiver.wait_for_function(SHOWN.format(2))
    page.get_by_role("button", name="Next layer").click()
    page.wait_for_url(re.compile("layer=2"))
    page.wait_for_function(
        "document.querySelector('.js-plotly-plot') && !document.querySelector('.js-plotly-plot').isTheSame"
    )
    page.wait_for_function(SHOWN.format(2))
    page.get_by_role("slider").focus()
    page.keyboard.press("End")
    page.wait_for_url(lambda address: "frame" not in address)
    for tab in (page, receiver):
        tab.context.close()
