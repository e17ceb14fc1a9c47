"""What `gravity-probe attribute RUN --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from probes.attribution.targets import RETURN
from probes.store import records

if TYPE_CHECKING:
    import pandas as pd


class Example(BaseModel):
    """One training example; None is what is not known.

    Attributes:
        index: its place in the data.
        share: of the measured return; shares and `other` (the remainder) add up to it.
        effect: what the return would lack without it, to first order; without a recorded path in no unit.
        forecast: before training; it ranks, in no unit.
        low: of the interval in which its share of another run is expected, in another order of the data.
        high: likewise.
    """

    model_config = ConfigDict(frozen=True)

    index: int
    text: str
    share: float | None
    effect: float | None
    forecast: float | None
    low: float | None
    high: float | None
    cluster: int
    projection: float | None
    projection_difference: float | None
    bm25: float | None
    length: int


class Other(BaseModel):
    """What none of the examples did."""

    model_config = ConfigDict(frozen=True)

    name: str
    share: float


class Attribution(BaseModel):
    """The attribution of one trajectory at one layer.

    Attributes:
        completeness_gap: measured less predicted return; None without a recorded path.
        measured_return: the summary's return fraction of the trajectory's last checkpoint at the layer.
        predicted_return: Σ of all shares, examples' and others'.
        remainder: weight decay, the guard, the first moment at the start; where data were given that lack some of the
            examples trained on, these together.
        examples: in the order of the data.
    """

    model_config = ConfigDict(frozen=True)

    completeness_gap: float | None
    measured_return: float | None
    predicted_return: float | None
    remainder: tuple[Other, ...] = Field(serialization_alias="other")
    examples: tuple[Example, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, about: Mapping[str, Any]) -> Attribution:
        """The document of a finished attribution, from its table and what holds for all of its rows."""
        fields = [name for name in Example.model_fields if name in table]
        empty = dict.fromkeys(Example.model_fields)
        rows = [Example(**{**empty, **row}) for row in records(table[fields])]
        shares = about["targets"].get(RETURN)
        predicted = None if shares is None else shares["predicted"]
        measured = about["measured_return"]
        return cls(
            completeness_gap=None if predicted is None or measured is None else measured - predicted,
            measured_return=measured,
            predicted_return=predicted,
            remainder=tuple(
                Other(name=name, share=share) for name, share in (shares or {"other": {}})["other"].items()
            ),
            examples=tuple(rows),
        )
