"""A page in two parts: what is looked at first, and the rest once the browser has painted that."""

import sys

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.app.conftest import DEMO
from tests.app.serving import CHROMIUM, MAIN, PATIENCE, settle
from tests.app.test_pages import PAGES
from tests.app.visiting import draw_rest, visitor

COUNT = """
(() => {
  window.drawn = [];  // how many pictures there were whenever another had been drawn
  const look = () => {
    const count = document.querySelectorAll(".js-plotly-plot:has(.main-svg)").length;
    if (count && window.drawn.at(-1) !== count) window.drawn.push(count);
  };
  new MutationObserver(() => requestAnimationFrame(look)).observe(document, {childList: true, subtree: true});
})()
"""


@pytest.fixture
def argv(monkeypatch):
    st.cache_data.clear()
    monkeypatch.setattr(sys, "argv", ["main.py", str(DEMO.parent)])


def open_page(page):
    at = AppTest.from_file(str(MAIN), default_timeout=120)
    at.query_params["run"] = "demo-run"
    return at.switch_page(page).run()


def is_in_part(at):
    return any(str(button.key).startswith("draw-rest") for button in at.button)


def parts(at):
    return [[element.proto for element in at.get(kind)] for kind in ("plotly_chart", "arrow_data_frame", "html")]


# How many pictures a page of the shipped run begins with, and how many it has.
PICTURES = {
    "overview": (1, 5),
    "layers": (1, 2),
    "manifold": (1, 1),
    "displacement": (1, 2),
    "trajectories": (1, 3),
    "well": (1, 1),
    "compare": (0, 3),
    "directions": (1, 2),
    "behaviour": (1, 2),
    "data": (0, 0),
    "live": (0, 0),
    "run": (0, 0),
}


@pytest.mark.usefixtures("argv")
@pytest.mark.parametrize("page", PAGES)
def test_the_second_part_makes_the_page_whole(page):
    at = open_page(page)
    assert at.title
    first = parts(at)[0]
    draw_rest(at)
    assert not at.exception
    assert not is_in_part(at)
    assert parts(at) == parts(visitor({"run": "demo-run"}).switch_page(page).run())
    assert first == parts(at)[0][: len(first)], "Plotly would draw again what has changed"
    assert (len(first), len(parts(at)[0])) == PICTURES[page.split("/")[1].removesuffix(".py")]


@pytest.mark.usefixtures("argv")
def test_a_long_page_has_two_parts_whenever_it_is_opened_and_what_is_chosen_on_it_has_one():
    at = draw_rest(open_page("views/overview.py"))
    at.selectbox(key="choose-layer").set_value(1).run()
    assert not is_in_part(at)
    assert is_in_part(at.switch_page("views/behaviour.py").run())
    draw_rest(at)
    assert is_in_part(at.switch_page("views/overview.py").run())


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)")
def test_a_browser_asks_for_the_rest_by_itself_on_every_page_it_opens(served_demo, browser):
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE)
    page.add_init_script(COUNT)
    page.goto(f"{served_demo}/?run=demo-run")
    page.get_by_role("heading", name="Interventions").wait_for()
    page.wait_for_function("window.drawn.at(-1) > 1")
    assert page.evaluate("window.drawn[0]") == 1, "the first picture stands alone for a frame or more"
    page.get_by_role("link", name="Compare", exact=True).click()
    page.get_by_role("heading", name="Prompt by prompt").wait_for()
    page.get_by_role("link", name="Behaviour", exact=True).click()
    page.get_by_role("heading", name="Answers", exact=True).wait_for()
    page.context.close()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)")
def test_the_rest_comes_where_no_picture_can_be_drawn(served_demo, browser):
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE)
    page.route("**/PlotlyChart*", lambda route: route.abort())
    page.goto(f"{served_demo}/?run=demo-run")
    page.get_by_role("heading", name="Interventions").wait_for()
    settle(page)
    assert not page.locator(".main-svg").count()
    page.context.close()
