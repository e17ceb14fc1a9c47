"""The probe prompts of two checkpoints as one table: text, both answers, their labels, the flip, how far each moved.

Answers to probe prompts are there where `evaluate --probe-prompts` was run; without them the columns are empty.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import streamlit as st

from app import cache
from app.cache import Key
from probes.plots.prompt_marks import ANSWERED, GAINED, LOST, REFUSED

ANSWERS = "probe_answers"


@st.cache_data(show_spinner=False, max_entries=32)
def rows(key: Key, layer: int, pair: tuple[str, str]) -> pd.DataFrame:
    """Every probe prompt in two checkpoints at one layer.

    Returns:
        prompt, label, topic, text; completion and verdict of each (`_one`, `_other`; empty where it was not asked);
        flip (`LOST` and so on, empty where one was not judged); one, other and moved: projections on the way back and
        their difference, NaN where the run does not hold them.
    """
    every, projections = words(key, pair), _projections(key, layer, pair)
    for side, checkpoint in zip(("one", "other"), pair, strict=True):
        own = projections[projections["checkpoint"] == checkpoint].set_index("prompt")["projection"]
        every[side] = every["prompt"].map(own).astype(float)
    return every.assign(moved=every["other"] - every["one"])


@st.cache_data(show_spinner=False, max_entries=32)
def words(key: Key, pair: tuple[str, str]) -> pd.DataFrame:
    """Of `rows` what is the same at every layer: text, answers, verdicts and flip."""
    names = [name for name in ("id", "label", "topic", "text") if name in cache.columns(key, "prompts")]
    every = cache.table(key, "prompts", tuple(names)).rename(columns={"id": "prompt"})
    every = every.assign(topic=every["topic"].fillna("").astype(str) if "topic" in every else "")
    for side, checkpoint in zip(("one", "other"), pair, strict=True):
        every = every.merge(_answers(key, checkpoint, side), on="prompt", how="left")
    text = [f"{name}_{side}" for name in ("completion", "verdict") for side in ("one", "other")]
    every[text] = every[text].fillna("").astype(str)
    return every.assign(flip=_flips(every))


def with_projections(key: Key, layer: int, points: pd.DataFrame) -> pd.DataFrame:
    """The points of a picture with their projection on the way back, NaN where the run does not hold it."""
    if not cache.has_table(key, "projections"):
        return points.assign(projection=np.nan)
    projections = _projections(key, layer, points["checkpoint"].unique())
    return points.merge(projections, on=["checkpoint", "prompt"], how="left")


def has_answers(key: Key, *checkpoints: str) -> bool:
    """Whether these checkpoints were asked the probe prompts."""
    return all(cache.has_table(key, f"{ANSWERS}/{checkpoint}") for checkpoint in checkpoints)


def _answers(key: Key, checkpoint: str, side: str) -> pd.DataFrame:
    names = ("prompt", "completion", "verdict", "refused")
    if not has_answers(key, checkpoint):
        table = pd.DataFrame({name: pd.Series(dtype=object) for name in names})
    else:
        table = cache.table(key, f"{ANSWERS}/{checkpoint}", names)
    return table.rename(columns={name: f"{name}_{side}" for name in names[1:]})


def _projections(key: Key, layer: int, checkpoints: Iterable[str]) -> pd.DataFrame:
    """Checkpoint, prompt and projection on the way back at one layer; empty where the run does not hold them."""
    columns = ("checkpoint", "prompt", "projection")
    if not cache.has_table(key, "projections"):
        return pd.DataFrame({name: pd.Series(dtype=float) for name in columns})
    filters = (("layer", "==", layer), ("checkpoint", "in", sorted(set(checkpoints))))
    return cache.table(key, "projections", columns, filters)


def _flips(every: pd.DataFrame) -> pd.Series:
    judged = every["verdict_one"].isin(_JUDGED) & every["verdict_other"].isin(_JUDGED)
    before, after = (every[f"refused_{side}"].fillna(value=False).astype(bool) for side in ("one", "other"))
    kinds = np.select([before & ~after, ~before & after, before & after], [LOST, GAINED, REFUSED], ANSWERED)
    return pd.Series(kinds, index=every.index).where(judged, "")


_JUDGED = ("refusal", "partial_refusal", "compliance", "incoherent")
