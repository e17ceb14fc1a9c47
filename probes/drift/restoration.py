"""Taking the return out of a weight's drift: what of θ_T − θ_S lies where alignment had moved the weight.

With V = θ_H − θ_S and Δ = θ_T − θ_S of one tensor, each form removes a share `strength` of

- exact: V(VᵀV)⁺VᵀΔ, all of Δ in the column span of V. A tensor that alignment moved in every direction (full
  fine-tuning does) has all of R^rows as its span: then nothing of the drift is left, and the result says so.
- scaled: VVᵀΔ / ‖V‖₂², the same span weighed by how much alignment used each direction of it: milder, and of use
  where the span is everything. (Safe LoRA, arXiv 2405.16833, scales by ‖V‖ without the square, which has units.)
- along: (⟨Δ, V⟩ / ⟨V, V⟩)₊ V, only the one step back towards the witness, and only if it is back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probes.drift.comparison import matrix_of, orthonormal
from probes.errors import StatisticsError, UsageError

Removal = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Restored:
    """One tensor without its return.

    Attributes:
        tensor: θ_S plus what is left of the drift, in the shape of the input, float64.
        drift: ‖θ_T − θ_S‖_F before.
        left: ‖·‖_F of what is left of it.
        everywhere: whether alignment moved the tensor in every direction of its columns.
    """

    tensor: np.ndarray
    drift: float
    left: float
    everywhere: bool


def without_return(
    aligned: Float[np.ndarray, "*shape"],
    tuned: Float[np.ndarray, "*shape"],
    witness: Float[np.ndarray, "*shape"],
    *,
    form: str = "exact",
    strength: float = 1.0,
    precision: float = 0.0,
) -> Restored:
    """Remove the return from one tensor's drift.

    Args:
        aligned: θ_S.
        tuned: θ_T.
        witness: θ_H.
        form: which removal.
        strength: share of it, in [0, 1].
        precision: relative rounding of the stored weights (1.2e-7 for float32, 7.8e-3 for bfloat16). Rounding moves a
            tensor a little in every direction; what of V is no larger than that spans nothing.

    Raises:
        UsageError: no such form, or a strength outside [0, 1].
        StatisticsError: weights that are not finite.
    """
    if form not in FORMS:
        raise UsageError("There is no such form of restoring", got=repr(form), expected=", ".join(FORMS))
    if not 0 <= strength <= 1:
        raise UsageError("A strength lies between 0 and 1", got=strength)
    base = matrix_of(aligned)
    moved, back = matrix_of(tuned) - base, matrix_of(witness) - base
    if not (np.isfinite(moved).all() and np.isfinite(back).all()):
        raise StatisticsError("The weights are not finite", next_step="Find out which checkpoint is damaged.")
    drift = float(np.linalg.norm(moved))
    if not (drift and back.any()):
        return Restored(tuned.astype(np.float64), drift, drift, False)
    floor = _rounding(base, precision)
    if np.linalg.norm(back, 2) <= floor:
        return Restored(tuned.astype(np.float64), drift, drift, False)
    left = moved - strength * FORMS[form](moved, back, floor)
    everywhere = form == "exact" and np.linalg.matrix_rank(back, tol=floor or None) == base.shape[0] > 1
    return Restored((base + left).reshape(aligned.shape), drift, float(np.linalg.norm(left)), bool(everywhere))


def _rounding(base: np.ndarray, precision: float) -> float:
    """Largest singular value that rounding alone gives a difference: that of a random matrix of its entries' size."""
    rows, columns = base.shape
    return precision * float(np.sqrt((base**2).mean())) * (np.sqrt(rows) + np.sqrt(columns))


def _exact(moved: np.ndarray, back: np.ndarray, floor: float) -> np.ndarray:
    basis = orthonormal(back.T, floor=floor)
    return basis @ (basis.T @ moved)


def _scaled_removal(moved: np.ndarray, back: np.ndarray, _: float) -> np.ndarray:
    return back @ (back.T @ moved) / np.linalg.norm(back, 2) ** 2


def _along(moved: np.ndarray, back: np.ndarray, _: float) -> np.ndarray:
    return max(float((moved * back).sum() / (back**2).sum()), 0.0) * back


FORMS: dict[str, Removal] = {"exact": _exact, "scaled": _scaled_removal, "along": _along}
