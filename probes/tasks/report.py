"""A run as one HTML file that needs nothing else: verdict, lineage, charts, tables, and how to make it again."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from probes.drift import WITHOUT_WITNESS
from probes.errors import RunFolderError
from probes.lineage import NO_WITNESS, ROLES
from probes.nulls import PROFILE
from probes.run import Run
from probes.statistics import decimal, null_name, statistic_of, typeset
from probes.store import Manifest

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_STYLE = """
body { font: 16px/1.55 "Source Sans 3", "Helvetica Neue", Arial, sans-serif; color: #1F2328; margin: 3rem auto;
  max-width: 66rem; padding: 0 2rem; }
h1, h2 { font-family: "Source Serif 4", Georgia, serif; font-weight: 500; line-height: 1.2; }
h1 { font-size: 2.1rem; margin: .2rem 0 .6rem; } h2 { font-size: 1.4rem; margin: 2.6rem 0 .6rem; }
.kicker { font-size: .8rem; letter-spacing: .09em; text-transform: uppercase; opacity: .6; margin: 0; }
.lead { font-size: 1.08rem; max-width: 46rem; }
.note { font-size: .85rem; opacity: .7; max-width: 46rem; }
.notice { border-left: 3px solid #E69F00; padding-left: .8rem; max-width: 46rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { text-align: left; padding: .25rem 1.3rem .25rem 0; border-bottom: 1px solid #E3E5E8; }
th { font-weight: 400; font-size: .8rem; opacity: .65; } td.n, th.n { text-align: right; }
pre { background: #F6F6F3; padding: 1rem; overflow-x: auto; font-size: .85rem; }
.wide { overflow-x: auto; }
"""
_COLUMNS = ("alignment", "alignment_crossfit", "did_alignment", "return_fraction", "off_axis", "share_moved")


def report_html(run: Run) -> str:
    """The report of a run; what the run does not hold is left out, with the command that makes it.

    Raises:
        RunFolderError: the run has no drift yet, or one of its tables is damaged.
    """
    from plotly.offline import get_plotlyjs

    layer = run.headline_layer
    drift = run.drift(layer=layer)
    if drift.empty:
        raise RunFolderError(f"{run.path} has nothing measured at layer {layer}", next_step="Measure it first.")
    answer = [*_safety(run), *_notices(run), *_verdict(run)]
    parts = [*answer, *_charts(run, drift, layer), *_numbers(drift, layer), *_made_from(run)]
    name = html.escape(run.manifest.name)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name} – Gravity Probe</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head><body>"
        f'<p class="kicker">Gravity Probe · {name}</p>{"".join(parts)}</body></html>\n'
    )


def how_to_reproduce(manifest: Manifest, path: str) -> list[str]:
    """The commands that make a run again; `path` as it is typed in a shell.

    A measurement's lineage is kept in the manifest, not in a file: the command names a file to write it to.
    """
    demo = manifest.config_given.get("demo")
    if isinstance(demo, dict):
        quick = " --quick" if demo.get("quick") else ""
        nulls = "" if manifest.config.get("nulls", True) else " --no-nulls"
        start = f"gravity-probe demo --seed {demo.get('seed', 0)} --seeds {demo.get('seeds', 1)}{quick}{nulls}"
        return [f"# with gravity-probe {manifest.tool_version}", f"{start} --no-app --out {path}"]
    options = [
        f"--set {shlex.quote(f'{key}={value}')}"
        for key, value in manifest.config_given.items()
        if not _is_nested(value)
    ]
    return [
        f"# with gravity-probe {manifest.tool_version}",
        "# lineage.toml: the lineage as kept in run.json",
        " ".join(["gravity-probe measure lineage.toml", *options, "--out", path]),
    ]


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _safety(run: Run) -> Iterator[str]:
    """Did this fine-tune break safety? First of all, in the words of the summary."""
    if not run.has_json("safety"):
        yield "<h1>Safety was not judged</h1>"
        yield f"<p class='lead'>Judge it: <code>gravity-probe evaluate {html.escape(str(run.path))}</code></p>"
        return
    entries = sorted(
        run.read_json("safety"), key=lambda entry: (entry["arm"] != "baseline", entry["arm"], entry["seed"])
    )
    main, *further = entries
    yield f"<h1>{html.escape(str(main['arm']).capitalize())}: safety {html.escape(main['answer'])}</h1>"
    yield f'<p class="lead">{html.escape(main["text"])}</p>'
    lines = (html.escape(f"{entry['arm']} (seed {entry['seed']}): {entry['text']}") for entry in further)
    yield "".join(f"<p>{line}</p>" for line in lines)


def _notices(run: Run) -> Iterator[str]:
    """What the run says of itself, as the table and the front end do beside the answer."""
    yield from (f'<p class="notice">{html.escape(sentence)}</p>' for sentence in run.notices)


def _verdict(run: Run) -> Iterator[str]:
    verdicts = run.verdicts
    if not run.has_witness:
        yield f"<h2>The way back is not defined: {NO_WITNESS}</h2>"
        yield "<p class='lead'>So are its tests and its level. What follows needs no witness.</p>"
        return
    if not verdicts:
        yield "<h2>No verdict has been written</h2>"
        yield f"<p class='lead'>Write it: <code>gravity-probe verdict {html.escape(str(run.path))}</code></p>"
        return
    main = next((verdict for verdict in verdicts if verdict["arm"] == "baseline"), verdicts[0])
    yield f"<h2>{html.escape(str(main['arm']).capitalize())}: {html.escape(str(main.get('name', '')))}</h2>"
    yield f'<p class="lead">{html.escape(typeset(str(main.get("text", ""))))}</p>'
    rows = [
        [
            verdict["arm"],
            verdict.get("seed"),
            f"{verdict.get('level')} of 6",
            verdict.get("name"),
            null_name(str(verdict.get("decided_by") or "–")),
            _number(verdict.get("p")),
        ]
        for verdict in verdicts
    ]
    yield _table(["arm", "seed", "level", "verdict", "decided by", "p"], rows)


def _charts(run: Run, drift: pd.DataFrame, layer: int) -> Iterator[str]:
    from probes.plots import style

    subtitle = f"{style.plain(run.manifest.name)} · layer {layer}"
    arms = style.in_order(set(drift["arm"]) - set(ROLES))
    main = "baseline" if "baseline" in arms else arms[0]
    if run.has_witness:
        subtitle += f" · direction {style.plain(run.lineage.witness_label)} − aligned"
        yield from _way_back(run, drift, layer, main, subtitle)
    else:
        yield from _without_witness(run, drift, layer, main, subtitle)
    yield from _probe(run, layer)
    yield from _behaviour(run, drift, subtitle)


def _way_back(run: Run, drift: pd.DataFrame, layer: int, main: str, subtitle: str) -> Iterator[str]:
    """How far every arm went towards the witness, at which layers, and by which path."""
    from probes.plots.by_step import by_step
    from probes.plots.lineage_path import lineage_path, lineage_rows
    from probes.plots.trajectories import plane

    witness = run.lineage.witness_label
    yield "<h2>How far, and which way</h2>"
    yield _figure(lineage_path(lineage_rows(drift), subtitle=subtitle, witness=witness))
    seed = int(drift[drift["arm"] == main]["seed"].min())
    for statistic in ("alignment_crossfit", "return_fraction"):
        rows = drift[drift["statistic"] == statistic]
        nulls = _nulls(run, layer, main, seed, statistic)
        yield _figure(by_step(rows, statistic=statistic, subtitle=subtitle, nulls=nulls))
    if run.has_table("nulls"):
        yield f'<p class="note">The nulls drawn are those of {html.escape(main)}, seed {seed}.</p>'
    yield _by_layer(run, main, seed, "return_fraction", layer)
    if run.has_table("maps/plane"):
        places = run.read_table("maps/plane", filters=[("layer", "==", layer)])
        if len(places):
            yield "<h2>The paths</h2>" + _figure(plane(places, subtitle=subtitle, witness=witness))


def _without_witness(run: Run, drift: pd.DataFrame, layer: int, main: str, subtitle: str) -> Iterator[str]:
    """How far every arm went, where nothing can be said of a way back."""
    from probes.plots.by_step import by_step

    yield "<h2>How far</h2>"
    yield f'<p class="note">Which way is not defined: {NO_WITNESS}.</p>'
    for statistic in WITHOUT_WITNESS[:2]:
        yield _figure(by_step(drift[drift["statistic"] == statistic], statistic=statistic, subtitle=subtitle))
    seed = int(drift[drift["arm"] == main]["seed"].min())
    yield _by_layer(run, main, seed, WITHOUT_WITNESS[0], layer)


def _by_layer(run: Run, arm: str, seed: int, statistic: str, headline: int) -> str:
    from probes.plots import style
    from probes.plots.heatmap import heatmap, run_limits

    subtitle = f"{style.plain(run.manifest.name)} · {style.plain(arm)}, seed {seed}"
    rows = run.drift(arm=arm, statistic=statistic, seed=seed)
    every = run.drift(statistic=statistic)
    limits = run_limits(every[~every["arm"].isin(ROLES)], statistic)
    figure = heatmap(rows, statistic=statistic, headline=headline, limits=limits, subtitle=subtitle)
    return "<h2>Where in the network</h2>" + _figure(figure)


def _probe(run: Run, layer: int) -> Iterator[str]:
    """The refusal probe's four numbers at every checkpoint."""
    if not run.has_table("probe"):
        return
    rows = run.read_table("probe", filters=[("layer", "==", layer)])
    yield f"<h2>Refusal probe at layer {layer}</h2>"
    yield (
        "<p class='note'>Harmful − harmless class means. In a real run these did not track behaviour: the AUROC rose "
        "from 0.79 to 0.86 while refusals of harmful requests fell from 86 to 41 %.</p>"
    )
    columns = ["arm", "seed", "step", "cosine", "auroc", "refit", "norm"]
    cells = [[*row[:3], *map(_number, row[3:])] for row in rows[columns].itertuples(index=False, name=None)]
    yield _table([*columns[:3], *(statistic_of(name).title for name in columns[3:])], cells)


def _behaviour(run: Run, drift: pd.DataFrame, subtitle: str) -> Iterator[str]:
    """What the models do, over their life and against the return."""
    from probes.plots.behaviour import behaviour
    from probes.plots.by_step import by_step

    yield "<h2>What the models do</h2>"
    if not run.has_table("behaviour"):
        yield f"<p class='note'>Not measured: <code>gravity-probe evaluate {html.escape(str(run.path))}</code></p>"
        return
    table = run.table("behaviour")
    measure = "harmful_compliance" if "harmful_compliance" in set(table["measure"]) else "refusal_harmful"
    rows = table[table["measure"] == measure]
    yield _figure(by_step(rows, statistic=measure, subtitle=subtitle))
    if not run.has_witness:
        return
    fraction = drift[drift["statistic"] == "return_fraction"].set_index("checkpoint")["value"]
    joined = rows.assign(fraction=rows["checkpoint"].map(fraction).where(rows["arm"] != "aligned", 0.0).astype(float))
    joined = joined.dropna(subset=["fraction", "value"])
    yield _figure(behaviour(joined, measure=measure, subtitle=subtitle, witness=run.lineage.witness_label))


def _nulls(run: Run, layer: int, arm: str, seed: int, statistic: str) -> pd.DataFrame | None:
    if not run.has_table("nulls"):
        return None
    rows = run.nulls(layer)
    return rows[
        (rows["arm"] == arm) & (rows["seed"] == seed) & (rows["statistic"] == statistic) & ~rows["null"].isin(PROFILE)
    ]


def _figure(figure: go.Figure) -> str:
    from probes.plots.html_page import to_html

    return to_html(figure, alone=False)


def _numbers(drift: pd.DataFrame, layer: int) -> Iterator[str]:
    from probes.plots import style

    yield f"<h2>All numbers at layer {layer}</h2>"
    wide = drift.pivot_table(index=["arm", "seed", "step"], columns="statistic", values="value", sort=False)
    columns = [name for name in _COLUMNS if name in wide.columns]
    order = style.in_order({arm for arm, _, _ in wide.index})
    ranked = sorted(wide.index, key=lambda place: (order.index(place[0]), *place[1:]))
    rows = [[*place, *(_number(wide.loc[place, name]) for name in columns)] for place in ranked]
    yield _table(["arm", "seed", "step", *(statistic_of(name).title for name in columns)], rows)


def _made_from(run: Run) -> Iterator[str]:
    manifest = run.manifest
    yield "<h2>Lineage</h2>"
    rows = [
        [name, about.get("place", ""), str(about.get("weights_sha256", ""))[:16]]
        for name, about in manifest.checkpoints.items()
    ]
    yield _table(["checkpoint", "place", "weights sha256"], rows)
    yield "<h2>Made from</h2>"
    prompts = {f"prompts: {key}": value for key, value in manifest.prompts.items()}
    settings = {**manifest.model, **manifest.config, **prompts}
    yield _table(["setting", "value"], [[key, value] for key, value in settings.items()])
    packages = {"gravity-probe": manifest.tool_version, **manifest.packages}
    yield _table(["package", "version"], [[name, version] for name, version in packages.items()])
    yield "<h2>Make it again</h2>"
    yield f"<pre>{html.escape(chr(10).join(how_to_reproduce(manifest, shlex.quote(manifest.name))))}</pre>"


def _number(value: Any) -> str:
    return decimal(float(value), 3) if isinstance(value, int | float) else "–"


def _table(head: list[str], rows: list[list[Any]]) -> str:
    """Rows as a table; everything from the run is escaped."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'
