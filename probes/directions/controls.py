"""Directions that are not to find anything: what a direction that was found is held against.

`control` makes one of a measured run by name, for the guard, mediation and effects alike; the estimators are what the
fit knows of them, and give the same vectors. Draw n of a drawn control is that of seed n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from probes.directions.estimator import ContrastName, Estimator, differences, leading, mean_difference
from probes.directions.measured import Measured
from probes.directions.vectors import Vectors
from probes.errors import UsageError
from probes.nulls.gaussian import ClassCovariance
from probes.store import ALIGNED


def isotropic(seed: int, n_layers: int, width: int) -> Float[np.ndarray, "layer d_model"]:
    """Draw `seed` of standard normal vectors, one a layer, whichever layers are looked at.

    The first row is that of the first layer behind a fourth of the depth, where a guard begins by default.
    """
    import torch

    rows = torch.randn((n_layers, width), generator=torch.Generator().manual_seed(seed))
    return np.roll(rows.numpy().astype(np.float64), n_layers // 4, axis=0)


class Isotropic(Estimator):
    """A direction drawn evenly from the sphere."""

    says = "a random direction"
    control = True
    spanned = False
    drawn = True

    def __init__(self, *, winsorise: float | None = None, seed: int = 0, layer: int = 0, n_layers: int = 1) -> None:
        """Choose options.

        Args:
            winsorise: as of `Estimator`.
            seed: which draw.
            layer: at which layer: each has a vector of its own.
            n_layers: of how many.
        """
        super().__init__(winsorise=winsorise, seed=seed)
        self.layer, self.n_layers = layer, n_layers

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del positive, pairs
        return isotropic(self.seed, self.n_layers, rows.shape[1])[self.layer]


class CovarianceMatched(Estimator):
    """A direction drawn from N(0, Σ), Σ the sample covariance of the activations within the classes.

    It is a sum of the prompts' activations, centred in their class, with a standard normal weight for each prompt. So a
    draw moves as little as the activations do, at another precision or checkpoint, and prompts weigh the same at every
    layer: over several layers a draw has the activations' covariance as well. (A draw along the axes of Σ would hang on
    their signs and, where variances are alike, on their turns, which rounding decides.)
    """

    says = "random, with the activations' spread"
    control = True
    drawn = True
    dealt = True

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        weights = np.random.default_rng([self.seed, 0xC0]).standard_normal((1, len(rows)))
        return ClassCovariance.of(rows, positive).draw(weights)[0]


class PermutedLabels(Estimator):
    """The mean difference between classes whose labels have been dealt out again at random."""

    says = "permuted labels"
    control = True
    dealt = True

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        return mean_difference(rows, np.random.default_rng([self.seed, 0x5F]).permutation(positive))


class TopDrift(Estimator):
    """The leading axis of a checkpoint's own drift that is orthogonal to another direction, such as the reversion.

    It points the way that the checkpoint has drifted on the mean.
    """

    says = "leading drift off the reversion"
    contrast: ContrastName = "drift"  # type: ignore[misc]
    control = True

    def __init__(
        self,
        *,
        off: Float[np.ndarray, " d_model"] | None = None,
        winsorise: float | None = None,
        seed: int = 0,
    ) -> None:
        """Choose options.

        Args:
            off: what it must be orthogonal to; None is nothing.
            winsorise: as of `Estimator`.
            seed: unused.
        """
        super().__init__(winsorise=winsorise, seed=seed)
        self.off = off

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        drift = differences(rows, positive, pairs)
        length = 0.0 if self.off is None else float(np.linalg.norm(self.off))
        unit = np.zeros(rows.shape[1]) if self.off is None or length == 0 else self.off / length
        drift = drift - np.outer(drift @ unit, unit)
        axes = leading(drift, 1)
        if not len(axes) or not (drift**2).any():
            return np.zeros(rows.shape[1])
        return axes[0] - (axes[0] @ unit) * unit


def random_vectors(layers: Sequence[int], n_layers: int, width: int, seed: int = 0) -> Vectors:
    """`control:random`: isotropic unit vectors at some layers of a model, where no run is at hand."""
    chosen = tuple(sorted(set(layers)))
    return Vectors.of_raw("control:random", chosen, isotropic(seed, n_layers, width)[list(chosen)]).of_unit_norm


def control(
    run: Measured, name: str, layers: Sequence[int], *, seed: int = 0, checkpoint: str | None = None
) -> Vectors:
    """A control direction of a measured run; of one name, draw and run it is one vector, whoever asks.

    Args:
        run: holds the activations.
        name: `control:random`, `control:covariance`, `control:permuted-labels` or `control:drift`. `control:sham` is
            `reversion_vectors` towards a sham witness, whose activations no run keeps.
        layers: behind which blocks.
        seed: which draw; `control:drift` is not drawn.
        checkpoint: the fine-tuned checkpoint whose drift is meant, for `control:drift` alone.

    Returns:
        Unit vectors of norm 1, which take the norm of what they are held against. A drawn control points where it was
        drawn, on no side; the drift points the way of its own mean.

    Raises:
        UsageError: there is no such control, or no checkpoint was named.
        StatisticsError: it is not defined at a layer.
    """
    if name not in CONTROLS:
        raise UsageError("There is no such control", got=name, expected=", ".join(CONTROLS))
    chosen = tuple(sorted(set(layers)))
    raw = np.stack([CONTROLS[name](run, layer, seed, checkpoint) for layer in chosen])
    return Vectors.of_raw(name, chosen, raw).of_unit_norm


Make = Callable[[Measured, int, int, str | None], np.ndarray]


def _random(run: Measured, layer: int, seed: int, _: str | None) -> np.ndarray:
    return isotropic(seed, run.n_layers, run.activations(ALIGNED, layer).shape[1])[layer]


def _between_classes(method: type[Estimator]) -> Make:
    """What a method makes of the aligned model's harmful and harmless activations."""
    return lambda run, layer, seed, _: method(seed=seed).fit(run.activations(ALIGNED, layer), run.harmful).direction_


def _drift(run: Measured, layer: int, _: int, checkpoint: str | None) -> np.ndarray:
    if checkpoint is None:
        raise UsageError("The drift control needs a drift", next_step="Name the checkpoint that has drifted.")
    ahead, behind = (run.activations(name, layer)[run.harmful] for name in (checkpoint, ALIGNED))
    count = len(ahead)
    method = TopDrift(off=run.direction("reversion").at(layer)[0])
    pairs = np.tile(np.arange(count), 2)
    return method.fit(np.concatenate([ahead, behind]), np.arange(2 * count) < count, pairs).direction_


CONTROLS: Mapping[str, Make] = {
    "control:random": _random,
    "control:covariance": _between_classes(CovarianceMatched),
    "control:permuted-labels": _between_classes(PermutedLabels),
    "control:drift": _drift,
}
