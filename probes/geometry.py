"""Planes for trajectories: what of a checkpoint's drift points back, and what goes round."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from probes.errors import StatisticsError


def reversion_frame(
    displacements: Float[np.ndarray, "checkpoint d_model"], reversion: Float[np.ndarray, " d_model"]
) -> Float[np.ndarray, "3 d_model"]:
    """Axes in which trajectories at one layer are drawn: v̂_rev, then the main and second off-axis direction.

    The off-axis directions are the leading right singular vectors of what the displacements have beside v̂_rev,
    each turned so that the largest displacement lies on its positive side; a direction that nothing moves along is 0.

    Args:
        displacements: mean displacement μ_T − μ_S of each checkpoint.
        reversion: v_rev = μ_H − μ_S, any norm but 0.

    Returns:
        Orthonormal rows (or zero rows). Multiply displacements by their transpose for coordinates.

    Raises:
        StatisticsError: the witness stands where the aligned model stands.
    """
    norm = np.linalg.norm(reversion)
    if norm == 0:
        raise StatisticsError(
            "The witness equals the aligned model at this layer, so no direction leads back"
        )
    axis = np.asarray(reversion, dtype=np.float64) / norm
    off_axis = displacements - np.outer(displacements @ axis, axis)
    frame = np.zeros((3, axis.size))
    frame[0] = axis
    _, strengths, rows = np.linalg.svd(off_axis, full_matrices=False)
    floor = 1e-9 * max(float(np.linalg.norm(displacements)), np.finfo(np.float64).tiny)
    for place, (strength, row) in enumerate(zip(strengths[:2], rows[:2], strict=False), start=1):
        if strength > floor:
            along = off_axis @ row
            frame[place] = row * np.sign(along[np.argmax(np.abs(along))])
    return frame
