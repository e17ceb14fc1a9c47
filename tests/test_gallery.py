"""The gallery of a run: which pictures, and that they are files of their own."""

import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import plotly.graph_objects as go
import pytest
from typer.testing import CliRunner

from probes.cli import app
from probes.errors import RunFolderError
from probes.plots.arms import mark_of
from probes.plots.browser import WIDTH, to_gif, to_pdf, to_svg
from probes.plots.well_steps import step_by_step
from probes.run import Run
from probes.tasks.gallery import draw_gallery

DEMO = Path(__file__).parents[1] / "data" / "demo-run"
CHROMIUM = shutil.which("chromium")


def test_the_gallery_holds_the_readmes_pictures():
    figures = draw_gallery(Run(DEMO))
    assert list(figures) == ["trajectories", "return_fraction", "lineage", "well", "well_surface", "wells_by_layer"]
    assert all(figure.layout.title.text and figure.layout.height for figure in figures.values())
    assert "2 basins" in figures["well"].layout.title.text


def test_a_run_without_a_table_has_the_other_pictures_and_one_without_any_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(DEMO, folder)
    (folder / "projections.parquet").unlink()
    names = ["trajectories", "return_fraction", "lineage"]
    assert list(draw_gallery(Run(folder))) == names
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no Chromium
    done = CliRunner().invoke(app, ["report", str(folder), "--figures", str(tmp_path / "out"), "--json"])
    assert [Path(file).name for file in json.loads(done.stdout)["figures"]] == [f"{name}.html" for name in names]
    assert "Plotly.newPlot" in (tmp_path / "out" / "lineage.html").read_text()
    (folder / "drift.parquet").unlink()
    with pytest.raises(RunFolderError, match="nothing that a gallery shows"):
        draw_gallery(Run(folder))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_chromium_draws_a_figure_as_svg_and_as_a_pdf_with_its_fonts():
    run = Run(DEMO)
    figure = draw_gallery(run)["trajectories"]
    image = to_svg(figure, str(CHROMIUM))
    pdf = to_pdf(image, str(CHROMIUM))
    assert pdf.startswith(b"%PDF-")
    assert {b"/CIDFontType2"} == set(re.findall(rb"/Subtype (/CIDFont\w+|/Type[13]\w*|/TrueType|/MMType1)", pdf))
    assert len(re.findall(rb"/FontFile2 \d", pdf)) == len(set(re.findall(rb"/FontName /(\S+)", pdf))), "all are in it"
    assert {b"SourceSans3", b"SourceSerif"} <= {name[:11] for name in re.findall(rb"/FontName /\w+[+](\S+)", pdf)}
    assert pdf.count(b"/MediaBox") == 1
    assert f"/MediaBox [0 0 {WIDTH * 72 // 96} ".encode() in pdf
    picture = ET.fromstring(image)
    assert picture.get("width") == "960"
    assert to_pdf("no picture", str(CHROMIUM)) == b""
    push = run.drift(arm="push", statistic="return_fraction", layer=run.headline_layer)
    assert f"push, {push.sort_values('step')['value'].iloc[-1]:.2f} of the way" in image


def _frames():
    run = Run(DEMO)
    roles = [("arm", "in", ["aligned", "witness", "pretrained"]), ("layer", "==", 2)]
    prompts = run.read_table("projections", filters=roles)
    paths = run.read_table("maps/plane", filters=[("layer", "==", 2)])
    return step_by_step(prompts, paths, subtitle="run"), paths


def test_the_well_step_by_step_stays_in_its_limits_and_the_paths_grow():
    figures, paths = _frames()
    steps = sorted(set(paths.loc[paths["arm"] == "baseline", "step"]))
    assert len(figures) == len(steps)
    assert len({(figure.layout.xaxis.range, figure.layout.yaxis.range) for figure in figures}) == 1
    drawn = [next(trace for trace in figure.data if trace.name == "baseline s0") for figure in figures]
    assert [len(trace.x) for trace in drawn] == list(range(2, len(steps) + 2))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)")
def test_the_animation_shows_every_step_and_rests_at_the_last():
    from PIL import Image, ImageSequence

    figures, _ = _frames()
    animation = Image.open(io.BytesIO(to_gif(figures[:2] + figures[-1:], str(CHROMIUM))))
    frames = [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(animation)]
    assert len(set(frames)) == 3
    colours = {bytes(frames[-1][at : at + 3]) for at in range(0, len(frames[-1]), 3)}
    for arm in ("baseline", "block", "witness", "aligned"):
        own = bytes.fromhex(mark_of(arm).colour[1:])
        assert min(max(abs(a - b) for a, b in zip(own, colour, strict=True)) for colour in colours) < 16
    assert animation.info["duration"] == 2500
    assert animation.size[0] == 960


ONE_FACE = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<include>/etc/fonts/fonts.conf</include>
<match target="pattern"><edit name="family" mode="assign" binding="strong"><string>{face}</string></edit></match>
</fontconfig>"""  # a machine that has this face for any other


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)")
def test_an_animation_and_a_figure_are_the_same_on_machines_with_other_fonts(tmp_path, monkeypatch):
    last = _frames()[0][-1].update_yaxes(title_text="main off-axis direction")  # the project's fonts hold no ‖
    without_ours = go.Figure(layout={"title": {"text": "Whose type is this?"}, "font": {"family": "Helvetica"}})
    animations, images, of_the_machine = set(), set(), set()
    for face in ("DejaVu Sans Mono", "DejaVu Serif"):
        rules = tmp_path / "fonts.conf"
        rules.write_text(ONE_FACE.format(face=face))
        monkeypatch.setenv("FONTCONFIG_FILE", str(rules))
        animations.add(to_gif([last], str(CHROMIUM)))
        images.add(to_svg(last, str(CHROMIUM)))
        of_the_machine.add(to_gif([without_ours], str(CHROMIUM)))
    assert len(animations) == len(images) == 1
    assert b"" not in animations
    assert "" not in images
    assert len(of_the_machine) == 2, "these machines do differ"
