"""The gallery of a run: which pictures, and that they are files of their own."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from probes.cli import app
from probes.errors import RunFolderError
from probes.run import Run
from probes.tasks.gallery import WIDTH, draw_gallery, to_pdf, to_svg

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
def test_chromium_draws_a_figure_as_svg_and_as_a_pdf_with_its_fonts(tmp_path):
    run = Run(DEMO)
    figure = draw_gallery(run)["trajectories"]
    image = to_svg(figure, str(CHROMIUM))
    assert to_pdf(figure, image, tmp_path / "trajectories.pdf", str(CHROMIUM))
    pdf = (tmp_path / "trajectories.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"/FontFile2" in pdf
    assert pdf.count(b"/MediaBox") == 1
    assert f"/MediaBox [0 0 {WIDTH * 72 // 96} ".encode() in pdf
    picture = ET.fromstring(image)
    assert picture.get("width") == "960"
    push = run.drift(arm="push", statistic="return_fraction", layer=run.headline_layer)
    assert f"push, {push.sort_values('step')['value'].iloc[-1]:.2f} of the way" in image
