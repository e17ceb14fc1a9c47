"""A run's maps of prompts for Embedding Atlas: one Parquet file, a row a prompt, checkpoint and layer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import RunFolderError, UsageError
from probes.run import Run
from probes.store.atomic import replacing

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("id", "text", "label", "topic", "checkpoint", "arm", "seed", "step", "prompt", "layer", "x", "y")
_MAP = re.compile(r"(?P<method>[a-z]+)-(?P<fit>[a-z]+)-layer(?P<layer>\d+)")
_FITS = ("roles", "all")  # the first of them that was drawn
_SUFFIX = ".parquet"


def write_places(run: Run, out: Path, method: str, layer: int | None = None) -> tuple[Path, list[str]]:
    """Write where every prompt lies at every checkpoint, with its text, and its answer where the run holds one.

    Args:
        run: of which maps were drawn.
        out: the file to be; it gets the suffix `.parquet`.
        method: `pca` or `umap`.
        layer: only this one; None is every layer that was drawn.

    Returns:
        The file, and what it holds, in sentences.

    Raises:
        RunFolderError: no such map was drawn.
        UsageError: something is there already.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = out if out.suffix == _SUFFIX else out.with_name(out.name + _SUFFIX)
    if place.exists():
        raise UsageError(f"{place} is already there", next_step="Give --out a new name.")
    names = _map_names(run, method, layer)
    prompts = run.read_table("prompts")
    about = {name: run.read_json(name) for name in names.values()}
    frame = pd.concat([_places(run, name, number, prompts) for number, name in names.items()], ignore_index=True)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({b"gravity_probe": json.dumps(about, sort_keys=True).encode()})
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as beside:
        pq.write_table(table, beside)
    layers = f"layers {', '.join(map(str, names))}" if len(names) > 1 else f"layer {next(iter(names))}"
    return place, [f"{len(frame):,} points: {method} at {layers}", f"embedding-atlas {place} --text text --x x --y y"]


def _map_names(run: Run, method: str, layer: int | None) -> dict[int, str]:
    """The maps of a method by layer."""
    matches = [match for path in (run.path / "maps").glob(f"*{_SUFFIX}") if (match := _MAP.fullmatch(path.stem))]
    drawn = {(match["method"], match["fit"], int(match["layer"])): f"maps/{match[0]}" for match in matches}
    for fit in _FITS:
        names = {
            place: name for (kind, fitted, place), name in sorted(drawn.items()) if (kind, fitted) == (method, fit)
        }
        if names and layer in (None, *names):
            return names if layer is None else {layer: names[layer]}
    at = "" if layer is None else f" at layer {layer}"
    option = "" if layer is None else f" --layer {layer}"
    raise RunFolderError(
        f"{run.path} holds no {method} map of the prompts{at}",
        got=", ".join(sorted(name.removeprefix("maps/") for name in drawn.values())) or "no maps",
        next_step=f"Draw it: gravity-probe map {run.path} --method {method}{option}.",
    )


def _places(run: Run, name: str, layer: int, prompts: pd.DataFrame) -> pd.DataFrame:
    """One map's points with what is known of their prompts."""
    points = run.read_table(name).assign(layer=layer)
    known = prompts.set_index("id").reindex(points["prompt"])
    places = zip(points["checkpoint"], points["prompt"], strict=True)
    points = points.assign(
        id=[f"{checkpoint}, {prompt}, layer {layer}" for checkpoint, prompt in places],
        text=known["text"].to_numpy(),
        topic=known["topic"].to_numpy() if "topic" in known else None,
    )
    answers = _probe_answers(run, points["checkpoint"].unique().tolist())
    points = points[list(COLUMNS)]
    return points if answers is None else points.merge(answers, how="left", on=["checkpoint", "prompt"])


def _probe_answers(run: Run, checkpoints: list[str]) -> pd.DataFrame | None:
    """Answers to the probe prompts, and their verdicts; None where the run holds none."""
    import pandas as pd

    parts = [
        run.read_table(f"probe_answers/{name}", columns=["prompt", "completion", "verdict"]).assign(checkpoint=name)
        for name in checkpoints
        if run.has_table(f"probe_answers/{name}")
    ]
    return pd.concat(parts, ignore_index=True) if parts else None
