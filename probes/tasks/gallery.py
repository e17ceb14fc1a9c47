"""A gallery of a run: the pictures that a README shows, one file each, by one command.

Each picture is an HTML page that turns and answers the pointer; where a Chromium is installed, for print an SVG and a
PDF that carry their fonts, and the well step by step as an animation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import RunFolderError
from probes.lineage import MIRROR, ROLES
from probes.progress import Progress, Report, silent
from probes.run import Run
from probes.store import write_text
from probes.store.atomic import replacing

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


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
        filters = [("arm", "in", list(ROLES))]
        filters += [] if layer is None else [("layer", "==", layer)]  # type: ignore[list-item]
        return self.run.read_table("projections", filters=filters)


def draw_gallery(run: Run) -> dict[str, go.Figure]:
    """The pictures of a run, by name; those whose tables the run does not hold are left out.

    Raises:
        RunFolderError: there is nothing to draw, or a table is damaged.
    """
    place = _place(run)
    drawn = {
        name: draw(place)
        for name, (tables, draw) in _PICTURES.items()
        if run.has_witness and all(run.has_table(table) for table in tables)
    }
    if not drawn:
        raise RunFolderError(f"{run.path} holds nothing that a gallery shows", next_step="Measure it with a witness.")
    return drawn


def _place(run: Run) -> _Place:
    from probes.plots import style

    subtitle = f"{style.plain(run.manifest.name)} · layer {run.headline_layer}"
    return _Place(run, run.headline_layer, subtitle, run.lineage.witness_label)


def write_gallery(run: Run, folder: Path, report: Report = silent) -> list[Path]:
    """Write every picture of a run into a folder, and say which files there are.

    Raises:
        RunFolderError: there is nothing to draw.
    """
    from probes.plots.browser import find_browser, to_gif, to_pdf, to_svg
    from probes.plots.fonts import with_fonts
    from probes.plots.html_page import to_html
    from probes.plots.well_steps import step_by_step

    browser, figures, files = find_browser(), draw_gallery(run), []
    for done, (name, figure) in enumerate(figures.items()):
        report(Progress(f"drawing {name}", done, len(figures)))
        page = folder / f"{name}.html"
        write_text(page, to_html(figure))
        files.append(page)
        flat = not any(trace.type in ("surface", "scatter3d") for trace in figure.data)
        if browser is not None and flat and (image := to_svg(figure, browser)):
            write_text(page.with_suffix(".svg"), with_fonts(image) + "\n")
            files.append(page.with_suffix(".svg"))
            if pdf := to_pdf(image, browser):
                files.append(_write_bytes(page.with_suffix(".pdf"), pdf))
    if browser is not None and "well" in figures:
        report(Progress("drawing the well step by step", len(figures) - 1, len(figures)))
        place = _place(run)
        tables = place.prompts(place.layer), place.plane(place.layer)
        frames = step_by_step(*tables, subtitle=place.subtitle, witness=place.witness)
        if animation := to_gif(frames, browser):
            files.append(_write_bytes(folder / "well.gif", animation))
    return files


def _write_bytes(path: Path, content: bytes) -> Path:
    with replacing(path) as beside:
        beside.write_bytes(content)
    return path


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
