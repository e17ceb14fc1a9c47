"""Pathways: whether an example changes how refusals hang on the way back through the features, or through the output.

The refusal score Y of every probe prompt is regressed on its projections X on our own directions, w = A⁻¹XᵀY with
A = XᵀX + λI, all of them less their means. To first order Δw = A⁻¹(ΔXᵀr − XᵀΔX w) + A⁻¹XᵀΔY with r = Y − Xw (Symbolic
Mechanistic Data Attribution, arXiv 2606.29171): what an example does to X, the *features*, and what it does to Y, the
*output*. Both are sums over prompts with weights that are known beforehand, and so are attributed as any target is.
Of a whole training X, Y, w and A are the means of those at its start and at its end: then Δw is no approximation, since
the difference of a product is that of its first factor times the mean of its second, and the other way about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from probes.attribution.targets import FEATURES, OUTPUT, Probe, Target, read_prompts
from probes.behaviour.refusal_score import refusal_tokens
from probes.guard.material import refusal_of
from probes.models.view import ModelView
from probes.run import Run

_PENALTY = 0.01  # λ, of the features' mean variance
_BATCH_SIZE = 64


@dataclass(frozen=True)
class Axes:
    """Our own directions at a layer; the change of the weight of the first is what is attributed.

    Attributes:
        layer: behind which block the stream is read.
        vectors: v̂ / ‖v‖ of each.
        tokens: first tokens of refusals.
    """

    layer: int
    vectors: Float[np.ndarray, "direction d_model"]
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, run: Run, layer: int, tokenizer: object) -> Axes:
        """The way back and the refusal axis.

        Raises:
            PromptError: the tokenizer knows no word that begins a refusal.
            UsageError: a direction is not defined at this layer.
        """
        pairs = [vectors.at(layer) for vectors in (run.direction("reversion"), refusal_of(run))]
        return cls(layer, np.stack([unit / norm for unit, norm in pairs]), refusal_tokens(tokenizer))


@dataclass(frozen=True)
class Regression:
    """The refusal score on the projections, at some weights of the model.

    Attributes:
        features: X, less its mean over prompts.
        scores: Y, likewise.
        penalty: λ.
    """

    features: Float[np.ndarray, "prompt direction"]
    scores: Float[np.ndarray, " prompt"]
    penalty: float

    @classmethod
    def read(cls, view: ModelView, probe: Probe, axes: Axes, penalty: float | None = None) -> Regression:
        """Read it off a model as it is; without a penalty, λ follows from these features."""
        every = np.ones(len(probe.token_ids))
        targets = [Target(FEATURES, axes.layer, every, vector) for vector in axes.vectors]
        targets.append(Target(OUTPUT, axes.layer, every, tokens=axes.tokens))
        columns = []
        with torch.no_grad():
            for first in range(0, len(every), _BATCH_SIZE):
                prompts = range(first, min(first + _BATCH_SIZE, len(every)))
                columns.append(torch.stack(read_prompts(view, probe, targets, prompts)).double().cpu().numpy())
        table = np.concatenate(columns, axis=1)
        table -= table.mean(axis=1, keepdims=True)
        features = table[:-1].T
        return cls(features, table[-1], _PENALTY * float(np.square(features).mean()) if penalty is None else penalty)

    @property
    def weights(self) -> Float[np.ndarray, " direction"]:
        """w = A⁻¹XᵀY."""
        return np.linalg.solve(self.gram, self.features.T @ self.scores)

    @property
    def gram(self) -> Float[np.ndarray, "direction direction"]:
        """A."""
        count, width = self.features.shape
        return self.features.T @ self.features + count * self.penalty * np.eye(width)


def slopes(
    regressions: Sequence[Regression],
) -> tuple[Float[np.ndarray, "prompt direction"], Float[np.ndarray, " prompt"]]:
    """What ΔX and ΔY are weighed with in the first direction's Δw; of one regression ∂w₀/∂X and ∂w₀/∂Y."""
    parts = [(r.features, r.scores, r.weights, r.gram) for r in regressions]
    features, scores, weights, gram = (np.mean(part, axis=0) for part in zip(*parts, strict=True))
    first = np.linalg.inv(gram)[0]
    by_score = features @ first
    return np.outer(scores - features @ weights, first) - np.outer(by_score, weights), by_score


def pathway_targets(axes: Axes, regressions: Sequence[Regression]) -> list[Target]:
    """What is attributed of the first direction's weight: its change through the features, and through the output.

    Args:
        axes: our own directions.
        regressions: at the start, and of a whole training at its end.
    """
    by_feature, by_score = slopes(regressions)
    return [
        Target(FEATURES, axes.layer, np.ones(len(by_score)), by_feature @ axes.vectors),
        Target(OUTPUT, axes.layer, by_score, tokens=axes.tokens),
    ]
