"""A saved figure: its name says what it is of, it is a column wide, carries its fonts, and its button can be seen."""

import base64
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import streamlit as st
from plotly.offline import get_plotlyjs

from app.charts import COLUMNS
from app.printing import NO_BROWSER
from app.widgets import SAVE
from probes.plots.html_page import to_html
from probes.plots.trajectories import plane
from probes.run import Run
from tests.app.serving import CHROMIUM, settle
from tests.app.visiting import visitor

DEMO = Path(__file__).parents[2] / "data" / "demo-run"


@pytest.fixture
def page(monkeypatch):
    st.cache_data.clear()
    monkeypatch.setattr(sys, "argv", ["main.py", str(DEMO.parent)])
    at = visitor({"run": "demo-run", "arm": "control:random", "step": "20", "layer": "1"})
    return at.switch_page("views/trajectories.py").run()


def saving(at):
    config = json.loads(at.get("plotly_chart")[0].proto.config)
    return config, config["toImageButtonOptions"]


def test_the_name_says_run_arm_layer_and_step_and_the_button_is_always_there(page):
    config, options = saving(page)
    assert config["displayModeBar"] is True
    assert options["filename"] == "demo-run-trajectories-plane"
    place = ':root { --gp-place: "control-random-s0-layer-1-step-20"; --gp-save: png; }'
    assert any(place in element.proto.body for element in page.get("html"))


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("kind", SAVE.options)
def test_the_size_is_fixed_in_columns_whatever_the_window(page, columns, kind):
    page.segmented_control(key="choose-columns").set_value(columns).run()
    page.segmented_control(key="choose-save").set_value(kind).run()
    options = saving(page)[1]
    assert (options["width"], options["format"]) == (COLUMNS[columns], "svg"), "the others are made of it"
    assert any(f"--gp-save: {kind};" in element.proto.body for element in page.get("html"))
    assert _blank_share(json.loads(page.get("plotly_chart")[0].proto.spec)["layout"], options) < 0.02


def _blank_share(layout, size):
    """How much of the room for a plane's axes they leave above them, where both have one scale."""
    margin, spans = layout["margin"], [layout[axis]["range"] for axis in ("xaxis", "yaxis")]
    wide, high = size["width"] - margin["l"] - margin.get("r", 24), size["height"] - margin.get("t", 84) - margin["b"]
    filled = wide * (spans[1][1] - spans[1][0]) / (spans[0][1] - spans[0][0])
    return 1 - filled / high


def test_type_is_as_large_on_paper_in_every_column():
    millimetres = {"1": 89, "1.5": 120, "2": 183}
    scales = [COLUMNS[name] / width for name, width in millimetres.items()]
    assert max(scales) / min(scales) < 1.005


def test_how_figures_are_saved_is_in_the_address(page):
    page.segmented_control(key="choose-columns").set_value("1.5").run()
    page.segmented_control(key="choose-save").set_value("svg").run()
    assert page.query_params["columns"] == "1.5"
    assert page.query_params["save"] == "svg"
    page.segmented_control(key="choose-columns").set_value("2").run()
    assert "columns" not in page.query_params


def test_without_a_browser_on_the_apps_machine_it_is_said_that_no_pdf_is_saved(page, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    page.segmented_control(key="choose-save").set_value("pdf").run()
    assert any(NO_BROWSER in element.proto.body for element in page.get("html"))
    page.segmented_control(key="choose-save").set_value("svg").run()
    assert not any(NO_BROWSER in element.proto.body for element in page.get("html"))


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)")
def test_a_saved_figure_is_one_column_wide_and_carries_its_fonts(served_demo, browser, tmp_path):
    page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="dark")
    address = f"{served_demo}/trajectories?run=demo-run&columns=1&light_ink=yes&save="
    files = {kind: _save(page, f"{address}{kind}", tmp_path, kind) for kind in ("svg", "pdf", "png")}
    svg = files["svg"].read_text()
    assert _pixels(page, files["png"]) == _pixels(page, files["svg"]) != _pixels(page, _without_fonts(svg))
    page.close()
    assert ET.fromstring(svg).get("width") == "480"
    assert "rgb(255, 255, 255)" in svg.split("<rect")[1], "the light ink, which was asked for on a dark page"
    assert set(re.findall(r'@font-face{font-family:"([^"]+)"', svg)) == {"Source Sans", "Source Serif"}
    assert _size_without_system_fonts(browser, svg) != _size_without_system_fonts(browser, _without_fonts(svg))
    pdf = files["pdf"].read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/MediaBox [0 0 360 ") == 1, "480 pixels, one page"
    assert {name.split(b"+")[1][:11] for name in re.findall(rb"/FontName /(\S+)", pdf)} >= {
        b"SourceSans3",
        b"SourceSerif",
    }
    kinds = set(re.findall(rb"/Subtype /(CIDFont\w+|Type[13]\w*|TrueType|MMType1)", pdf))
    assert kinds == {b"CIDFontType2"}, "TrueType, and no letter as a drawing (Type 3)"
    assert len(re.findall(rb"/FontFile2 \d", pdf)) == pdf.count(b"/FontName /"), "each lies in it"
    assert b"/Subtype /Image" not in pdf, "lines stay lines"


def _save(page, address, folder, kind):
    """What the first figure's own button saves."""
    page.goto(address)
    page.get_by_text("Save figures as").wait_for()
    settle(page)
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    with page.expect_download() as waiting:
        page.locator(".js-plotly-plot .modebar-btn").first.click()
    assert waiting.value.suggested_filename == f"demo-run-trajectories-plane-baseline-s0-layer-2-step-100.{kind}"
    waiting.value.save_as(folder / f"saved.{kind}")
    return folder / f"saved.{kind}"


DRAWN = """async address => {
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [1440, Math.round(1440 * picture.height / picture.width)];
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const bytes = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.height, Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)))];
}"""


def _pixels(page, picture):
    """Height, and a digest of all pixels, of a picture drawn three times a column wide."""
    content = picture.read_bytes() if isinstance(picture, Path) else picture.encode()
    kind = "image/png" if content.startswith(b"\x89PNG") else "image/svg+xml"
    return page.evaluate(DRAWN, f"data:{kind};base64,{base64.b64encode(content).decode()}")


def _without_fonts(svg):
    return re.sub("<style.*?</style>", "", svg, count=1, flags=re.DOTALL)


def _size_without_system_fonts(browser, svg):
    """How wide the title is where the page has no font of that name: an image uses what lies in it, or another font."""
    page = browser.new_page()
    address = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    page.goto(address)
    page.evaluate("document.fonts.ready")
    width = page.evaluate("document.querySelector('.gtitle').getBBox().width")
    page.close()
    return width


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)")
def test_a_figure_of_no_step_is_not_drawn_anew_at_another_step_and_its_file_is_named_by_that_step(served_demo, browser):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.goto(f"{served_demo}/behaviour?run=demo-run&arm=baseline&step=20&layer=1")
    settle(page)
    page.locator(".st-key-chart-behaviour .main-svg").first.wait_for()
    page.evaluate("document.querySelector('.st-key-chart-behaviour .main-svg').drawnAtStep20 = true")
    box = page.locator("[data-testid=stSidebar] [data-testid=stSelectbox]").filter(has_text="Step")
    box.get_by_role("combobox").click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: "step=20&" not in f"{address}&")
    settle(page)
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('.st-key-chart-behaviour .main-svg').drawnAtStep20")
    step = re.search(r"step=(\d+)", page.url)[1]
    with page.expect_download() as waiting:
        page.locator(".st-key-chart-behaviour .modebar-btn").first.click()
    page.close()
    assert waiting.value.suggested_filename == f"demo-run-behaviour-baseline-s0-layer-1-step-{step}.png"


def test_every_figure_that_is_saved_as_html_goes_through_the_page_with_the_keys():
    files = [file for folder in ("app", "probes") for file in (DEMO.parents[1] / folder).rglob("*.py")]
    users = {file.name for file in files if ".to_html(" in file.read_text(encoding="utf-8")}
    assert users == {"html_page.py"}


def test_no_file_that_is_saved_runs_its_page_again_which_could_take_it_away():
    files = (DEMO.parents[1] / "app").rglob("*.py")
    assert {file.name for file in files if "download_button(" in file.read_text(encoding="utf-8")} == {"components.py"}


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)")
@pytest.mark.parametrize("alone", [True, False])
def test_an_animation_that_is_saved_as_html_answers_to_the_keyboard(browser, tmp_path, alone):
    table = Run(DEMO).read_table("maps/plane", filters=[("layer", "==", 2)])
    text = to_html(plane(table, subtitle="run", moving=True), alone=alone)
    page, file = browser.new_page(), tmp_path / "figure.html"
    file.write_text(text if alone else f"<html><script>{get_plotlyjs()}</script>{text}</html>", encoding="utf-8")
    page.goto(file.as_uri())
    page.get_by_role("slider").focus()
    for key, step in (("Home", 0), ("ArrowRight", 1), ("End", 100), ("ArrowLeft", 50)):
        page.keyboard.press(key)
        page.wait_for_function(f"document.querySelector('.slider-label').textContent.trim() === 'step {step}'")
        page.wait_for_function(f"document.querySelector('[role=slider]').ariaValueText === 'step {step}'")
    page.wait_for_function("!document.querySelector('.js-plotly-plot')._transitioning")
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.slider-label').textContent.trim() === 'step 100'")
    page.close()


def test_a_figure_that_does_not_move_carries_no_keys():
    table = Run(DEMO).read_table("maps/plane", filters=[("layer", "==", 2)])
    assert "gravityKeys" not in to_html(plane(table, subtitle="run"), alone=False)
