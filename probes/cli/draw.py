"""Verbs that make what is looked at: `map`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from probes.cli.command import Verb
from probes.cli.output import print_json
from probes.errors import UsageError

Run = Annotated[Path, typer.Argument(help="A run folder.")]


def register(app: typer.Typer) -> None:
    """Put the verbs on the command."""
    app.command(name="map", cls=Verb)(draw_maps)
    app.command(cls=Verb)(report)


def draw_maps(
    run: Run,
    layer: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Layer; may be repeated. Default: all for PCA; all of a small model for UMAP."),
    ] = None,
    method: Annotated[Literal["pca", "umap", "both"], typer.Option(help="Kind of map.")] = "both",
    fit: Annotated[
        Literal["roles", "all"], typer.Option(help="Fit on aligned and witness (roles), or on every checkpoint.")
    ] = "roles",
    seed: Annotated[int, typer.Option(min=0, help="Seed of UMAP; the same seed gives the same map.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print the maps' descriptions as JSON.")] = False,
) -> None:
    """Compute what the front end draws from stored activations: maps of the prompts, spectra, pairs of checkpoints."""
    from probes.drift.geometry import Method
    from probes.run import Run
    from probes.stages.maps import MapOptions, write_maps
    from probes.stages.pairs import write_pairs
    from probes.stages.spectra import write_spectra
    from probes.terminal import progress_display

    Run(run)  # refused before anything is written, where it is no run
    methods: tuple[Method, ...] = ("pca", "umap") if method == "both" else (method,)
    with Run.writing(run) as open_run, progress_display() as tell:
        depth = open_run.activation_file("aligned").n_layers
        if layer and max(layer) >= depth:
            raise UsageError("No such layer", got=max(layer), expected=f"0 to {depth - 1}")
        write_spectra(open_run, tell)
        write_pairs(open_run, tell)
        options = MapOptions(methods, tuple(layer) if layer else None, fit, seed)
        names = write_maps(open_run, options, tell)
        documents = [open_run.read_json(name) for name in names]
    if json_:
        print_json(documents)
        return
    for about in documents:
        trust = about["trustworthiness"]
        typer.echo(
            f"{about['method'].upper():4} layer {about['layer']:>2}: {about['points']:,} points, trustworthiness "
            f"{trust['2']:.3f} (2-D), {trust['3']:.3f} (3-D)"
        )


def report(
    run: Run,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output file; default RUN/report.html.")] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", help="Write the main pictures into this folder instead: HTML; SVG, PDF, GIF with Chromium."
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Print a block for a model card (Markdown) instead; --out writes it.")
    ] = False,
    arm: Annotated[str | None, typer.Option(help="With --card: which training; default: baseline.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the output path as JSON.")] = False,
) -> None:
    """Write a run as one self-contained HTML file: verdict, lineage, charts, tables, how to reproduce it."""
    from probes.run import Run
    from probes.store import write_text
    from probes.store.remote import outgoing
    from probes.tasks.report import report_html

    if card:
        if figures is not None:
            raise UsageError("--card writes a block, and --figures pictures", next_step="Ask for one of them.")
        _write_card(run, out, arm, as_json=json_)
        return
    if arm is not None:
        raise UsageError("--arm belongs to --card: the report holds every arm", got=repr(arm))
    if figures is not None:
        if out is not None:
            raise UsageError(
                "--figures writes a folder of pictures, and --out one file", next_step="Ask for one of them."
            )
        _write_figures(run, figures, as_json=json_)
        return
    with outgoing(out or run / "report.html", overwrite=True) as target:
        write_text(target.path, report_html(Run(run)))
        size, place = target.path.stat().st_size, target.place_of(target.path)
    if json_:
        print_json({"report": place, "bytes": size})
    else:
        typer.echo(f"Written: {place}")


def _write_card(run: Path, out: Path | None, arm: str | None, *, as_json: bool) -> None:
    from probes.run import Run
    from probes.store import write_text
    from probes.store.remote import outgoing
    from probes.tasks.card import card_markdown

    text, place = card_markdown(Run(run), arm), None
    if out is not None:
        with outgoing(out) as target:
            if target.path.exists():
                raise UsageError(f"{out} is already there", next_step="Give --out another name.")
            write_text(target.path, text)
            place = target.place_of(target.path)
    if as_json:
        print_json({"card": text, "path": place})
    else:
        typer.echo(text if place is None else f"Written: {place}", nl=place is not None)


def _write_figures(run: Path, folder: Path, *, as_json: bool) -> None:
    from probes.run import Run
    from probes.store.remote import outgoing
    from probes.tasks.gallery import write_gallery
    from probes.terminal import progress_display

    with progress_display() as tell, outgoing(folder, tell, overwrite=True) as target:
        files = [target.place_of(file) for file in write_gallery(Run(run), target.path, tell)]
    if as_json:
        print_json({"figures": files})
    else:
        typer.echo("\n".join(f"Written: {file}" for file in files))
