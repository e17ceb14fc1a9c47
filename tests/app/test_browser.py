"""The app in a real browser: the paths that people walk, from opening it to sharing a link."""

import re

import pytest

from probes.stages.maps import write_maps
from probes.stages.pairs import write_pairs
from probes.stages.spectra import write_spectra
from probes.store import RunFolder
from tests.app.serving import CHROMIUM, PATIENCE, QUIET, serve
from tests.synthetic import write_run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    path = write_run(root / "demo", n_layers=3, steps=(1, 10, 100), arms=("baseline", "block"), prompts=8, d_model=8)
    with RunFolder.writing(path) as run:
        write_spectra(run)
        write_pairs(run)
        write_maps(run, methods=("pca",))
    return root


@pytest.fixture(scope="module")
def served(root):
    """The address of the app on a synthetic run, started as the command starts it, from another folder."""
    with serve(root) as (address, _):
        yield address


@pytest.fixture
def page():
    """A page that may reach nothing but the app itself; what it asks for elsewhere is listed in `page.outside`."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        shown = browser.new_page(viewport={"width": 1440, "height": 900})
        shown.set_default_timeout(PATIENCE)
        shown.outside = []
        shown.on("request", lambda asked: _note_outside(shown.outside, asked.url))
        yield shown
        browser.close()


def _note_outside(found, url):
    if not re.match(r"(https?|wss?)://localhost[:/]|data:|blob:", url):
        found.append(url)


def _heading(page, text):
    page.get_by_role("heading", level=1, name=re.compile(text)).wait_for()


def test_walking_the_pages_clicking_a_cell_and_sharing_the_link(served, page):
    page.goto(served)
    _heading(page, "Baseline: specific to harmful prompts")
    page.get_by_role("link", name="Layers").click()
    _heading(page, "layer by layer")
    assert "step=10" not in page.url.split("?")[1].split("&")
    cells = page.locator(".js-plotly-plot").first.locator(".scatterlayer .point")
    cells.nth(0).wait_for(state="attached")
    box = cells.nth(4).bounding_box()  # layer 0 (above the embedding), the second of three steps
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url(re.compile(r"layer=0.*"))
    assert "step=10" in page.url.split("?")[1].split("&")
    page.get_by_text("The prompts at layer 0").wait_for()
    page.get_by_role("link", name="Trajectories").click()
    _heading(page, "of the way back")
    page.wait_for_url(re.compile(r"trajectories\?.*layer=0"))
    assert "step=10" in page.url.split("?")[1].split("&")
    link = page.url
    other = page.context.browser.new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(link)
    other.get_by_text("Seed 0 at step 10, layer 0").wait_for()
    assert not page.outside, "the app must work with no network, and tell nobody what is looked at"


def test_comparing_two_checkpoints_and_asking_for_flips(served, page):
    page.goto(f"{served}/compare?run=demo")
    _heading(page, "Aligned against baseline step 100")
    page.locator("[data-testid=stSelectbox]").filter(has_text="Second").get_by_role("combobox").click()
    page.get_by_role("option", name="block step 10", exact=True).click()
    _heading(page, "Aligned against block step 10")
    page.wait_for_url(re.compile("other=block-s0-000010"))
    page.get_by_role("button", name="Flips").or_(page.get_by_role("radio", name="Flips")).first.click()
    page.get_by_text(re.compile(r"\d of 16 requests")).wait_for()


def test_playing_the_animation_moves_the_paths_and_stays_put_until_asked(served, page):
    page.goto(f"{served}/trajectories?run=demo")
    _heading(page, "of the way back")
    page.get_by_text("Step by step").click()
    plot = page.locator(".js-plotly-plot").first
    plot.locator(".slider-container").wait_for()
    label = plot.locator(".slider-label").first
    assert "100" in label.text_content()
    plot.get_by_text("▶ Play").click()
    page.wait_for_function("document.querySelector('.slider-label').textContent.trim() === 'step 0'")
    page.wait_for_function("document.querySelector('.slider-label').textContent.trim() === 'step 10'")


def test_a_download_is_the_data_that_was_drawn(served, page, root, tmp_path):
    page.goto(f"{served}/displacement?run=demo")
    _heading(page, "Baseline moved at")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Table (CSV)").first.click()
    waiting.value.save_as(tmp_path / "table.csv")
    import pandas as pd

    drift = RunFolder(root / "demo").read_table("drift", filters=[("layer", "==", 2), ("arm", "==", "baseline")])
    expected = drift[drift["statistic"] == "return_fraction"].sort_values("step")["value"]
    assert list(pd.read_csv(tmp_path / "table.csv")["along"]) == pytest.approx(list(expected))
