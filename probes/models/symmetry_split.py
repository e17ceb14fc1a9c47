"""How much of a change of weights lies along the model's symmetries, where no activation sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, cg

from probes.models.gauges import Gauge, Shift, Weights, gauges_of
from probes.models.weights import WeightFiles

_STEPS = 100
_PRECISION = 1e-6  # of the residual; a share's own error goes with its square


@dataclass(frozen=True)
class PartSplit:
    """‖ΔW‖² of one part of the network, along its symmetries and in all.

    Attributes:
        part: `layers.3.attention`, `layers.3.mlp` or `unembedding`.
        along: the squared norm of the change's projection on the motions of all gauges of the part.
        total: the squared norm of the change of the part's tensors.
        dimension: of the space of those motions.
        numbers: weights that the part has; a change in random directions lies along with dimension / numbers.
    """

    part: str
    along: float
    total: float
    dimension: int
    numbers: int


def split_files(config: Any, start: WeightFiles, end: WeightFiles) -> Iterator[PartSplit]:
    """Split the change between two checkpoints of one lineage, a part at a time; two copies of it are in memory.

    Raises:
        CheckpointError: the architecture's symmetries are not known, or a file is damaged.
    """
    for gauges in by_part(gauges_of(config, start.shapes())).values():
        names = set().union(*(gauge.tensors for gauge in gauges))
        yield split_part(gauges, start.read(names), end.read(names))


def by_part(gauges: Iterable[Gauge | Shift]) -> dict[str, list[Gauge | Shift]]:
    """The gauges that share tensors, which have to be looked at together, in order."""
    parts: dict[str, list[Gauge | Shift]] = {}
    for gauge in gauges:
        parts.setdefault(gauge.part, []).append(gauge)
    return parts


def split_part(gauges: Sequence[Gauge | Shift], start: Weights, end: Weights) -> PartSplit:
    """Split the change from `start` to `end` of the tensors that the gauges of one part move.

    The motions are those at the midpoint of both, where a move along one gauge alone lies among them whole,
    however far it went: (e^t − 1)·w is 2 tanh(t/2) times the mean of w and e^t·w, and likewise for matrices. Of a
    move of size t along several gauges of one tensor at once, a remainder of size t³ lies outside. The projection is
    the least-squares one on all motions together, since they are not orthogonal, by conjugate gradients.

    Args:
        gauges: all gauges of one part.
        start: at least their tensors, by name.
        end: the same of the other checkpoint.
    """
    names = sorted(set().union(*(gauge.tensors for gauge in gauges)))
    first, last = ({name: weights[name].double() for name in names} for weights in (start, end))
    changes = {name: last[name] - first[name] for name in names}
    middle = {name: (last[name] + first[name]) / 2 for name in names}
    total = sum(float(change.pow(2).sum()) for change in changes.values())
    return PartSplit(
        part=gauges[0].part,
        along=min(_Motions(gauges, middle).norm_along(changes), total),
        total=total,
        dimension=sum(gauge.dimension for gauge in gauges),
        numbers=sum(change.numel() for change in changes.values()),
    )


class _Motions:
    """The motions of several gauges at one point, as a linear map from their coefficients."""

    def __init__(self, gauges: Sequence[Gauge | Shift], weights: Mapping[str, torch.Tensor]) -> None:
        self._gauges, self._weights = gauges, weights
        zero = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self._shapes = [gauge.pull(weights, zero).shape for gauge in gauges]
        self._size = sum(shape.numel() for shape in self._shapes)

    def norm_along(self, changes: Weights) -> float:
        """‖P·changes‖², P the orthogonal projection on the motions."""
        target = self._pull(changes)
        if not target.any():
            return 0.0
        square = (self._size, self._size)
        gram = LinearOperator(square, lambda vector: self._pull(self._push(vector)), dtype=np.float64)
        nearly = LinearOperator(square, self._solve, dtype=np.float64)
        coefficients, _ = cg(gram, target, rtol=_PRECISION, maxiter=_STEPS, M=nearly)
        return sum(float(change.pow(2).sum()) for change in self._push(coefficients).values())

    def _split(self, vector: np.ndarray) -> list[torch.Tensor]:
        pieces = torch.from_numpy(np.ascontiguousarray(vector).reshape(-1)).split(
            [shape.numel() for shape in self._shapes]
        )
        return [piece.reshape(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]

    def _push(self, vector: np.ndarray) -> dict[str, torch.Tensor]:
        changes = {name: torch.zeros_like(weight) for name, weight in self._weights.items()}
        for gauge, motion in zip(self._gauges, self._split(vector), strict=True):
            for name, change in gauge.push(self._weights, motion):
                changes[name] += change
        return changes

    def _pull(self, changes: Weights) -> np.ndarray:
        return _flatten(gauge.pull(self._weights, changes) for gauge in self._gauges)

    def _solve(self, vector: np.ndarray) -> np.ndarray:
        """The inverse of each gauge's own part of the Gram matrix, as a preconditioner."""
        pairs = zip(self._gauges, self._split(vector), strict=True)
        return _flatten(gauge.solve(self._weights, motion) for gauge, motion in pairs)


def _flatten(pieces: Iterable[torch.Tensor]) -> np.ndarray:
    return torch.cat([piece.reshape(-1) for piece in pieces]).numpy()
