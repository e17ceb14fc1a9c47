"""One row an example: shares, effects, forecast, what they have to beat, and the cluster it lies in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.attribution.baselines import bm25, losses, projections
from probes.attribution.clusters import cluster_texts
from probes.attribution.forecast import forecast
from probes.attribution.replay import Replay
from probes.attribution.shares import Shares
from probes.attribution.targets import DID, REFUSAL, RETURN, SCREEN, Probe, Target
from probes.guard.recorded_path import RecordedExample
from probes.progress import Report

if TYPE_CHECKING:
    import pandas as pd

# The columns of each target: those of the return have no ending.
ENDINGS = {RETURN: "", DID: "_did", REFUSAL: "_refusal"}
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


def example_table(
    replay: Replay, probe: Probe, targets: Sequence[Target], texts: Texts, report: Report
) -> pd.DataFrame:
    """What is known of every example before training, at the replay's present weights.

    Columns: index, text, request, answer, cluster, cluster_name, forecast (and with the endings of `ENDINGS`), screen,
    bm25, length (tokens that count), loss (nats a token), projection, projection_difference.
    """
    import pandas as pd

    whole = [f"{request} {answer}".strip() for request, answer in texts.pairs]
    clusters = cluster_texts(whole)
    columns: dict[str, Any] = {
        "index": np.arange(len(whole)),
        "text": whole,
        "request": [request for request, _ in texts.pairs],
        "answer": [answer for _, answer in texts.pairs],
        "cluster": clusters.of,
        "cluster_name": [clusters.names[place] for place in clusters.of],
    }
    for target, values in zip(targets, forecast(replay, probe, targets, report), strict=True):
        columns[_FORECASTS[target.name]] = values
    columns["bm25"] = bm25(whole, texts.harmful)
    columns["length"] = [example.tokens for example in replay.examples]
    columns["loss"] = losses(replay)
    columns |= _projections(replay, targets[0])
    return pd.DataFrame(columns)


def with_shares(table: pd.DataFrame, shares: Sequence[Shares], places: Sequence[int | None]) -> pd.DataFrame:
    """The table with each target's shares and cheap effects.

    Args:
        table: of the examples that are shown.
        shares: of the examples of the path.
        places: of each example that is shown its place among those of the path; None where it was not in the data:
            it has neither share nor effect, as one that was never drawn.
    """
    table = table.copy()
    for result in shares:
        for name, values in (("share", result.share), ("effect", result.effect)):
            column = [0.0 if place is None else float(values[place]) for place in places]
            table[name + ENDINGS[result.target]] = column
    return table


def places_in(examples: Sequence[RecordedExample], recorded: Sequence[RecordedExample]) -> list[int | None]:
    """Where each example stands among the recorded ones; equal ones are taken in turn, None is nowhere."""
    remaining: dict[RecordedExample, list[int]] = {}
    for place, example in enumerate(recorded):
        remaining.setdefault(example, []).append(place)
    return [places.pop(0) if (places := remaining.get(example)) else None for example in examples]


def _projections(replay: Replay, target: Target) -> dict[str, Any]:
    assert target.vector is not None
    unit = target.vector / np.linalg.norm(target.vector)
    projection, difference = projections(replay.view, replay.examples, unit, target.layer)
    return {"projection": projection, "projection_difference": difference}
