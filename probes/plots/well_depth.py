"""How deep a well is: −log density of harmful prompts in the plane of the way back.

The density is that of the aligned model's prompts and of those of the models before it (pretrained and witness
together), half and half, so that neither is deeper for having more prompts. A well is a description of where prompts
lie: its slope is no force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from probes.lineage import EARLIER
from probes.plots.limits import Limits

CEILING = 6.0  # nats above the deepest place, at which the picture is cut: there is next to no prompt beyond
GRID, _FEWEST = 144, 8  # places along; prompts for a density
_RIM, _SHALLOW = 0.5, 3.0  # nats: a basin lies so far below its rim, and no higher than that above the deepest


@dataclass(frozen=True)
class Well:
    """Depths on a grid.

    Attributes:
        along: places of the grid's columns, return fraction.
        across: places of its rows, along the main off-axis direction, in units of ‖v‖.
        depth: [across, along], nats above the deepest place, at most `CEILING`.
        bandwidths: factor of each group's kernels on its spread, aligned first.
        earlier: the roles whose prompts the second half of the density is made of.
    """

    along: Float[np.ndarray, " along"]
    across: Float[np.ndarray, " across"]
    depth: Float[np.ndarray, "across along"]
    bandwidths: tuple[float, ...]
    earlier: tuple[str, ...]

    def depth_at(self, along: ArrayLike, across: ArrayLike) -> Float[np.ndarray, " place"]:
        """Depths at some places, between the grid's own; `CEILING` outside."""
        from scipy.interpolate import RegularGridInterpolator

        between = RegularGridInterpolator((self.across, self.along), self.depth, bounds_error=False, fill_value=CEILING)
        return between(np.column_stack([np.asarray(across, float), np.asarray(along, float)]))

    @cached_property
    def basins(self) -> int:
        """How many basins there are: half a nat and more below their rim, not three above the deepest place."""
        return _count_basins(self.depth)


def make_well(prompts: pd.DataFrame, wide: Limits, high: Limits, places: int = GRID) -> Well | None:
    """The well of one layer on a grid; None where there are too few prompts, or all on one line.

    Args:
        prompts: arm, label, projection, across of the roles at one layer.
        wide: limits along the way back.
        high: limits across.
        places: of the grid along the way back.
    """
    from scipy.stats import gaussian_kde

    groups, earlier = _groups(prompts)
    if not _are_enough(groups):
        return None
    along = np.linspace(*wide, places)
    across = np.linspace(*high, max(24, round(places * (high[1] - high[0]) / (wide[1] - wide[0]))))
    spots = np.stack([part.ravel() for part in np.meshgrid(along, across)])
    density, bandwidths = np.zeros(spots.shape[1]), []
    for own in groups:
        kernel = gaussian_kde(own.T, bw_method="scott")
        density += 0.5 * kernel(spots)
        bandwidths.append(float(kernel.factor))
    depth = -np.log(np.maximum(density, 1e-300))
    depth = np.minimum(depth - depth.min(), CEILING).reshape(len(across), len(along))
    return Well(along, across, depth, tuple(bandwidths), earlier)


def has_well(prompts: pd.DataFrame) -> bool:
    """Whether `make_well` makes one of these prompts."""
    return _are_enough(_groups(prompts)[0])


def _are_enough(groups: Sequence[Float[np.ndarray, "_ 2"]]) -> bool:
    """Whether each group has prompts enough, and not all on one line."""
    return all(len(own) >= _FEWEST and np.linalg.matrix_rank(own - own.mean(axis=0)) == 2 for own in groups)


def _groups(prompts: pd.DataFrame) -> tuple[list[Float[np.ndarray, "prompt 2"]], tuple[str, ...]]:
    """The harmful prompts' places in the aligned model and in those before it, and which these are."""
    harmful = prompts[(prompts["label"] == "harmful") & prompts[["projection", "across"]].notna().all(axis=1)]
    earlier = tuple(role for role in EARLIER if role in set(harmful["arm"].unique()))
    groups = [harmful[harmful["arm"].isin(group)] for group in (("aligned",), earlier)]
    return [own[["projection", "across"]].to_numpy(float) for own in groups], earlier


def _count_basins(depth: Float[np.ndarray, "across along"]) -> int:
    """The depths are flooded level by level; a basin counts that is deep enough when it meets a deeper one."""
    from scipy.ndimage import label

    bottoms: dict[int, float] = {}  # deepest cell of each pool → its depth
    counted = 0
    for level in np.arange(0.0, CEILING, _RIM / 10):
        pools, count = label(depth <= level)
        now = {int(np.argmin(np.where(pools == pool, depth, np.inf))) for pool in range(1, count + 1)}
        counted += sum(bool(level - bottoms.pop(bottom) > _RIM) for bottom in set(bottoms) - now)
        shallow = {bottom for bottom in now if depth.ravel()[bottom] > _SHALLOW}
        bottoms |= {bottom: float(depth.ravel()[bottom]) for bottom in now - shallow}
        if level > _SHALLOW and len(bottoms) == 1:
            break  # nothing comes any more that could count, or that this one could meet
    return counted + len(bottoms)
