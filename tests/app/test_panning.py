"""Dragging a picture of many points in a real browser: what was drawn moves along, and is drawn anew once, truly."""

import re

import numpy as np
import pandas as pd
import pytest

from app import look
from app.charts import _MANY_POINTS
from probes.plots.clouds import Drawing
from probes.plots.manifold import manifold
from tests.app.serving import CHROMIUM, PATIENCE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)"),
]
COUNT = _MANY_POINTS + 1000
COUNT_DRAWINGS = """
() => {
  const scene = document.querySelector(".js-plotly-plot")._fullLayout._plots.xy._scene, draw = scene.draw;
  window.drawings = 0;
  scene.draw = () => { window.drawings++; draw(); };
}
"""
FRAME = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
RANGES = """(() => {
  const layout = document.querySelector('.js-plotly-plot')._fullLayout;
  return [layout.xaxis.range, layout.yaxis.range];
})()"""
PIXELS = "document.querySelector('.gl-canvas-context').toDataURL()"
AS_DRAWN_ANEW = "async () => {await Plotly.redraw(document.querySelector('.js-plotly-plot'));}"
LASSO = """
() => {
  const plot = document.querySelector(".js-plotly-plot");
  plot.on("plotly_selected", event => { window.enclosed = event.points.length; });
  return Plotly.relayout(plot, {dragmode: "select"});
}
"""


@pytest.fixture(scope="module")
def places():
    table = pd.DataFrame({"checkpoint": "baseline-50", "arm": "baseline", "seed": 0, "step": 50}, index=range(COUNT))
    table["prompt"] = [f"p{index}" for index in range(COUNT)]
    table["label"] = np.resize(["harmful", "harmless"], COUNT)
    table["text"] = "a prompt"
    table[["x", "y"]] = np.random.default_rng(0).standard_normal((COUNT, 2))
    return table


@pytest.fixture(scope="module")
def page(browser, places, tmp_path_factory):
    drawing = Drawing(contours=False, arrow=False)
    about = {"method": "pca", "trustworthiness": {"2": 0.9}, "neighbours": 15}
    figure = manifold(places, about, drawing=drawing, subtitle="", witness="witness")
    path = tmp_path_factory.mktemp("map") / "map.html"
    figure.write_html(path, include_plotlyjs=True, config={"plotGlPixelRatio": 1})
    page = browser.new_page(viewport={"width": 700, "height": 700})
    page.set_default_timeout(PATIENCE)
    page.goto(path.as_uri())
    page.locator(".nsewdrag").first.wait_for()
    page.evaluate(re.sub("</?script>", "", look.PANNING))
    yield page
    page.close()


def middle(page):
    box = page.locator(".nsewdrag").first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_drag_moves_what_was_drawn_and_draws_the_points_once_at_its_end(page):
    x, y = middle(page)
    page.evaluate(COUNT_DRAWINGS)
    before = page.evaluate(RANGES)
    page.mouse.move(x, y)
    page.mouse.down()
    for share in range(1, 5):
        page.mouse.move(x + 20 * share, y + 10 * share)
        page.evaluate(FRAME)
    canvas = page.locator(".gl-canvas-context")
    assert page.evaluate("window.drawings") == 0
    moved_by = re.search(r"translate\((\S+)px, (\S+?)px\)", canvas.get_attribute("style")).groups()
    assert [float(pixels) for pixels in moved_by] == pytest.approx([80, 40], abs=1)
    page.mouse.up()
    page.wait_for_function("window.drawings > 0")
    page.evaluate(FRAME)
    assert page.evaluate("window.drawings") == 1
    assert "translate" not in canvas.get_attribute("style")
    assert page.evaluate(RANGES) != before
    now = page.evaluate(PIXELS)
    page.evaluate(AS_DRAWN_ANEW)
    assert page.evaluate(PIXELS) == now


def test_a_selection_is_of_the_points_after_a_drag_too(page, places):
    x, y = middle(page)
    for end in ((x + 60, y), (x + 60, y)):  # the second time as a click that moves nothing
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(*end)
        page.mouse.up()
    page.evaluate(LASSO)
    page.mouse.move(x - 40, y - 40)
    page.mouse.down()
    page.mouse.move(x + 40, y + 40, steps=4)
    page.mouse.up()
    page.wait_for_function("window.enclosed !== undefined")
    (left, right), (low, high) = page.evaluate(RANGES)
    box = page.locator(".nsewdrag").first.bounding_box()
    wide, tall = 40 * (right - left) / box["width"], 40 * (high - low) / box["height"]
    across, up = (left + right) / 2, (low + high) / 2
    inside = places["x"].between(across - wide, across + wide) & places["y"].between(up - tall, up + tall)
    assert page.evaluate("window.enclosed") == pytest.approx(inside.sum(), rel=0.03)
