"""The linked workbench in a real browser: lasso, box and click, the other pages, and the link in a fresh browser."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest

from tests.app.serving import CHROMIUM, PATIENCE, settle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)"),
]
DEMO = Path(__file__).parents[2] / "data" / "demo-run"
# What is drawn, without the sizes that hang on the window and the ids that Plotly draws by chance.
DRAWN = """
selector => {
  const plot = document.querySelector(selector);
  const {width, height, ...layout} = plot.layout;
  return JSON.stringify([plot.data.map(({uid, ...trace}) => trace), layout], (name, value) =>
    ArrayBuffer.isView(value) ? Array.from(value) : value);
}
"""
MAP, PAIR = ".st-key-chart-manifold-2 .js-plotly-plot", ".st-key-chart-side-by-side .js-plotly-plot"


@pytest.fixture
def page(browser):
    page = fresh(browser)
    yield page
    page.close()


def fresh(browser):
    """A browser that has never been here."""
    page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    page.set_default_timeout(PATIENCE)
    return page


def still(page):
    page.get_by_text("Save figures as").wait_for(state="attached")
    settle(page)
    page.locator(".js-plotly-plot .main-svg").first.wait_for(state="attached")
    page.wait_for_timeout(800)  # the pictures are drawn after the script has ended


def drag(page, selector, path):
    """Move the pressed pointer along places of a picture, as shares of its width and height."""
    area = page.locator(f"{selector} .nsewdrag").first
    area.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = area.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in path]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def selection_of(page):
    page.wait_for_url(re.compile("selected="))
    still(page)
    return parse_qs(urlsplit(page.url).query)["selected"][0]


def wait_for_cards(page, number):
    """The words that say how many are selected come before their cards."""
    page.wait_for_function(f"document.querySelectorAll('.gp-card').length === {number}")


def inside(path, page):
    """The prompts of which a point lies in a rectangle of the map, counted without the app."""
    ranges = page.evaluate(
        f"(() => {{const axes = document.querySelector('{MAP}')._fullLayout;"
        "return [axes.xaxis.range, axes.yaxis.range]})()"
    )
    rows = pd.read_parquet(DEMO / "maps" / "pca-roles-layer2.parquet")
    rows = rows[rows["checkpoint"].isin(["aligned", "witness", "baseline-s0-000100"])]
    (left, right), (low, high) = ranges
    x, y = (rows["x"] - left) / (right - left), (high - rows["y"]) / (high - low)
    (x0, y0), (x1, y1) = path
    return set(rows.loc[x.between(x0, x1) & y.between(y0, y1), "prompt"])


def test_a_lasso_selects_prompts_on_every_page_and_for_whom_the_link_is_sent(served_demo, browser, page):
    page.goto(f"{served_demo}/manifold?run=demo-run")
    still(page)
    drag(page, MAP, [(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7), (0.3, 0.31)])
    text = selection_of(page)
    cards = page.locator(".gp-cards")
    number = int(re.search(r"(\d+) prompts? of 128 selected", page.inner_text("[data-testid=stMain]"))[1])
    assert 0 < number < 128
    wait_for_cards(page, min(number, 60))
    still(page)  # till then Plotly shows the lasso itself, and what lies in it, without the server's word
    shown = json.loads(page.evaluate(DRAWN, MAP))
    assert any(trace.get("selectedpoints") for trace in shown[0])
    assert cards.locator(".gp-card-answer").count() == 2 * cards.locator(".gp-card").count()
    page.get_by_role("link", name="Compare").click()
    page.get_by_role("heading", level=1, name=re.compile("Aligned against")).wait_for()
    page.locator(PAIR).wait_for()
    still(page)
    assert selection_of(page) == text
    page.get_by_text(f"{number} prompts of 128 selected").wait_for()
    on_compare, link = page.evaluate(DRAWN, PAIR), page.url
    receiver = fresh(browser)
    receiver.goto(link)
    receiver.locator(PAIR).wait_for()
    still(receiver)
    assert json.loads(receiver.evaluate(DRAWN, PAIR)) == json.loads(on_compare)
    receiver.goto(link.replace("/compare", "/manifold"))
    receiver.locator(MAP).wait_for()
    still(receiver)
    assert json.loads(receiver.evaluate(DRAWN, MAP)) == shown
    receiver.get_by_text(f"{number} prompts of 128 selected").wait_for()
    receiver.close()


def test_a_box_selects_what_it_encloses_and_a_click_one_prompt(served_demo, page):
    page.goto(f"{served_demo}/manifold?run=demo-run&pointer=box")
    still(page)
    corners = [(0.4, 0.35), (0.6, 0.65)]
    expected = inside(corners, page)
    drag(page, MAP, corners)
    selection_of(page)
    number = int(re.search(r"(\d+) prompts? of 128 selected", page.inner_text("[data-testid=stMain]"))[1])
    assert abs(number - len(expected)) <= 2, "but for points on the very edge"
    page.get_by_role("button", name="Clear").click()
    page.wait_for_url(lambda address: "selected" not in address)
    page.locator(".st-key-choose-pointer").get_by_text("Move").click()
    page.wait_for_url(re.compile("pointer=move"))
    still(page)
    point = page.locator(f"{MAP} .scatterlayer .point").nth(5)
    point.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = point.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    selection_of(page)
    page.get_by_text("1 prompt of 128 selected").wait_for()
    wait_for_cards(page, 1)


SEEN = f"""
(() => {{
  const {{xaxis, yaxis}} = document.querySelector('{MAP}')._fullLayout;
  return [...xaxis.range, ...yaxis.range].map(end => Math.round(1000 * end));
}})()
"""  # what is seen of the map


def test_a_zoom_stays_when_a_prompt_is_selected_and_is_in_the_link_until_the_whole_map_is_seen(
    served_demo, browser, page
):
    page.goto(f"{served_demo}/manifold?run=demo-run&pointer=box")
    still(page)
    whole = page.evaluate(SEEN)
    bar = page.locator(f"{MAP} .modebar-btn")
    bar.nth(4).click()  # zoom in
    page.wait_for_url(re.compile("zoom=manifold-2"))
    still(page)
    near = page.evaluate(SEEN)
    assert near[1] - near[0] == pytest.approx(0.5 * (whole[1] - whole[0]), rel=0.01)
    drag(page, MAP, [(0.2, 0.2), (0.8, 0.8)])
    selection_of(page)
    assert page.evaluate(SEEN) == pytest.approx(near, abs=5)
    receiver = fresh(browser)
    receiver.goto(page.url)
    still(receiver)
    assert receiver.evaluate(SEEN) == pytest.approx(near, abs=5)
    receiver.close()
    bar.last.click()  # the whole map
    page.wait_for_url(lambda address: "zoom" not in address)
    still(page)
    assert page.evaluate(SEEN) == pytest.approx(whole, abs=5)


SCALES = """(() => {
  const {_fullLayout: layout} = document.querySelector(".js-plotly-plot"), letters = "xaxis yaxis".split(" ");
  const panels = Object.keys(layout).map(key => /^xaxis([0-9]*)$/.exec(key)).filter(Boolean).map(found => found[1]);
  return panels.map(panel => Math.abs(layout[`xaxis${panel}`]._m / layout[`yaxis${panel}`]._m));
})()
"""  # of a panel's axes: pixels a unit along over pixels a unit up


@pytest.mark.parametrize("width", [820, 1440])
@pytest.mark.parametrize("view", ["displacement?more=layers&across=main", "well?well=layers"])
def test_every_small_map_has_one_scale_on_every_page_width(served_demo, page, view, width):
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(f"{served_demo}/{view}&run=demo-run")
    still(page)
    if view.startswith("displacement"):
        page.evaluate("document.querySelector('.js-plotly-plot').remove()")  # the one above the small ones
    scales = page.evaluate(SCALES)
    assert len(scales) == 4
    assert scales == pytest.approx([1.0] * 4, abs=0.01)


def test_panning_one_of_two_layers_moves_the_other(served_demo, page):
    page.goto(f"{served_demo}/manifold?run=demo-run&beside=layers&pointer=move")
    still(page)
    drag(page, ".st-key-chart-manifold-2-pair .js-plotly-plot", [(0.2, 0.5), (0.3, 0.5)])
    page.wait_for_url(re.compile("zoom=manifold-2-pair"))
    still(page)
    moved = page.evaluate(RANGES)
    page.goto(f"{served_demo}/manifold?run=demo-run&beside=layers&pointer=move")
    still(page)
    shares = [(low - at) / (high - at) for (low, _), (at, high) in zip(moved, page.evaluate(RANGES), strict=True)]
    assert shares[0] == pytest.approx(shares[1], abs=0.01)
    assert abs(shares[0]) > 0.05


RANGES = """(() => {
  const {xaxis, xaxis2} = document.querySelector(".js-plotly-plot")._fullLayout;
  return [xaxis.range, xaxis2.range];
})()
"""
CAMERA = """
(() => {
  const layout = document.querySelector('.js-plotly-plot')._fullLayout;
  return Object.keys(layout).filter(key => /^scene[0-9]*$/.test(key)).map(key => {
    const eye = layout[key]._scene.getCamera().eye;
    return ['x', 'y', 'z'].map(axis => Math.round(eye[axis] * 100));
  });
})()
"""  # what is drawn in each scene, not what the layout says


def turn(page, share):
    """Drag in the picture at a share of its width."""
    area = page.locator(".js-plotly-plot .gl-container canvas").first
    area.wait_for()
    area.scroll_into_view_if_needed()
    box = page.locator(".js-plotly-plot").first.bounding_box()
    at = (box["x"] + share * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 90, at[1] + 40, steps=8)
    page.mouse.up()


def test_two_layers_turn_together_and_the_link_shows_them_so(served_demo, browser, page):
    page.goto(f"{served_demo}/manifold?run=demo-run&axes=3d&beside=layers&second_layer=0")
    still(page)
    before = page.evaluate(CAMERA)
    assert len(before) == 2
    turn(page, 0.25)
    page.wait_for_url(re.compile("camera=manifold-3-pair"))
    still(page)
    left, right = page.evaluate(CAMERA)
    assert left == right != before[0]
    receiver = fresh(browser)
    receiver.goto(page.url)
    still(receiver)
    for eye in receiver.evaluate(CAMERA):
        assert eye == pytest.approx(left, abs=1)
    receiver.close()
    turn(page, 0.75)
    page.wait_for_function(f"old => JSON.stringify(({CAMERA})[0]) !== JSON.stringify(old)", arg=left)
    page.wait_for_timeout(1000)
    first, second = page.evaluate(CAMERA)
    assert first == second


def test_the_left_and_right_keys_go_through_the_layers_of_the_map(served_demo, page):
    page.goto(f"{served_demo}/manifold?run=demo-run&layer=1&selected=h-9da4")
    still(page)
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(r"layer=2(&|$)"))
    page.get_by_role("heading", level=1, name=re.compile("map of layer 2")).wait_for()
    page.get_by_text("1 prompt of 128 selected").wait_for()


def test_the_well_is_saved_as_an_animation(served_demo, page, tmp_path):
    from PIL import Image

    page.goto(f"{served_demo}/well?run=demo-run&well=contours")
    still(page)
    button = page.get_by_role("button", name="Step by step (GIF)")
    button.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    with page.expect_download() as waiting:
        button.click()
    waiting.value.save_as(tmp_path / "well.gif")
    assert waiting.value.suggested_filename.startswith("demo-run-well-steps-baseline")
    assert Image.open(tmp_path / "well.gif").n_frames == 7
