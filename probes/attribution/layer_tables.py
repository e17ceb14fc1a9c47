"""The tables of an attribution, one for each layer, by one forecast and one walk along the path."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from probes.attribution.effects import measure_effects
from probes.attribution.forecast import first_scale, forecast
from probes.attribution.prompts_moved import prompts_moved
from probes.attribution.replay import Replay
from probes.attribution.rows_of_examples import (
    Texts,
    example_tables,
    is_of,
    places_in,
    with_first_effects,
    with_shares,
)
from probes.attribution.shares import Shares, measure_shares
from probes.attribution.targets import RETURN, Probe, Target
from probes.guard.recorded_path import WEIGHTS, RecordedPath, Tensors
from probes.progress import Report, within

if TYPE_CHECKING:
    import pandas as pd

RANKINGS = ("share", "effect", "forecast")
_UNROLLED, _WALKED, _FORECAST = 0.3, 0.7, 0.9  # shares of the time, by which these are done; the first: of the walk


@dataclass(frozen=True)
class LayerTable:
    """One layer's table of examples.

    Attributes:
        rows: a row an example.
        shares: of the layer's targets; none without a path.
        prompts: index (of an example), prompt (its place), moved: how far a first step on the example moves it.
        strangers: examples that were not trained on.
    """

    rows: pd.DataFrame
    shares: tuple[Shares, ...]
    prompts: pd.DataFrame
    strangers: int


@dataclass(frozen=True)
class _Walk:
    """What the path says.

    Attributes:
        shares: of each target.
        effects: exact ones on the return, by layer.
        places: of each example among those of the path.
    """

    shares: list[Shares] = field(default_factory=list)
    effects: dict[int, Float[np.ndarray, " example"]] = field(default_factory=dict)
    places: list[int | None] = field(default_factory=list)


@dataclass(frozen=True)
class Accounting:
    """What is attributed to which examples.

    Attributes:
        replay: the model on the weights that training starts from, with the examples that are shown.
        probe: the prompts that targets are read on.
        targets: of all layers.
        texts: of the examples.
        path: what was recorded of the training, where it was.
        exact: whether effects on the return are taken by the unrolled derivative.
        explained: of so many examples at the top of each ranking, the prompts that each moves.
    """

    replay: Replay
    probe: Probe
    targets: Sequence[Target]
    texts: Texts
    path: RecordedPath | None
    exact: bool = False
    explained: int = 0

    def tables(self, layers: Sequence[int], report: Report) -> dict[int, LayerTable]:
        """Everything that is known of the examples at these layers; the model is at its start again behind it."""
        walked = _WALKED if self.path else 0.0
        walk = self._walk(self.path, within(report, 0.0, walked)) if self.path else _Walk()  # first: it may be refused
        forecasts = forecast(self.replay, self.probe, self.targets, within(report, walked, _FORECAST))
        tables = example_tables(self.replay, self.targets, forecasts, self.texts)
        return {layer: self._table(layer, tables[layer], walk, within(report, _FORECAST, 1.0)) for layer in layers}

    def _walk(self, path: RecordedPath, report: Report) -> _Walk:
        """Along the path and back to its start, with the examples that were recorded."""
        shown, recorded = self.replay.examples, path.examples()
        self.replay.examples = recorded
        unrolled = _UNROLLED if self.exact else 0.0
        effects = {
            target.layer: measure_effects(path, self.replay, self.probe, target, within(report, 0.0, unrolled))
            for target in (self.targets if self.exact else ())
            if target.name == RETURN
        }
        shares = measure_shares(path, self.replay, self.probe, self.targets, within(report, unrolled, 1.0))
        self.replay.examples = shown
        self.replay.put(path.stream(1, WEIGHTS, self.replay.view.device))
        return _Walk(shares, effects, places_in(shown, recorded))

    def _table(self, layer: int, rows: pd.DataFrame, walk: _Walk, report: Report) -> LayerTable:
        pairs = zip(self.targets, walk.shares, strict=False)
        shares = tuple(share for target, share in pairs if is_of(target, layer))
        rows = with_shares(rows, shares, walk.places) if shares else with_first_effects(rows)
        if layer in walk.effects:
            rows["effect"] = [0.0 if place is None else float(walk.effects[layer][place]) for place in walk.places]
        return LayerTable(rows, shares, self._prompts(layer, rows, report), walk.places.count(None))

    @functools.cached_property
    def _scale(self) -> Tensors:
        """Of the first step, the same at every layer."""
        return first_scale(self.replay)

    def _prompts(self, layer: int, rows: pd.DataFrame, report: Report) -> pd.DataFrame:
        """The prompts that the top of each ranking moves."""
        import pandas as pd

        target = next(target for target in self.targets if target.name == RETURN and target.layer == layer)
        tops = [rows[name].nlargest(self.explained).index for name in RANKINGS if name in rows]
        places = sorted({int(place) for top in tops for place in top})
        prompts, moved = prompts_moved(self.replay, self.probe, target, places, self._scale if places else {}, report)
        return pd.DataFrame(
            {
                "index": np.repeat(np.array(places, dtype=np.int64), len(prompts)),
                "prompt": np.tile(np.array(prompts, dtype=np.int64), len(places)),
                "moved": moved.ravel(),
            }
        )
