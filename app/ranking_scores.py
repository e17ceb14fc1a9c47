"""On the page Data: how far a ranking can be trusted, beside the plain baselines that it has to beat."""

from __future__ import annotations

import math

import pandas as pd

from app import components
from probes.plots import style

_FORECAST = "forecast"
_BASELINES = {
    "loss": "loss",
    "bm25": "BM25",
    "length": "length",
    "projection": "projection",
    "projection_difference": "projection difference",
}
# From the tables of data/docs/attribution.md, against which a test holds it.
MEASURED = (
    "Measured by leaving out the top 5 % and training again, on small model organisms only: a drop by loss lowers the "
    "return as much as one by the forecast, which was ahead in 15 of 30 trainings; one by BM25 does little more than "
    "a random one. On random halves of the data, the forecast tells more than the loss, and that of a cluster nearly "
    "as much as that of an example: believe the cluster."
)


def show(table: pd.DataFrame) -> None:
    """What baselines do, in this run where it has shares, and where it was measured by training again."""
    if "share" in table:
        components.note(_against_shares(table))
    components.note(MEASURED)


def _against_shares(table: pd.DataFrame) -> str:
    """Rank correlations with the shares, the forecast's first, and which baseline is ahead of it."""
    scores = {name: _agreement(table, name) for name in (_FORECAST, *_BASELINES) if name in table}
    known = {name: score for name, score in scores.items() if math.isfinite(score)}
    words = ", ".join(f"{_BASELINES.get(name, name)} {style.decimal(score)}" for name, score in known.items())
    if not words:
        return "The shares of this run agree with no other ranking: one of the two does not vary."
    sentence = f"Rank correlation with this run's shares, example by example: {words}."
    if _FORECAST not in known:
        return sentence
    ahead = [_BASELINES[name] for name, score in known.items() if score > known[_FORECAST]]
    if ahead:
        sentence += f" A plain baseline does better than the forecast here: {', '.join(ahead)}."
    return sentence


def _agreement(table: pd.DataFrame, name: str) -> float:
    """Spearman's rank correlation of a column with the shares; not a number where one does not vary."""
    return float(table[name].rank().corr(table["share"].rank()))
