"""Run: what this run was made from, what is finished, how long it took, and how to make it again."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import components, tables
from app.components import Context
from probes.run import Run
from probes.tasks.report import how_to_reproduce, report_html

_MISSING = {
    "verdict.json": "gravity-probe verdict {}",
    "behaviour.parquet": "gravity-probe evaluate {}",
    "pairs.parquet": "gravity-probe map {}",
    "spectra.parquet": "gravity-probe map {}",
    "maps/pca-roles-layer0.parquet": "gravity-probe map {}",
}

_LINEAGE = {
    "checkpoint": st.column_config.TextColumn("checkpoint", width=190),
    "place": st.column_config.TextColumn("place", width=560),
    "weights sha256": st.column_config.TextColumn("weights sha256", width=180),
}


def show(run: Context) -> None:
    """Draw the page."""
    manifest = run.manifest
    state = "finished" if manifest.status == "finished" else "still being written, or was stopped"
    model = manifest.model
    components.header(
        "Run",
        f"{Path(run.key.path).name} is {state}",
        f"{model.get('architecture', 'A model')} with {model.get('n_layers', '?')} layers of width "
        f"{model.get('d_model', '?')}, {len(manifest.checkpoints)} checkpoints, made {_when(manifest.created)} by "
        f"gravity-probe {manifest.tool_version}.",
    )
    st.header("Make it again", anchor=False)
    components.command("\n".join(how_to_reproduce(manifest, run.whole_path)))
    _report(run)
    with components.section():
        _lacks(run)
    st.header("Lineage", anchor=False)
    tables.data_table(_checkpoints(manifest.checkpoints), name="checkpoints", column_config=_LINEAGE)
    st.header("Settings", anchor=False)
    _settings(manifest.config, manifest.config_given)
    left, right = st.columns(2)
    with left:
        st.header("Stages", anchor=False)
        stages = [
            {"stage": name, "seconds": record.seconds, "made from": record.made_from[:12]}
            for name, record in manifest.stages.items()
        ]
        _table(pd.DataFrame(stages, columns=["stage", "seconds", "made from"]))
    with right:
        st.header("Versions", anchor=False)
        packages = {"gravity-probe": manifest.tool_version, **manifest.packages}
        _table(pd.DataFrame(packages.items(), columns=["package", "version"]))
    st.header("Prompts", anchor=False)
    _table(
        pd.DataFrame(
            [(name, json.dumps(value)) for name, value in manifest.prompts.items()], columns=["property", "value"]
        )
    )
    st.header("Files", anchor=False)
    files = _files(Path(run.key.path))
    components.note(f"{len(files)} files, {files['size (MB)'].sum():,.1f} MB, in {run.key.path}")
    tables.data_table(files, name="files", height=320)


def _when(created: str) -> str:
    """A time of the manifest (UTC) in words, and as it is where it is no time."""
    try:
        time = datetime.datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


@st.fragment
def _report(run: Context) -> None:
    components.download(
        "Download the report (HTML)",
        lambda: report_html(Run(run.key.path, quick=True)),
        f"{run.manifest.name}-report.html",
        "text/html",
        icon=":material/download:",
        help="One self-contained file: verdict, lineage, charts, tables and how to reproduce it.",
    )
    components.note(f"The same file is made by: gravity-probe report {run.command_path}")


def _lacks(run: Context) -> None:
    """What other pages would show if it were made, and the commands that make it."""
    lacking = {
        command.format(run.command_path)
        for name, command in _MISSING.items()
        if not (Path(run.key.path) / name).is_file()
    }
    if lacking:
        components.missing("Not made yet. Make it with:", "\n".join(sorted(lacking)))


def _checkpoints(checkpoints: dict[str, dict[str, Any]]) -> pd.DataFrame:
    rows = [
        (name, str(about.get("place", "")), str(about.get("weights_sha256", ""))) for name, about in checkpoints.items()
    ]
    return pd.DataFrame(rows, columns=["checkpoint", "place", "weights sha256"])


def _settings(config: dict[str, Any], config_given: dict[str, Any]) -> None:
    rows = [(name, json.dumps(value), "given" if name in config_given else "default") for name, value in config.items()]
    _table(pd.DataFrame(rows, columns=["setting", "value", "from"]))


def _table(data: pd.DataFrame) -> None:
    tables.table(data, height=420)


def _files(path: Path) -> pd.DataFrame:
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    files = [file for file in files if "checkpoints" not in file.relative_to(path).parts]
    return pd.DataFrame(
        [(str(file.relative_to(path)), file.stat().st_size / 1e6) for file in files], columns=["file", "size (MB)"]
    )


show(components.context())
