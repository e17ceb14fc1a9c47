"""A gallery of a run: the pictures that a README shows, one file each, by one command.

Each picture is an HTML page that turns and answers the pointer; where a Chromium is installed, for print an SVG, and a
PDF that carries its fonts.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from probes.errors import RunFolderError
from probes.lineage import MIRROR
from probes.progress import Progress, Report, silent
from probes.run import Run
from probes.store import write_text

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

WIDTH = 960  # pixels
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PATIENCE = 120  # seconds for one picture
_SVG = "data:image/svg+xml,"
_UNSEEN = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000")
_SHEET = """<!doctype html><html><head><style>@page {{ size: {width}px {height}px; margin: 0 }}
body {{ margin: 0 }} svg {{ display: block }}</style></head><body>{image}</body></html>"""
_PAGE = """<!doctype html><html><body style="margin:0;width:{width}px"><script>
let seed = 1; Math.random = () => (seed = seed * 16807 % 2147483647) / 2147483647;  // Plotly's ids, the same each time
</script>{plot}<script>
const plot = document.querySelector(".plotly-graph-div");
Plotly.toImage(plot, {{format: "svg", width: {width}, height: {height}}}).then(image => {{
  document.body.textContent = image;
}});
</script></body></html>"""


@dataclass(frozen=True)
class _Place:
    """Where a run is looked at: its headline layer."""

    run: Run
    layer: int
    subtitle: str
    witness: str

    def plane(self, layer: int | None = None) -> pd.DataFrame:
        """Places of the checkpoints in the plane, of one layer or all."""
        filters = [] if layer is None else [("layer", "==", layer)]
        return self.run.read_table("maps/plane", filters=filters or None)

    def prompts(self, layer: int | None = None) -> pd.DataFrame:
        """Projections of the roles' prompts, of one layer or all."""
        filters = [("arm", "in", ["aligned", "witness", "pretrained"])]
        filters += [] if layer is None else [("layer", "==", layer)]  # type: ignore[list-item]
        return self.run.read_table("projections", filters=filters)


def draw_gallery(run: Run) -> dict[str, go.Figure]:
    """The pictures of a run, by name; those whose tables the run does not hold are left out.

    Raises:
        RunFolderError: there is nothing to draw, or a table is damaged.
    """
    from probes.plots import style

    subtitle = f"{style.plain(run.manifest.name)} · layer {run.headline_layer}"
    place = _Place(run, run.headline_layer, subtitle, run.lineage.witness_label)
    drawn = {
        name: draw(place)
        for name, (tables, draw) in _PICTURES.items()
        if run.has_witness and all(run.has_table(table) for table in tables)
    }
    if not drawn:
        raise RunFolderError(f"{run.path} holds nothing that a gallery shows", next_step="Measure it with a witness.")
    return drawn


def write_gallery(run: Run, folder: Path, report: Report = silent) -> list[Path]:
    """Write every picture of a run into a folder, and say which files there are.

    Raises:
        RunFolderError: there is nothing to draw.
    """
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    figures, files = draw_gallery(run), []
    for done, (name, figure) in enumerate(figures.items()):
        report(Progress(f"drawing {name}", done, len(figures)))
        page = folder / f"{name}.html"
        write_text(page, figure.to_html(include_plotlyjs=True, config={"displaylogo": False}))
        files.append(page)
        flat = not any(trace.type in ("surface", "scatter3d") for trace in figure.data)
        if browser is not None and flat and (image := to_svg(figure, browser)):
            write_text(page.with_suffix(".svg"), image + "\n")
            files.append(page.with_suffix(".svg"))
            if to_pdf(figure, image, page.with_suffix(".pdf"), browser):
                files.append(page.with_suffix(".pdf"))
    return files


def to_svg(figure: go.Figure, browser: str) -> str:
    """A figure as SVG, drawn by a Chromium without a window; empty where that failed."""
    plot = figure.to_html(include_plotlyjs=True, full_html=False, default_width=f"{WIDTH}px", div_id="plot")
    drawn = _draw(_PAGE.format(plot=plot, **_size(figure)), browser, "--dump-dom")
    start = drawn.find(_SVG)
    return unquote(drawn[start + len(_SVG) :].split("</body>")[0]) if start >= 0 else ""


def to_pdf(figure: go.Figure, image: str, path: Path, browser: str) -> bool:
    """A figure's SVG as a PDF of one page of its size, with its fonts in it; False where that failed."""
    _draw(_SHEET.format(image=image, **_size(figure)), browser, "--no-pdf-header-footer", f"--print-to-pdf={path}")
    return path.is_file()


def _size(figure: go.Figure) -> dict[str, int]:
    return {"width": WIDTH, "height": int(figure.layout.height or 450)}


def _draw(page: str, browser: str, *options: str) -> str:
    """What a Chromium without a window prints of a page; empty where that failed."""
    with tempfile.TemporaryDirectory(prefix="gravity-probe-") as folder:
        file = Path(folder) / "page.html"
        file.write_text(page, encoding="utf-8")
        command = [browser, *_UNSEEN, *options, f"--user-data-dir={folder}/profile", file.as_uri()]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            return ""


def _trajectories(place: _Place) -> go.Figure:
    """Return fraction against the whole off-axis length, arm by arm."""
    from probes.plots.trajectories import plane

    rows = place.run.drift(layer=place.layer)
    rows = rows[rows["statistic"].isin(["return_fraction", "off_axis"]) & (rows["arm"] != MIRROR)]
    places = rows.pivot_table(index=["arm", "seed", "step"], columns="statistic", values="value").reset_index()
    places = places.rename(columns={"return_fraction": "along", "off_axis": "across"})
    places = places[places["arm"] != "pretrained"]
    return plane(places, subtitle=place.subtitle, witness=place.witness, whole=True)


def _return_fraction(place: _Place) -> go.Figure:
    return place.run.figure("return_fraction")


def _lineage(place: _Place) -> go.Figure:
    from probes.plots.lineage_path import lineage_path, lineage_rows

    rows = lineage_rows(place.run.drift(layer=place.layer))
    return lineage_path(rows, subtitle=place.subtitle, witness=place.witness)


def _well(place: _Place) -> go.Figure:
    from probes.plots.well import contour

    prompts, paths = place.prompts(place.layer), place.plane(place.layer)
    return contour(prompts, paths, subtitle=place.subtitle, witness=place.witness)


def _well_surface(place: _Place) -> go.Figure:
    from probes.plots.well_surface import surface

    prompts, paths = place.prompts(place.layer), place.plane(place.layer)
    return surface(prompts, paths, subtitle=place.subtitle, witness=place.witness)


def _wells(place: _Place) -> go.Figure:
    from probes.plots.displacement_by_layer import evenly
    from probes.plots.well import multiples

    paths = place.plane()
    layers = evenly(sorted({int(layer) for layer in paths["layer"]}), place.layer)
    subtitle = place.subtitle.split(" · ")[0]
    return multiples(place.prompts(), paths, layers=layers, subtitle=subtitle, headline=place.layer)


_PLACES = ("maps/plane", "projections")
_PICTURES: dict[str, tuple[tuple[str, ...], Callable[[_Place], go.Figure]]] = {
    "trajectories": (("drift",), _trajectories),
    "return_fraction": (("drift",), _return_fraction),
    "lineage": (("drift",), _lineage),
    "well": (_PLACES, _well),
    "well_surface": (_PLACES, _well_surface),
    "wells_by_layer": (_PLACES, _wells),
}
