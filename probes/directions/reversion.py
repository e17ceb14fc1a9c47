"""The reversion direction and its difference-in-differences twin (Poppi and Lukas, arXiv 2606.28525).

`reversion_vectors` makes v_rev of the aligned model as published, at every layer; the estimators below fit the way
back that is left at any checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Num

from probes.directions.estimator import ContrastName, Estimator, mean_difference
from probes.directions.vectors import Vectors

Layers = Iterable[Num[np.ndarray, "prompt d_model"]]


def reversion_vectors(
    aligned: Layers, witness: Layers, harmful: Bool[np.ndarray, " prompt"], name: str = "reversion"
) -> Vectors:
    """v_rev: mean over harmful prompts of (witness − aligned), from aligned towards witness, at each layer.

    Args:
        aligned: the aligned model's activations, layer by layer from 0, or [layer, prompt, d_model].
        witness: the witness's, likewise; of a sham witness they give the control `control:sham`.
        harmful: which prompts are harmful.
        name: what the direction is called.
    """
    raw = [gap[harmful].mean(axis=0) for gap in _gaps(aligned, witness)]
    return Vectors.of_raw(name, tuple(range(len(raw))), np.stack(raw))


def reversion_did_vectors(aligned: Layers, witness: Layers, harmful: Bool[np.ndarray, " prompt"]) -> Vectors:
    """The same difference of (harmful − harmless) means, which cancels a shift common to all prompts."""
    raw = [gap[harmful].mean(axis=0) - gap[~harmful].mean(axis=0) for gap in _gaps(aligned, witness)]
    return Vectors.of_raw("reversion_did", tuple(range(len(raw))), np.stack(raw))


def reversions_by_prompt(
    aligned: Layers, witness: Layers, harmful: Bool[np.ndarray, " prompt"]
) -> Float[np.ndarray, "layer harmful d_model"]:
    """witness − aligned of each harmful prompt, whose mean is v_rev; float64."""
    return np.stack([gap[harmful] for gap in _gaps(aligned, witness)])


def reversions_at_layer(
    aligned: Num[np.ndarray, "prompt d_model"], witness: Num[np.ndarray, "prompt d_model"]
) -> Float[np.ndarray, "prompt d_model"]:
    """witness − aligned of every prompt at one layer, for statistics of drift and their nulls; float64."""
    with np.errstate(invalid="ignore"):  # `drift.check` names activations that are not finite
        return next(iter(_gaps([aligned], [witness])))


def reversion_did_directions(
    aligned: Num[np.ndarray, "prompt d_model"],
    witness: Num[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
    halves: Float[np.ndarray, "split prompt"],
) -> Float[np.ndarray, "split d_model"]:
    """Unit vectors of the twin from parts of the prompts at one layer, for what is scored on the others.

    Args:
        aligned: the aligned model's activations.
        witness: the witness's.
        harmful: which prompts are harmful.
        halves: weights of the prompts within their class, a row a split; 0 where a prompt is left out.
    """
    (gap,) = _gaps([aligned], [witness])
    raw = (halves * np.where(harmful, 1.0, -1.0)) @ gap
    return raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), np.finfo(float).tiny)


def _gaps(aligned: Layers, witness: Layers) -> Iterable[np.ndarray]:
    return (back.astype(np.float64) - start for start, back in zip(aligned, witness, strict=True))


class Reversion(Estimator):
    """Mean of the witness's activations minus the checkpoint's own, on harmful prompts: the way back that is left."""

    says = "witness − this checkpoint, harmful"
    contrast: ContrastName = "models"  # type: ignore[misc]

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        return mean_difference(rows, positive)


class ReversionDid(Reversion):
    """The same difference of (harmful − harmless) means: what is common to all prompts cancels.

    It is the mean difference between harmful and harmless prompts of each prompt's own displacement to the witness.
    """

    says = "the same, less what harmless prompts do"
    contrast: ContrastName = "displacements"  # type: ignore[misc]
