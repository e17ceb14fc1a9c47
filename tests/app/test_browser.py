"""The app in a real browser: the paths that people walk, from opening it to sharing a link."""

import re
from urllib.parse import urlsplit

import numpy as np
import pytest

from probes.directions.vectors import Vectors
from probes.exchange import read_vectors
from probes.run import Run
from probes.stages.maps import MapOptions, write_maps
from probes.stages.pairs import write_pairs
from probes.stages.spectra import write_spectra
from tests.app.serving import CHROMIUM, PATIENCE, serve, settle
from tests.synthetic import write_run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    path = write_run(
        root / "demo",
        n_layers=3,
        steps=(1, 10, 100),
        arms=("baseline", "block"),
        prompts=8,
        d_model=8,
        directions=("reversion", "refusal", "control:drift"),
    )
    with Run.writing(path) as run:
        write_spectra(run)
        write_pairs(run)
        write_maps(run, MapOptions(methods=("pca",)))
    return root


@pytest.fixture(scope="module")
def served(root):
    """The address of the app on a synthetic run, started as the command starts it, from another folder."""
    with serve(root) as (address, _):
        yield address


@pytest.fixture
def page(browser):
    """A fresh visitor's page that may reach nothing but the app; what it asks for elsewhere is in `page.outside`."""
    visitor = browser.new_context(viewport={"width": 1440, "height": 900})
    shown = visitor.new_page()
    shown.set_default_timeout(PATIENCE)
    shown.outside = []
    shown.on("request", lambda request: _note_outside(shown.outside, request.url))
    yield shown
    visitor.close()


def _note_outside(outside, url):
    if not re.match(r"(https?|wss?)://localhost[:/]|data:|blob:", url):
        outside.append(url)


def _heading(page, text):
    page.get_by_role("heading", level=1, name=re.compile(text)).wait_for()


def _whole(page, text):
    """Wait for a page to its end: its heading comes before its widgets."""
    _heading(page, text)
    page.get_by_text("Save figures as").wait_for()
    settle(page)


def _wait_for_choices(page, *choices):
    """Wait until the address has all of them: one may come before another."""
    page.wait_for_url(lambda address: {*choices} <= {*urlsplit(address).query.split("&")})


def test_walking_the_pages_clicking_a_cell_and_sharing_the_link(served, page):
    page.goto(served)
    _heading(page, "Baseline: safety eroded")
    page.get_by_role("link", name="Layers").click()
    _whole(page, "layer by layer")
    assert "step=10" not in page.url.split("?")[1].split("&")
    cells = page.locator(".js-plotly-plot").first.locator(".scatterlayer .point")
    cells.nth(0).wait_for(state="attached")
    box = cells.nth(4).bounding_box()  # layer 0 (above the embedding), the second of three steps
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    _wait_for_choices(page, "layer=0", "step=10")
    page.get_by_text("The prompts at layer 0").wait_for()
    page.get_by_role("link", name="Trajectories").click()
    _whole(page, "of the way back")
    page.wait_for_url(re.compile(r"/trajectories\?"))
    _wait_for_choices(page, "layer=0", "step=10")
    link = page.url
    second_page = page.context.browser.new_page()
    second_page.set_default_timeout(PATIENCE)
    second_page.goto(link)
    second_page.get_by_text("Seed 0 at step 10, layer 0").wait_for()
    assert not page.outside, "the app must work with no network, and tell nobody what is looked at"


DRAWN_AGAIN = """
  Object.defineProperty(HTMLElement.prototype, "_ev", {set(events) {
    Object.defineProperty(this, "_ev", {value: events, writable: true, configurable: true});
    this.again = 0;
    events.on("plotly_beforeplot", () => {
      this.again += this.offsetWidth === this.drawnAt;
      this.drawnAt = this.offsetWidth;
    });
  }});
"""


@pytest.mark.parametrize("name", ["", "manifold", "directions"])
def test_a_figure_is_drawn_once_at_its_width(served, page, name):
    page.goto(f"{served}/run?run=demo")  # has the fonts; where one comes while Plotly draws, it draws again
    _whole(page, "demo is finished")
    page.add_init_script(DRAWN_AGAIN)
    page.goto(f"{served}/{name}?run=demo")
    page.get_by_text("Save figures as").wait_for()
    settle(page)
    page.locator(".js-plotly-plot .main-svg").first.wait_for(state="attached")
    page.wait_for_timeout(1500)
    again = page.evaluate("Array.from(document.querySelectorAll('.js-plotly-plot'), plot => plot.again)")
    assert again == [0] * len(again) != []


def test_comparing_two_checkpoints_and_asking_for_flips(served, page):
    page.goto(f"{served}/compare?run=demo")
    _whole(page, "Aligned against baseline step 100")
    page.locator("[data-testid=stSelectbox]").filter(has_text="Second").get_by_role("combobox").click()
    page.get_by_role("option", name="block step 10", exact=True).click()
    _heading(page, "Aligned against block step 10")
    page.wait_for_url(re.compile("other=block-s0-000010"))
    page.get_by_role("button", name="Flips").or_(page.get_by_role("radio", name="Flips")).first.click()
    page.get_by_text(re.compile(r"\d of 16 requests")).wait_for()


def test_playing_the_animation_moves_the_paths_and_stays_put_until_asked(served, page):
    page.goto(f"{served}/trajectories?run=demo")
    _whole(page, "of the way back")
    page.get_by_text("Play steps").click()
    plot = page.locator(".js-plotly-plot").first
    plot.locator(".slider-container").wait_for()
    label = plot.locator(".slider-label").first
    assert "100" in label.text_content()
    plot.get_by_text("▶ Play").click()
    _wait_for_step(page, 0)
    _wait_for_step(page, 10)
    _play_by_keyboard(page, plot)
    page.set_viewport_size({"width": 820, "height": 900})
    page.wait_for_function(f"(() => {{ const high = {DOMAIN}; return high[1] - high[0] > 0.97 }})()")


DOMAIN = "document.querySelector('.js-plotly-plot')._fullLayout.yaxis.domain"  # above it all is blank
POINTS = "document.querySelector('.js-plotly-plot .scatterlayer .trace').querySelectorAll('.point').length"


def _wait_for_step(page, step):
    page.wait_for_function(f"document.querySelector('.slider-label').textContent.trim() === 'step {step}'")


def _play_by_keyboard(page, plot):
    """Slider and buttons answer to the keys that such controls answer to, and say what they are."""
    slider = plot.get_by_role("slider")
    slider.focus()
    for key, step in (("End", 100), ("ArrowLeft", 10), ("ArrowDown", 1), ("Home", 0), ("ArrowRight", 1)):
        page.keyboard.press(key)
        _wait_for_step(page, step)
        plot.locator(f"[role=slider][aria-valuetext='step {step}']").wait_for(state="attached")
    page.wait_for_function(f"{POINTS} === 2")  # the paths as far as step 1; the label is written before them
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Play"
    page.keyboard.press("Enter")
    _wait_for_step(page, 10)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Pause"
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.ariaLabel") == "Pause", "the focus stays while the picture moves"


def test_a_download_is_the_data_that_was_drawn(served, page, root, tmp_path):
    page.goto(f"{served}/displacement?run=demo")
    _whole(page, "Baseline moved at")
    button = page.get_by_role("button", name="Table (CSV)").first
    _bring(page, button)
    with page.expect_download() as waiting:
        button.click()
    waiting.value.save_as(tmp_path / "table.csv")
    import pandas as pd

    drift = Run(root / "demo").read_table("drift", filters=[("layer", "==", 2), ("arm", "==", "baseline")])
    expected = drift[drift["statistic"] == "return_fraction"].sort_values("step")["value"]
    assert list(pd.read_csv(tmp_path / "table.csv")["along"]) == pytest.approx(list(expected))


def test_a_vector_is_downloaded_and_loaded_back(served, page, root, tmp_path):
    page.goto(f"{served}/directions?run=demo&direction=refusal")
    _whole(page, "Refusal turned by")
    page.get_by_role("heading", name="Export the direction").wait_for()
    _choose(page, "Format of refusal", re.compile("GGUF"))
    make = page.get_by_role("button", name="Create the file")
    _bring(page, make)
    make.click()
    ready = page.get_by_role("button", name="Download refusal.gguf")
    ready.wait_for()
    _bring(page, ready)
    with page.expect_download() as waiting:
        ready.click()
    waiting.value.save_as(tmp_path / "refusal.gguf")
    back, _ = read_vectors(tmp_path / "refusal.gguf", "refusal")
    stored = Vectors.read(root / "demo" / "directions" / "refusal.safetensors")
    assert back.layers
    for layer in back.layers:
        assert np.allclose(back.at(layer)[0], stored.at(layer)[0], atol=1e-6)


def _choose(page, label, name):
    box = page.locator("[data-testid=stSelectbox]").filter(has_text=label).get_by_role("combobox")
    _bring(page, box)
    box.click()
    page.get_by_role("option", name=name).click()


def _bring(page, element):
    """Scroll to it and wait until nothing moves any more: a click closes what a scroll had opened."""
    element.scroll_into_view_if_needed()
    last = None
    while (box := element.bounding_box()) != last:
        last = box
        page.wait_for_timeout(400)


def test_a_click_in_the_map_of_directions_opens_that_direction_everywhere(served, page):
    page.goto(f"{served}/directions?run=demo&direction=refusal&layer=2&step=10")
    _whole(page, "Refusal turned by")
    plot = page.locator(".js-plotly-plot").nth(1)
    cells = plot.locator(".scatterlayer .point")
    page.get_by_role("heading", name="Export the direction").wait_for()
    cells.nth(0).wait_for(state="attached")
    _bring(page, cells.nth(0))
    box = cells.nth(0).bounding_box()  # the first direction at layer 0
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    _heading(page, "Reversion turned by")
    _wait_for_choices(page, "direction=reversion", "layer=0")
    second_page = page.context.browser.new_page()
    second_page.set_default_timeout(PATIENCE)
    second_page.goto(page.url)
    second_page.get_by_role("heading", level=1, name=re.compile("Reversion turned by .* at layer 0")).wait_for()


def test_the_camera_stays_when_the_step_changes(served, page):
    page.goto(f"{served}/trajectories?run=demo")
    _whole(page, "of the way back")
    page.get_by_role("button", name="Space").or_(page.get_by_role("radio", name="Space")).first.click()
    plot = page.locator(".js-plotly-plot").first
    plot.locator(".gl-container canvas").first.wait_for()
    box = plot.locator(".gl-container canvas").first.bounding_box()
    at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    before = page.evaluate(CAMERA)
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 120, at[1] + 30, steps=8)
    page.mouse.up()
    page.wait_for_function(f"old => ({CAMERA}) !== old", arg=before)
    turned = page.evaluate(CAMERA)
    _choose(page, "Step", re.compile("^10$"))
    page.wait_for_url(re.compile(r"step=10(&|$)"))
    page.get_by_text("at step 10, layer").wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate(CAMERA) == turned


CAMERA = """
JSON.stringify(
  Object.values(document.querySelector('.js-plotly-plot')._fullLayout.scene._scene.getCamera().eye).map(
    each => each.toFixed(3)
  )
)
"""  # what is drawn, not what the layout says


def test_every_control_is_reached_by_the_keyboard(served, page):
    """From the first link to the page's own controls by Tab alone; Enter opens a page, the arrows choose a layer."""
    page.goto(f"{served}/layers?run=demo")
    _whole(page, "layer by layer")
    reached = []
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.innerText || document.activeElement.ariaLabel || ''"))
        if "Statistic" in reached[-1]:
            break
    every = " ".join(reached)
    for name in ("Overview", "Directions", "Live", "Run", "Trajectory", "Layer", "Step", "Statistic"):
        assert name in every, f"{name} is not among {every!r}"
    page.locator("[data-testid=stSidebar] [data-testid=stSelectbox]").filter(has_text="Layer").get_by_role(
        "combobox"
    ).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"layer=(0|1)"))


def test_the_arrow_keys_step_through_layers_and_the_link_is_copied(served, page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{served}/layers?run=demo&layer=1")
    _whole(page, "layer by layer")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(r"layer=2"))
    page.get_by_text("The prompts at layer 2").wait_for()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile(r"layer=1"))
    page.get_by_text("The prompts at layer 1").wait_for()
    page.locator("h1").click()  # the keys are those of the page still
    page.keyboard.press("ArrowRight")
    page.get_by_text("The prompts at layer 2").wait_for()
    page.get_by_role("button", name="Previous layer").click()
    page.get_by_text("The prompts at layer 1").wait_for()
    page.get_by_text("ROC", exact=True).click()
    page.wait_for_url(re.compile(r"prompts=roc"))
    page.get_by_role("button", name="Copy link").first.click()
    page.locator(".st-key-copy-link[data-copied=yes]").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    page.goto(f"{served}/run?run=demo")
    page.get_by_role("button", name="Copy", exact=True).first.click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator(".gp-command code").first.text_content()
    second_page = page.context.browser.new_page()
    second_page.set_default_timeout(PATIENCE)
    second_page.goto(link)
    second_page.locator(".js-plotly-plot").get_by_text("Harmful against harmless prompts").first.wait_for()


def test_a_run_that_is_still_being_written_is_followed(page, tmp_path):
    path = write_run(
        tmp_path / "young",
        n_layers=2,
        steps=(1, 10),
        arms=("baseline",),
        prompts=4,
        finished=False,
        without=("verdict", "nulls", "safety"),
    )
    with serve(tmp_path) as (address, _):
        page.goto(f"{address}/?run=young")
        _heading(page, "of the way back to the witness")
        page.get_by_text("still being written").wait_for()
        with Run.writing(path) as run, run.stage("verdict", "made from"):
            trajectory = {
                "arm": "baseline",
                "seed": 0,
                "level": 2,
                "name": "not towards the witness",
                "text": "As told.",
            }
            run.write_json("verdict", {"trajectories": [trajectory]})
        _heading(page, "Baseline: not towards the witness")
        with Run.writing(path) as run:
            run.finish()
        page.get_by_text("still being written").wait_for(state="detached")
