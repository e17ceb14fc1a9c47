"""Off the refusal axis? A return may be nothing but lost refusal: motion against the harmful-harmless axis.

The cross-fitted cosine of displacement and reversion, after the refusal axis is projected out of both, against draws
with the covariance within the classes, likewise projected. Each of the two loses the axis *of its own fold*, so that
what is multiplied is independent. One estimate of the axis for both would leave its error in both, and the error's
square makes motion along the axis alone look like more: at 64 prompts it rejected 8 to 21 %, this 1 to 3 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from probes.nulls.draws import NullDraws
from probes.nulls.layer import LayerNulls
from probes.nulls.plants import Planting
from probes.nulls.power import ALIGNMENT, ENOUGH
from probes.statistics import ALPHA

Answer = Literal["also_off", "along_only", "not_separable", "not_defined"]
NAME, _STATISTIC = "off_refusal_axis", "alignment_off_refusal_axis"
_NOTHING_LEFT = 1e-3  # share of the reversion's squared length off the axis below which there is no direction there


@dataclass(frozen=True)
class OffRefusalAxis:
    """Whether the return is more than motion along the refusal axis.

    Attributes:
        answer: `also_off`; `along_only` (not beyond the null, at a power of at least 80 %); `not_separable` (not beyond
            it, at less); `not_defined`.
        p: one-sided p-value; None where it is not defined.
        power: probability that `also_off` is found at the declared alternative.
        reason: why it is not defined.
    """

    answer: Answer
    p: float | None = None
    power: float | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, object]:
        """As it stands in `verdict.json`."""
        return {"answer": self.answer, "p": self.p, "power": self.power}


def look_off_refusal_axis(
    layer: LayerNulls,
    tuned: Float[np.ndarray, "prompt d_model"],
    refusal: Float[np.ndarray, " d_model"],
    *,
    alignment: float = ALIGNMENT,
    alpha: float = ALPHA,
) -> OffRefusalAxis:
    """Test the return off the refusal axis.

    Args:
        layer: the tests of the layer.
        tuned: the checkpoint's activations.
        refusal: the refusal axis of all prompts of the aligned model, of any length.
        alignment: the declared alternative of the power, before the axis is projected out.
        alpha: the level of the test.
    """
    source = layer.covariances["covariance_aligned"]
    length = float(np.linalg.norm(refusal))
    if length == 0 or not source.varies:
        return OffRefusalAxis("not_defined", reason="the aligned model does not tell its prompts apart here")
    axis = refusal / length
    left = float(layer.reversion @ layer.reversion - (layer.reversion @ axis) ** 2)
    if left <= _NOTHING_LEFT * float(layer.reversion @ layer.reversion):
        return OffRefusalAxis("not_defined", reason="the reversion direction is the refusal axis")
    (towards, along), squared = source.draw_products(np.stack([layer.reversion, axis]), layer.resampling.mixtures)
    off = towards - along * np.float32(layer.reversion @ axis)
    draws = off / np.sqrt(np.maximum(squared - along**2, np.finfo(np.float32).tiny)) / np.float32(np.sqrt(left))
    rows = (tuned - layer.aligned)[layer.harmful].astype(np.float32)
    observed = float(_crossfit_off(layer, lambda weights: (weights @ rows)[None])[0])
    p = NullDraws(NAME, _STATISTIC, observed, draws).p_value()
    if p is None:
        return OffRefusalAxis("not_defined", reason="the displacement has no part off the refusal axis")
    plants = Planting(layer, tuned, alignment).like("covariance_aligned")
    planted = _crossfit_off(layer, lambda weights: plants.residual_means(weights) + plants.moves)
    power = float((planted > np.quantile(draws, 1 - alpha)).mean())
    if p <= alpha:
        return OffRefusalAxis("also_off", p, power)
    return OffRefusalAxis("along_only" if power >= ENOUGH else "not_separable", p, power)


def _crossfit_off(
    layer: LayerNulls, half_means: Callable[[np.ndarray], Float32[np.ndarray, "replicate d_model"]]
) -> Float[np.ndarray, " replicate"]:
    """Mean over the splits of the cosine of half means with the other half's reversion, each off its own half's axis.

    Args:
        layer: the tests of the layer.
        half_means: mean displacements of the harmful prompts under weights.
    """
    harmful, sign = layer.harmful, np.where(layer.harmful, 1.0, -1.0)
    aligned, back = layer.aligned, layer.back[harmful]
    cosines = []
    for own, opposite in ((0, 1), (1, 0)):
        axes, other_axes = (_unit((sign * layer.splits[part]) @ aligned) for part in (own, opposite))
        towards = layer.splits[opposite][:, harmful] @ back
        towards -= np.einsum("sd,sd->s", towards, other_axes)[:, None] * other_axes
        for weights, target, axis in zip(layer.splits[own], _unit(towards), axes, strict=True):
            means = half_means(weights[harmful].astype(np.float32))
            off, axis = target.astype(np.float32), axis.astype(np.float32)
            along = means @ axis
            squared = np.einsum("ij,ij->i", means, means) - along**2
            with np.errstate(divide="ignore", invalid="ignore"):
                cosines.append((means @ off - along * (axis @ off)) / np.sqrt(squared))
    return np.mean(cosines, axis=0)


def _unit(rows: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
