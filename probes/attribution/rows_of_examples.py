"""One row an example: shares, effects, forecast, what they have to beat, and the cluster it lies in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from probes.attribution.baselines import bm25, projections
from probes.attribution.clusters import cluster_texts
from probes.attribution.forecast import Forecasts
from probes.attribution.replay import Replay
from probes.attribution.shares import Shares
from probes.attribution.targets import DID, FEATURES, OUTPUT, REFUSAL, RETURN, SCREEN, Target
from probes.guard.recorded_path import RecordedExample

if TYPE_CHECKING:
    import pandas as pd

# The columns of each target: those of the return have no ending.
ENDINGS = {RETURN: "", DID: "_did", REFUSAL: "_refusal", FEATURES: "_features", OUTPUT: "_output"}
_FORECASTS = {SCREEN: "screen", **{name: f"forecast{ending}" for name, ending in ENDINGS.items()}}


@dataclass(frozen=True)
class Texts:
    """What the examples say, and what they are held against.

    Attributes:
        pairs: request and answer of each example.
        harmful: the harmful probe prompts.
    """

    pairs: Sequence[tuple[str, str]]
    harmful: Sequence[str]


def example_tables(
    replay: Replay, targets: Sequence[Target], forecasts: Forecasts, texts: Texts
) -> dict[int, pd.DataFrame]:
    """What is known of every example before training, at the replay's present weights: a table for each layer.

    Columns: index, text, request, answer, cluster, cluster_name, forecast (and with the endings of `ENDINGS`), screen,
    bm25, length (tokens that count), loss (nats a token), projection, projection_difference.
    """
    import pandas as pd

    whole = [f"{request} {answer}".strip() for request, answer in texts.pairs]
    clusters = cluster_texts(whole)
    length = np.array([example.tokens for example in replay.examples])
    losses = forecasts.losses / np.maximum(length, 1)
    columns: dict[str, Any] = {
        "index": np.arange(len(whole)),
        "text": whole,
        "request": [request for request, _ in texts.pairs],
        "answer": [answer for _, answer in texts.pairs],
        "cluster": clusters.of,
        "cluster_name": [clusters.names[place] for place in clusters.of],
    }
    units = _projected_on(targets)
    along = projections(replay.view, replay.examples, units)
    tables = {}
    for layer in units:
        pairs = zip(targets, forecasts.values, strict=True)
        own = {_FORECASTS[target.name]: row for target, row in pairs if is_of(target, layer)}
        baselines = {"bm25": bm25(whole, texts.harmful), "length": length, "loss": losses}
        projection = dict(zip(("projection", "projection_difference"), along[layer], strict=True))
        tables[layer] = pd.DataFrame({**columns, **own, **baselines, **projection})
    return tables


def _projected_on(targets: Sequence[Target]) -> dict[int, Float[np.ndarray, " d_model"]]:
    """v̂ of the return at each layer; of the screen where no return is known."""
    vectors = {
        target.layer: target.vector
        for name in (SCREEN, RETURN)
        for target in targets
        if target.name == name and target.vector is not None
    }
    return {layer: vector / np.linalg.norm(vector) for layer, vector in vectors.items()}


def is_of(target: Target, layer: int) -> bool:
    """Whether a table of a layer shows a target: the refusal score stands in all of them."""
    return target.layer == layer or target.name == REFUSAL


def with_first_effects(table: pd.DataFrame) -> pd.DataFrame:
    """The table with effects of a first step, where no path is known: each forecast less the data's mean, by tokens.

    They are in no unit, as the forecast.
    """
    parts = table["length"] / table["length"].sum()
    effects = {
        "effect" + ending: table[f"forecast{ending}"] - parts * table[f"forecast{ending}"].sum()
        for ending in ENDINGS.values()
        if f"forecast{ending}" in table
    }
    return table.assign(**effects)


def with_shares(table: pd.DataFrame, shares: Sequence[Shares], places: Sequence[int | None]) -> pd.DataFrame:
    """The table with each target's shares and cheap effects, and the interval of each share of the return.

    Args:
        table: of the examples that are shown.
        shares: of the examples of the path.
        places: of each example that is shown its place among those of the path; None where it was not in the data:
            it has neither share nor effect, as one that was never drawn.
    """
    table = table.copy()
    for result in shares:
        for name, values in (("share", result.share), ("effect", result.effect)):
            table[name + ENDINGS[result.target]] = _at(places, values, 0.0)
        if result.target == RETURN:
            table["low"], table["high"] = (_at(places, bound, np.nan) for bound in (result.low, result.high))
    return table


def _at(places: Sequence[int | None], values: Float[np.ndarray, " example"], absent: float) -> list[float]:
    return [absent if place is None else float(values[place]) for place in places]


def places_in(examples: Sequence[RecordedExample], recorded: Sequence[RecordedExample]) -> list[int | None]:
    """Where each example stands among the recorded ones; equal ones are taken in turn, None is nowhere."""
    remaining: dict[RecordedExample, list[int]] = {}
    for place, example in enumerate(recorded):
        remaining.setdefault(example, []).append(place)
    return [places.pop(0) if (places := remaining.get(example)) else None for example in examples]
