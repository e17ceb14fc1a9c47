"""Power: how often each test would reject at a declared alternative, given this run's prompts and displacement.

At a declared alignment a (never the observed one), f·v_rev + noise is planted, 200 times: as long as the run's own
displacement, with its prompts' residuals (their signs flipped by group), the noise of the test's own law. Where that
law leans towards the witness (shams may), what it leans on the mean is taken off, so that the alignment is the
declared one. A sham that is used as noise is left out of the shams' references. Level 5 is planted on harmful prompts
alone, with residuals that change hands as labels do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Bool, Float

from probes.drift.inner_products import Factors, Gram, inner_products
from probes.nulls.catalogue import DIRECTION, SHAMS, SPECIFICITY
from probes.nulls.layer import LayerNulls
from probes.nulls.permutation import contrast_folds, studentise_joint, welch
from probes.nulls.plants import REPLICATES, SHAM, Planting, Plants, own_sham
from probes.nulls.resampling import flip_signs
from probes.nulls.shams import Shams
from probes.statistics import ALPHA

ALIGNMENT = 0.5
ENOUGH = 0.8
_INSIDE = 999  # draws of signs and permutations inside each replicate
Rejections = dict[str, Bool[np.ndarray, " replicate"]]


@dataclass(frozen=True)
class Power:
    """Probability that a test rejects at the declared alternative.

    Attributes:
        alignment: the declared alternative.
        tests: of each test, under noise of its own law.
        together: that all tests of level 4 reject at once, under the law that is hardest for them.
        specificity: that both label permutations reject at once.
    """

    alignment: float
    tests: Mapping[str, float]
    together: float | None = None
    specificity: float | None = None


def measure_power(
    layer: LayerNulls,
    tuned: Float[np.ndarray, "prompt d_model"],
    shams: Shams | None = None,
    *,
    alignment: float = ALIGNMENT,
    alpha: float = ALPHA,
) -> Power:
    """Power of every test that can be made at this layer, for this checkpoint.

    Args:
        layer: the tests.
        tuned: the checkpoint's activations: its displacement's norm and residuals are used, never its direction.
        shams: of the checkpoint; None where none were drawn.
        alignment: the declared alternative, in (0, 1).
        alpha: the level of every test.
    """
    planting = Planting(layer, tuned, alignment)
    by_law = _reject_towards(layer, planting.by_law(None if shams is None else shams.moves[:, 0]), shams, alpha)
    own = {test: SHAM if test in SHAMS else test for rejections in by_law.values() for test in rejections}
    tests = {test: float(by_law[law][test].mean()) for test, law in own.items() if law in by_law}
    together = [_share_of_all(rejections) for rejections in by_law.values()]
    specific = _reject_specificity(layer, tuned, planting.along, alpha)
    tests |= {test: float(rejected.mean()) for test, rejected in specific.items()}
    return Power(alignment, tests, min(together, default=None), _share_of_all(specific) if specific else None)


def _share_of_all(rejections: Rejections) -> float:
    return float(np.all(list(rejections.values()), axis=0).mean())


def _reject_towards(
    layer: LayerNulls, plants: dict[str, Plants], shams: Shams | None, alpha: float
) -> dict[str, Rejections]:
    """By the law of the noise and by test of level 4, in which replicates the test rejects."""
    cosines = _planted_cosines(layer, plants, shams)
    by_law: dict[str, Rejections] = {}
    for law, planted in plants.items():
        alignments = cosines[law][:, 0]
        rejections = {
            name: _beat_draws(alignments, null.draws, alpha) for name, null in layer.references.items() if null.defined
        }
        if shams is not None:
            own = own_sham(len(shams.moves)) if law == SHAM else None
            pulls = cosines[law][:, 1:]
            references = np.broadcast_to(shams.drift, pulls.shape), pulls
            for name, reference in zip(SHAMS, references, strict=True):
                rejections[name] = _beat_shams(alignments, reference, own, alpha)
        if layer.resampling.few_signs is None:
            rejections[DIRECTION] = _beat_signs(layer, planted, alpha)
        by_law[law] = rejections
    return by_law


def _planted_cosines(
    layer: LayerNulls, plants: dict[str, Plants], shams: Shams | None
) -> dict[str, Float[np.ndarray, "replicate target"]]:
    """By law, the cross-fitted cosines of the plants with the reversion, and with every sham.

    Where a sham is the noise, its mean over one half of the prompts is planted; the shams that the plant is held
    against are taken over the other: what they share through the aligned model's prompts is no pull.
    """
    back = layer.back[layer.harmful].astype(np.float32)
    halves = [half.astype(np.float32) for half in layer.halves]
    moves = np.empty((0, back.shape[1]), dtype=np.float32) if shams is None else shams.moves[:, 1]
    sums = {law: np.zeros((REPLICATES, 1 + len(moves))) for law in plants}
    for own, opposite in ((0, 1), (1, 0)):
        for weights, opposite_weights in zip(halves[own], halves[opposite], strict=True):
            targets = np.concatenate([(opposite_weights @ back)[None], moves])
            targets /= np.linalg.norm(targets, axis=1, keepdims=True)
            residual = next(iter(plants.values())).residual_means(weights) if plants else np.empty(0)
            for law, planted in plants.items():
                means = residual + planted.moves
                lengths = np.sqrt(np.einsum("ij,ij->i", means, means))
                sums[law] += (means @ targets.T) / lengths[:, None]
    return {law: total / (2 * len(halves[0])) for law, total in sums.items()}


def _beat_draws(observed: np.ndarray, draws: np.ndarray, alpha: float) -> np.ndarray:
    ordered = np.sort(draws)
    reached = ordered.size - np.searchsorted(ordered, observed.astype(ordered.dtype), side="left")
    return (1 + reached) / (ordered.size + 1) <= alpha


def _beat_shams(observed: np.ndarray, cosines: np.ndarray, own: np.ndarray | None, alpha: float) -> np.ndarray:
    """Against the shams; one that is the noise itself is left out, and the others stand for it."""
    reached, count = cosines >= observed[:, None], cosines.shape[1]
    if own is not None:
        reached[np.arange(len(own)), own] = False
    scale = 1.0 if own is None else count / max(count - 1, 1)
    return (1 + scale * reached.sum(axis=1)) / (count + 1) <= alpha


def _beat_signs(layer: LayerNulls, plants: Plants, alpha: float) -> np.ndarray:
    resampling = layer.resampling
    first = resampling.fold[resampling.harmful]
    back = layer.back[layer.harmful].astype(np.float32)
    rejected = np.ones(REPLICATES, dtype=bool)
    for own, (signs, units) in zip((first, ~first), resampling.fold_signs, strict=True):
        towards = back[~own].mean(axis=0)
        values = (plants.signs[:, own] * (plants.residuals[own] @ towards) + (plants.moves @ towards)[:, None]).T
        draws = flip_signs(signs[:_INSIDE], units, values / own.sum())
        rejected &= (1 + (draws >= values.mean(axis=0)).sum(axis=0)) / (len(draws) + 1) <= alpha
    return rejected


def _reject_specificity(
    layer: LayerNulls, tuned: np.ndarray, along: Float[np.ndarray, " d_model"], alpha: float
) -> Rejections:
    """By label permutation, in which replicates it rejects; empty where labels cannot be permuted."""
    resampling, harmful, fold = layer.resampling, layer.harmful, layer.resampling.fold
    if resampling.few_labels is not None:
        return {}
    residuals = tuned - layer.aligned
    for members in (harmful, ~harmful):
        residuals[members] -= residuals[members].mean(axis=0)
    cross, labels = inner_products(residuals, layer.back), resampling.labels
    contrasts, rng = contrast_folds(harmful, fold)[::-1], np.random.default_rng([resampling.seed, 0x50E9])
    rejected = np.zeros((2, REPLICATES), dtype=bool)
    for replicate in range(REPLICATES):
        if isinstance(cross, Factors):
            table = cast("Gram", Factors(labels.exchange(residuals, rng) + np.outer(harmful, along), layer.back))
        else:
            table = labels.exchange(cross, rng) + np.outer(harmful, layer.back @ along)
        joint = studentise_joint(labels.called[: _INSIDE + 1], labels.average_pairs(table))
        by_fold = [
            welch(part.called[: _INSIDE + 1], part.average((table @ contrast)[own]))
            for own, part, contrast in zip((fold, ~fold), resampling.fold_labels, contrasts, strict=True)
        ]
        rejected[:, replicate] = _is_extreme(joint, alpha), all(_is_extreme(values, alpha) for values in by_fold)
    return dict(zip(SPECIFICITY, rejected, strict=True))


def _is_extreme(values: np.ndarray, alpha: float) -> bool:
    """Whether the first of the values is extreme among all."""
    return bool((values >= values[0]).mean() <= alpha)
