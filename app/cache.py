"""Everything the app keeps between reruns, keyed by the run's path and fingerprint: what is read from its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from probes.errors import RunFolderError
from probes.lineage import ROLES
from probes.nulls import NO_FURTHER_PASS, PROFILE
from probes.plots import heatmap, lineage_path, style
from probes.run import Run
from probes.store import MANIFEST, Manifest, files_of
from probes.store.remote import mirror_of

_SECONDS = 10  # between two looks at whether a run behind a URL has changed
Filters = tuple[tuple[str, str, Any], ...]
_DRIFT = ("checkpoint", "arm", "seed", "step", "layer", "statistic", "value", "low", "high", "reason")
_PROJECTIONS = ("checkpoint", "arm", "seed", "step", "prompt", "label", "projection")


@dataclass(frozen=True)
class Key:
    """One state of one run: everything kept is kept under it."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class Catalogue:
    """What can be selected in a run.

    Attributes:
        trajectories: (arm, seed) in the one order of arms.
        steps: of each trajectory.
        checkpoints: name of each (arm, seed, step).
        layers: −1 is the embedding.
        headline: the layer declared in advance.
    """

    trajectories: tuple[tuple[str, int], ...]
    steps: dict[tuple[str, int], tuple[int, ...]]
    checkpoints: dict[tuple[str, int, int], str]
    layers: tuple[int, ...]
    headline: int

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return max(self.layers, default=-1) + 1


def open_run(path: Path) -> tuple[Key, Manifest]:
    """The run's manifest as it is on disk now, and the key of everything read from it.

    Raises:
        RunFolderError: the manifest is damaged or of another format version, or the store of a URL refuses.
    """
    _bring(path)
    try:
        about = (path / MANIFEST).stat()
    except OSError:
        raise RunFolderError(f"{path} is no longer there") from None
    return _opened(str(path), about.st_mtime_ns, about.st_size)


@st.cache_data(show_spinner="Fetching the run …", ttl=_SECONDS, max_entries=32)
def _bring(path: Path) -> None:
    """Bring the local copy of a run behind a URL up to date; nothing for an ordinary folder."""
    mirror = mirror_of(path)
    if mirror is not None:
        mirror.pull()


@st.cache_resource(show_spinner=False, max_entries=32)
def _opened(path: str, changed: int, size: int) -> tuple[Key, Manifest]:
    run = Run(path, quick=True)
    return Key(path, f"{run.fingerprint}-{changed}-{size}"), run.manifest


@st.cache_resource(show_spinner=False, max_entries=8)
def _run(key: Key) -> Run:
    """The run in this state, so that a manifest of thousands of entries is not read again for every table."""
    return Run(key.path, quick=True)


@st.cache_data(show_spinner=False, max_entries=256)
def table(key: Key, name: str, columns: tuple[str, ...] | None = None, filters: Filters = ()) -> pd.DataFrame:
    """The wanted columns and rows of one table.

    Raises:
        RunFolderError: the table is not there or is damaged, or lacks a column.
    """
    return _run(key).read_table(name, columns=columns, filters=list(filters) or None)


def has_table(key: Key, name: str) -> bool:
    """Whether the run holds a table."""
    return (Path(key.path) / f"{name}.parquet").is_file()


@st.cache_data(show_spinner=False, max_entries=64)
def columns(key: Key, name: str) -> tuple[str, ...]:
    """The columns of a table, without its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(key.path) / f"{name}.parquet"
    try:
        return tuple(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(f"{path} cannot be read", got=str(error).splitlines()[0]) from error


@st.cache_data(show_spinner=False, max_entries=64)
def verdicts(key: Key) -> list[dict[str, Any]]:
    """The verdict of each trajectory; empty where none has been written.

    Raises:
        RunFolderError: the file is damaged.
    """
    if not (Path(key.path) / "verdict.json").is_file():
        return []
    judgement = _run(key).read_json("verdict")
    listed = judgement.get("trajectories") if isinstance(judgement, dict) else None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) and "arm" in entry for entry in listed):
        raise RunFolderError("verdict.json is not as expected", next_step="Write it again: gravity-probe verdict RUN.")
    return listed


@st.cache_data(show_spinner=False, max_entries=32)
def catalogue(key: Key, headline: int | None) -> Catalogue:
    """What can be selected.

    Raises:
        RunFolderError: drift.parquet is not there or is damaged.
    """
    rows = table(key, "drift", ("checkpoint", "arm", "seed", "step", "layer")).drop_duplicates()
    layers = tuple(sorted(int(layer) for layer in rows["layer"].unique()))
    rows = rows[~rows["arm"].isin(ROLES)].drop(columns="layer").drop_duplicates().sort_values("step")
    names = {(row.arm, int(row.seed), int(row.step)): row.checkpoint for row in rows.itertuples()}
    steps: dict[tuple[str, int], tuple[int, ...]] = {}
    for arm in style.in_order(rows["arm"]):
        for seed in sorted({seed for name, seed, _ in names if name == arm}):
            steps[arm, seed] = tuple(step for name, run, step in names if (name, run) == (arm, seed))
    if headline not in layers:
        headline = layers[round(0.6 * (len(layers) - 1))] if layers else 0
    return Catalogue(tuple(steps), steps, names, layers, int(headline))


def drift(key: Key, layer: int) -> pd.DataFrame:
    """Every statistic of every checkpoint at one layer."""
    return table(key, "drift", _DRIFT, (("layer", "==", layer),))


@st.cache_data(show_spinner=False, max_entries=64)
def nulls(key: Key, layer: int) -> pd.DataFrame:
    """Every null at one layer; empty where the run has none."""
    columns = ["arm", "seed", "step", "null", "statistic", "observed", "limit", "p", "draws", "power", "note"]
    if not has_table(key, "nulls"):
        return pd.DataFrame(columns=columns)
    return _run(key).nulls(layer).reindex(columns=columns)


def tests(key: Key, layer: int) -> pd.DataFrame:
    """The nulls at one layer that decide something: without the lines of the profile."""
    drawn_nulls = nulls(key, layer)
    return drawn_nulls[~drawn_nulls["null"].isin(PROFILE)]


def read_projections(key: Key, layer: int, checkpoints: tuple[str, ...], direction: str = "") -> pd.DataFrame:
    """Every prompt's projection at one layer in these checkpoints, with the prompt's text where that is kept.

    Without a direction: on the reversion, in units of the return fraction; on another, in the activations' units.
    """
    filters: Filters = (("layer", "==", layer), ("checkpoint", "in", list(checkpoints)))
    name = "projections"
    if direction:
        name, filters = "direction_projections", (*filters, ("direction", "==", direction))
    rows = table(key, name, _PROJECTIONS, filters)
    return rows.assign(text=texts(key, rows["prompt"]))


def texts(key: Key, prompts: pd.Series) -> pd.Series:
    """The probe prompts' texts by their ids; empty where they are not kept."""
    if not has_table(key, "prompts"):
        return pd.Series("", index=prompts.index, dtype=str)
    text_of = _texts(key)
    return pd.Series([text_of.get(prompt, "") for prompt in prompts.tolist()], index=prompts.index, dtype=str)


@st.cache_resource(show_spinner=False, max_entries=16)
def _texts(key: Key) -> dict[str, str]:
    """The probe prompts' texts by their ids, in one dict for all who read it."""
    rows = table(key, "prompts", ("id", "text"))
    return dict(zip(rows["id"], rows["text"].fillna("").astype(str), strict=True))


@st.cache_data(show_spinner=False, max_entries=16)
def prompts(key: Key) -> list[str]:
    """The probe prompts' texts; none where they are not kept."""
    return [] if not has_table(key, "prompts") else list(table(key, "prompts", ("text",))["text"])


@st.cache_data(show_spinner=False, max_entries=64)
def document(key: Key, name: str) -> Any:
    """One JSON document of the run; None where it is not there.

    Raises:
        RunFolderError: it is damaged.
    """
    if not (Path(key.path) / f"{name}.json").is_file():
        return None
    return _run(key).read_json(name)


def tracks(key: Key, filters: Filters) -> pd.DataFrame:
    """How directions turned: some rows of `direction_tracks`."""
    return table(key, "direction_tracks", None, filters)


@st.cache_data(show_spinner=False, max_entries=32)
def tracked_directions(key: Key) -> list[str]:
    """The directions that were fitted, in the order of `directions.json`; none where nothing was."""
    if not has_table(key, "direction_tracks"):
        return []
    names = table(key, "direction_tracks", ("direction",))["direction"].unique()
    order = list(direction_notes(key))
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


@st.cache_data(show_spinner=False, max_entries=32)
def directions(key: Key) -> dict[str, dict[str, Any]]:
    """What each direction of the run is, in the order of `directions.json`; those it does not name follow.

    Raises:
        RunFolderError: the document is damaged.
    """
    stems = {path.stem for path in (Path(key.path) / "directions").glob("*.safetensors")}
    named = {name: about for name, about in direction_notes(key).items() if files_of(name) & stems}
    unnamed = sorted(stems.difference(*map(files_of, named)))
    return {**named, **{name: {} for name in unnamed}}


def direction_notes(key: Key) -> dict[str, dict[str, Any]]:
    """What `directions.json` says of each direction."""
    contents = document(key, "directions") or {}
    described = contents.get("directions", {}) if isinstance(contents, dict) else None
    if not isinstance(described, dict) or not all(isinstance(about, dict) for about in described.values()):
        raise RunFolderError(
            "directions.json is not as expected", next_step="Make it again: gravity-probe directions fit RUN."
        )
    return described


def has_direction(key: Key, direction: str, checkpoint: str) -> bool:
    """Whether a direction is kept as it was fitted at a checkpoint other than the aligned model."""
    return _run(key).direction_path(direction, checkpoint).is_file()


def readout(key: Key, layer: int, direction: str, checkpoints: tuple[str, ...]) -> pd.DataFrame:
    """The tokens that a direction writes in some checkpoints at one layer; empty where they were not read."""
    columns = ("checkpoint", "sign", "rank", "token", "score")
    if not has_table(key, "direction_readout"):
        return pd.DataFrame(columns=list(columns))
    filters = (("layer", "==", layer), ("direction", "==", direction), ("checkpoint", "in", list(checkpoints)))
    return table(key, "direction_readout", columns, filters)


@st.cache_data(show_spinner=False, max_entries=64)
def lineage_rows(key: Key, layer: int) -> pd.DataFrame:
    """Return fraction with its interval, and distance from the aligned model, of every checkpoint at one layer."""
    return lineage_path.lineage_rows(drift(key, layer))


@st.cache_data(show_spinner=False, max_entries=64)
def map_rows(key: Key, statistic: str, arm: str, seed: int, direction: str = "") -> pd.DataFrame:
    """One statistic of one trajectory over layers and steps: of the drift, or of a fitted direction."""
    if direction:
        of_run = tracks(key, (("direction", "==", direction), ("arm", "==", arm), ("seed", "==", seed)))
        bounds = {f"{statistic}_{end}": end for end in ("low", "high")}
        names = ["layer", "step", statistic, *(name for name in bounds if name in of_run), "reason"]
        return of_run[names].rename(columns={statistic: "value", **bounds})
    filters = (("statistic", "==", statistic), ("arm", "==", arm), ("seed", "==", seed))
    return table(key, "drift", ("layer", "step", "value", "low", "high", "reason"), filters)


@st.cache_data(show_spinner=False, max_entries=64)
def map_limits(key: Key, statistic: str, direction: str = "") -> tuple[float, float]:
    """The colour limits of every map of one statistic in a run, or of a fitted direction."""
    if direction:
        rows = tracks(key, (("direction", "==", direction),))[["arm", statistic]].rename(columns={statistic: "value"})
    else:
        rows = table(key, "drift", ("arm", "value"), (("statistic", "==", statistic),))
    return heatmap.run_limits(rows[~rows["arm"].isin(ROLES)], statistic)


@st.cache_data(show_spinner=False, max_entries=64)
def first_beyond(key: Key, layer: int, trajectory: tuple[str, int], level: float) -> int | None:
    """The first step at which a trajectory is beyond every null that needs no further forward pass; None: at none."""
    rows = tests(key, layer)
    rows = rows[(rows["arm"] == trajectory[0]) & (rows["seed"] == trajectory[1]) & rows["null"].isin(NO_FURTHER_PASS)]
    beyond = rows[rows["p"].notna()].groupby("step")["p"].max()
    steps = beyond[beyond <= level].index
    return int(min(steps)) if len(steps) else None


def plane_rows(key: Key, layer: int) -> pd.DataFrame:
    """Places of every checkpoint in the plane of one layer."""
    return table(key, "maps/plane", None, (("layer", "==", layer),))
