"""The layer of the headline, chosen from aligned and witness alone, before any fine-tuned checkpoint is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from probes.directions.reversion import reversion_did_directions
from probes.directions.scores import auroc
from probes.drift import Groups, bootstrap_weights, split_weights

DEPTH = 0.6
TELLS = 0.8
CLASSES_AND_MODELS, MODELS, AT_DEPTH = "classes_and_models", "models", "depth"
_BEST, _TELLS = (
    "the largest d′ of aligned against witness",
    f"tells harmful from harmless prompts (AUROC {TELLS} or more)",
)
_TIES = f"of ties the one nearest to {DEPTH} of the depth"
RULES = {
    CLASSES_AND_MODELS: f"{_BEST} among the blocks but the last at which the aligned model {_TELLS}; {_TIES}",
    MODELS: f"{_BEST} among all blocks but the last, since at none the aligned model {_TELLS}; {_TIES}",
    AT_DEPTH: f"the block at {DEPTH} of the depth",
}
_SPLITS, _BOOTSTRAPS = 10, 200


@dataclass(frozen=True)
class HeadlineLayer:
    """The layer declared in advance, and how well each block tells aligned from witness.

    Attributes:
        layer: the block.
        d_prime: by block, cross-validated.
        error: by block, its bootstrap standard error.
        ties: the blocks within one standard error of the largest.
        auroc: by block, how well the aligned model tells harmful from harmless prompts there, cross-validated.
        rule: which of `RULES` chose it.
    """

    layer: int
    d_prime: Mapping[int, float]
    error: Mapping[int, float]
    ties: tuple[int, ...]
    auroc: Mapping[int, float]
    rule: str


def nominal_layer(n_layers: int) -> int:
    """The block at 0.6 of the depth: the headline where there is no witness."""
    return min(int(DEPTH * n_layers), max(n_layers - 2, 0))


def choose_headline_layer(
    blocks: Iterable[tuple[Float[np.ndarray, "prompt d_model"], Float[np.ndarray, "prompt d_model"]]],
    harmful: Bool[np.ndarray, " prompt"],
    fold: Bool[np.ndarray, " prompt"],
    *,
    groups: Groups | None = None,
    seed: int = 0,
) -> HeadlineLayer:
    """Choose the block with the largest d′ of aligned against witness along the difference-in-differences direction.

    Direction and d′ come from different halves of fold A. Blocks within one bootstrap standard error of the largest
    are ties, and of them the one nearest to 0.6 of the depth is taken; never the last block, whose output the head
    reads; and, where there are such, only blocks at which the aligned model itself tells harmful from harmless
    prompts (AUROC of its mean difference at least `TELLS`): where it cannot yet, all prompts lie close together, so
    that d′ is large for a small shift that all prompts share, and says nothing about harm.

    Args:
        blocks: activations of aligned and witness behind every block, the first block first; no embedding.
        harmful: which prompts are harmful.
        fold: which prompts lie in the second fold; only the others are used.
        groups: the topic of each prompt; halves and bootstraps then go by topic.
        seed: of halves and bootstraps.

    Raises:
        StatisticsError: fold A holds one prompt of a class, or those of one topic, which cannot be halved.
    """
    used = ~fold
    labels, topics = harmful[used], None if groups is None else groups[used]
    rng = np.random.default_rng([seed, 0x4EAD])
    halves = split_weights(labels, _SPLITS, rng, topics)
    drawn = bootstrap_weights(labels, _BOOTSTRAPS, rng, topics)
    weights = (drawn[0] + drawn[1])[:, labels] / 2
    d_prime, errors, telling = {}, {}, {}
    for layer, (aligned, witness) in enumerate(blocks):
        rows = aligned[used].astype(np.float64), witness[used].astype(np.float64)
        d_prime[layer], errors[layer] = _separate(*rows, labels, halves, weights)
        telling[layer] = _tell_classes(rows[0], labels, halves)
    inner = [layer for layer in d_prime if layer < len(d_prime) - 1] or list(d_prime)
    tell_both = [layer for layer in inner if telling[layer] >= TELLS]
    candidates = tell_both or inner
    best = max(candidates, key=lambda layer: d_prime[layer])
    ties = tuple(layer for layer in candidates if d_prime[layer] >= d_prime[best] - errors[best])
    layer = min(ties, key=lambda tie: (abs(tie - DEPTH * len(d_prime)), tie))
    return HeadlineLayer(layer, d_prime, errors, ties, telling, CLASSES_AND_MODELS if tell_both else MODELS)


def _separate(
    aligned: np.ndarray,
    witness: np.ndarray,
    harmful: np.ndarray,
    halves: tuple[np.ndarray, np.ndarray],
    weights: Float[np.ndarray, "draw harmful"],
) -> tuple[float, float]:
    """Mean over the splits of d′, and its bootstrap standard error."""
    values, draws = [], []
    for own, opposite in (halves, halves[::-1]):
        directions = reversion_did_directions(aligned, witness, harmful, own)
        projections = np.stack([aligned[harmful] @ directions.T, witness[harmful] @ directions.T]).transpose(2, 0, 1)
        for tested, places in zip(opposite[:, harmful] > 0, projections, strict=True):
            values.append(_d_prime(places[:, tested], np.ones((1, int(tested.sum()))))[0])
            draws.append(_d_prime(places[:, tested], weights[:, tested]))
    return float(np.mean(values)), float(np.mean(draws, axis=0).std())


def _tell_classes(aligned: np.ndarray, harmful: np.ndarray, halves: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean over the splits of the AUROC of one half's mean difference on the opposite half."""
    values = []
    for own, opposite in (halves, halves[::-1]):
        scores = aligned @ (np.where(harmful, own, -own) @ aligned).T
        for tested, column in zip(opposite > 0, scores.T, strict=True):
            values.append(auroc(column[tested, None], harmful[tested])[0])
    return float(np.mean(values))


def _d_prime(
    places: Float[np.ndarray, "model prompt"], weights: Float[np.ndarray, "draw prompt"]
) -> Float[np.ndarray, " draw"]:
    """Gap between two models' means over their common spread, for every row of weights."""
    shares = weights / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    centred = places - places.mean(axis=1, keepdims=True)
    means, squares = shares @ centred.T, shares @ (centred**2).T
    gap = shares @ (places[1] - places[0])
    spread = np.sqrt(np.maximum((squares - means**2).mean(axis=1), 0))
    return np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)
