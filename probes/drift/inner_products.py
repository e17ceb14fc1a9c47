"""Inner products between all pairs of prompts: a matrix, or, where prompts outnumber dimensions, its two factors.

A Gram matrix of n prompts takes n² numbers, 3 GB for 20,000 of them. Where there are more prompts than dimensions it is
left @ right.T with thin factors, and whatever is asked of it is answered from those: from the smaller side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Factors:
    """The matrix left @ right.T, never made.

    Attributes:
        left: one row a prompt.
        right: likewise.
    """

    left: Float[np.ndarray, "prompt d_model"]
    right: Float[np.ndarray, "prompt_right d_model"]

    __array_ufunc__ = None  # so that numpy leaves `weights @ factors` to us

    def __len__(self) -> int:
        return len(self.left)

    def __matmul__(self, columns: np.ndarray) -> np.ndarray:
        return self.left @ (self.right.T @ columns)

    def __rmatmul__(self, weights: np.ndarray) -> np.ndarray:
        return (weights @ self.left) @ self.right.T

    def __getitem__(self, chosen: Sequence[np.ndarray]) -> Factors:
        """The rows and columns of `numpy.ix_`."""
        rows, columns = chosen
        return Factors(self.left[rows.ravel()], self.right[columns.ravel()])

    @property
    def T(self) -> Factors:  # noqa: N802 - as numpy calls it
        """The transposed matrix."""
        return Factors(self.right, self.left)

    def diagonal(self) -> Float[np.ndarray, " prompt"]:
        """Each prompt with itself."""
        return row_products(self.left, self.right)

    def sum(self, axis: int) -> Float[np.ndarray, " prompt"]:
        """Sums of columns (axis 0) or rows (axis 1)."""
        return self.right @ self.left.sum(axis=0) if axis == 0 else self.left @ self.right.sum(axis=0)


# Factors answer to what is asked of a matrix here; a checker of types sees the matrices.
if TYPE_CHECKING:
    Gram: TypeAlias = np.ndarray
else:
    Gram = Float[np.ndarray, "prompt prompt"] | Factors


def inner_products(left: Float[np.ndarray, "prompt d_model"], right: Float[np.ndarray, "prompt d_model"]) -> Gram:
    """left @ right.T; of more prompts than dimensions as factors."""
    prompts, width = left.shape
    return cast("Gram", Factors(left, right)) if prompts > width else left @ right.T


def row_products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The inner product of each row with its partner."""
    return np.einsum("ij,ij->i", first, second)


def squared_distances(gram: Gram, couples: Int[np.ndarray, "two couple"]) -> Float[np.ndarray, " couple"]:
    """‖x_i − x_j‖² of couples of prompts, from the inner products of x with itself."""
    if isinstance(gram, Factors):
        parts = np.array_split(couples, -(-couples.shape[1] // len(gram)), axis=1)  # no more rows at once than prompts
        apart = (gram.left[first] - gram.left[second] for first, second in parts)
        return np.concatenate([row_products(rows, rows) for rows in apart])
    (first, second), squared = couples, gram.diagonal()
    return np.maximum(squared[first] + squared[second] - 2 * gram[first, second], 0)


def sums_over_other_groups(gram: Gram, codes: Int[np.ndarray, " prompt"]) -> Float[np.ndarray, " prompt"]:
    """Of each row the sum over the columns of prompts of other groups; `codes` are groups as numbers from 0."""
    if not isinstance(gram, Factors):
        return (gram * (codes[:, None] != codes[None, :])).sum(axis=1)
    by_group = np.zeros((int(codes.max()) + 1, gram.right.shape[1]))
    np.add.at(by_group, codes, gram.right)
    return gram.sum(axis=1) - row_products(gram.left, by_group[codes])


def sum_of_product(first: Gram, second: Gram) -> float:
    """Sum over all pairs of prompts of the product of two symmetric Gram matrices."""
    if isinstance(first, Factors) and isinstance(second, Factors):
        crossed = first.left.T @ second.left
        is_same = first.left is first.right and second.left is second.right
        return float((crossed * (crossed if is_same else first.right.T @ second.right)).sum())
    if isinstance(first, Factors) or isinstance(second, Factors):
        factors, matrix = (first, second) if isinstance(first, Factors) else (second, first)
        return float(np.einsum("pd,pd->", factors.left, matrix @ factors.right))
    return float((first * second).sum())
