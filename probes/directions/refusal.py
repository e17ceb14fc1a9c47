"""The refusal direction: harmful − harmless mean (Arditi et al., arXiv 2406.11717); `selection` chooses its place."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from probes.directions.estimator import ContrastName, Estimator, mean_difference
from probes.directions.reversion import Layers
from probes.directions.scores import auroc
from probes.directions.vectors import Vectors


def refusal_axis(aligned: Layers, harmful: Bool[np.ndarray, " prompt"]) -> Vectors:
    """r: harmful − harmless mean of the aligned model, where its activations were read, at each layer.

    Args:
        aligned: the aligned model's activations, layer by layer from 0, or [layer, prompt, d_model].
        harmful: which prompts are harmful.
    """
    raw = refusal_differences(aligned, harmful)
    return Vectors.of_raw("refusal", tuple(range(len(raw))), raw)


def refusal_differences(rows: Layers, harmful: Bool[np.ndarray, " prompt"]) -> Float[np.ndarray, "layer d_model"]:
    """Harmful − harmless mean at each layer, float64: what `refusal_axis` keeps in float32."""
    return np.stack([mean_difference(layer.astype(np.float64), harmful) for layer in rows])


class Refusal(Estimator):
    """Mean over harmful prompts minus mean over harmless ones, at each layer of one checkpoint."""

    says = "harmful − harmless means (Arditi et al.)"
    contrast: ContrastName = "selected"  # type: ignore[misc]

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        return mean_difference(rows, positive)


def read_refusal_probes(
    checkpoints: Mapping[str, Float[np.ndarray, "prompt d_model"]],
    aligned: Float[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
    fold: Bool[np.ndarray, " prompt"],
) -> dict[str, Float[np.ndarray, " checkpoint"]]:
    """Four numbers of the difference of class means as a probe, at each checkpoint of one layer.

    Args:
        checkpoints: activations, by checkpoint.
        aligned: those of the aligned model, whose probe is held fixed.
        harmful: which prompts are harmful.
        fold: which prompts lie in the second fold; a probe is fitted on either fold and read on the other.

    Returns:
        `cosine` to the aligned model's direction, in [−1, 1]; `auroc` of the aligned model's probe on the checkpoint,
        and of the `refit` one, means of both folds; `norm`, the gap between the class means. NaN where not defined.
    """
    parts = (~fold, fold, np.ones_like(fold))
    fixed = [_probe(aligned, harmful, part) for part in parts]
    rows = []
    for values in checkpoints.values():
        own = [_probe(values, harmful, part) for part in parts]
        norm = float(np.linalg.norm(own[2]))
        lengths = norm * float(np.linalg.norm(fixed[2]))
        cosine = float(np.clip(own[2] @ fixed[2] / lengths, -1.0, 1.0)) if lengths > 0 else np.nan
        rows.append((cosine, _held_out(values, fixed, harmful, fold), _held_out(values, own, harmful, fold), norm))
    return dict(zip(("cosine", "auroc", "refit", "norm"), np.array(rows, dtype=np.float64).T, strict=True))


def read_as_harmful(
    values: Float[np.ndarray, "prompt d_model"],
    aligned: Float[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
    fold: Bool[np.ndarray, " prompt"],
) -> tuple[float, float]:
    """What the aligned model's refusal probe, held fixed, says of a checkpoint's activations at one layer.

    The probe is the difference of the aligned model's class means with a threshold halfway between them; it is fitted
    on one fold and read on the other.

    Returns:
        Share of the harmful prompts, and of the harmless ones, that it takes for harmful; NaN where a fold lacks one.
    """
    on_harmful_side = np.zeros(len(harmful))
    for part in (~fold, fold):
        probe = _probe(aligned, harmful, part)
        if np.isnan(probe).any():
            return np.nan, np.nan
        means = [aligned[part & of_class].mean(axis=0, dtype=np.float64) for of_class in (harmful, ~harmful)]
        on_harmful_side[~part] = (values[~part] - np.mean(means, axis=0)) @ probe > 0
    return float(on_harmful_side[harmful].mean()), float(on_harmful_side[~harmful].mean())


def _probe(values: np.ndarray, harmful: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Difference of the class means over a part of the prompts; NaN where a class is empty there."""
    chosen = harmful[part]
    if not chosen.any() or chosen.all():
        return np.full(values.shape[1], np.nan)
    return mean_difference(values[part].astype(np.float64), chosen)


def _held_out(values: np.ndarray, probes: list[np.ndarray], harmful: np.ndarray, fold: np.ndarray) -> float:
    """AUROC of the probes of either fold, each on the other fold; their mean."""
    scores = [
        auroc(values[part].astype(np.float64) @ probe[:, None], harmful[part])[0]
        for probe, part in ((probes[0], fold), (probes[1], ~fold))
    ]
    return float(np.mean(scores))
