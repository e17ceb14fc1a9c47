"""How much weight noise moves the activations as far as a fine-tuning did: a search of few readings, in logarithms.

Length grows with the scale, at first in proportion, then faster or slower. So the readings are joined by a monotone
curve (Fritsch and Carlson 1980) of the scale over the length, and the next one is made where it passes through the
length that is asked for; while no reading lies beyond that, by the slope of the last two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

NEAR = 0.05  # how near the length of the displacement has to come
READINGS = 4
_SLOPES = (0.25, 4.0)  # of the logarithm of the length over that of the scale, outside the readings
_NO_LENGTH = 1e-6


@dataclass(frozen=True)
class NoiseScale:
    """A scale of weight noise.

    Attributes:
        scale: in units of the noise that was read first.
        farthest: the longest displacement that was read, in units of the fine-tuning's; below 1 where noise is not
            seen to move the activations as far, whatever its scale.
    """

    scale: float
    farthest: float


def find_noise_scale(read: Callable[[float], float], own: float, readings: int = READINGS) -> NoiseScale:
    """Find the scale at which noise moves the activations as far as the fine-tuning did.

    Args:
        read: the length of the mean displacement under noise of a scale, in units of the fine-tuning's; `inf` where
            activations are no longer finite.
        own: the same at scale 1, which has been read.
        readings: how many there may be, this first one with them.

    Returns:
        The scale that was read and comes within 5 %, else the one where the curve through the readings passes through
        the length, else, where no reading lies beyond it, that of the farthest.
    """
    points = {0.0: _logarithm(own)}
    while len(points) < readings and not is_as_far(math.exp(_nearest(points)[1])):
        place = _next_place(points)
        points[place] = _logarithm(read(math.exp(place)))
    finite = {place: length for place, length in points.items() if math.isfinite(length)}
    place, length = _nearest(finite)
    if not is_as_far(math.exp(length)) and min(finite.values()) < 0 < max(finite.values()):
        place = _next_place(finite)
    return NoiseScale(math.exp(place), math.exp(max(finite.values())))


def is_as_far(length: float) -> bool:
    """Whether a length in units of the fine-tuning's is within 5 % of it."""
    return 1 / (1 + NEAR) <= length <= 1 + NEAR


def _logarithm(length: float) -> float:
    """Of a length, or of a very small one where rounding to the model's precision has swallowed the noise."""
    return math.log(max(length, _NO_LENGTH))


def _nearest(points: dict[float, float]) -> tuple[float, float]:
    return min(points.items(), key=lambda point: abs(point[1]))


def _next_place(points: dict[float, float]) -> float:
    """Where to read next: between the readings that lie on either side, or beyond the last."""
    short, far = ([place for place, length in points.items() if (length < 0) == below] for below in (True, False))
    if not short or not far:
        return _beyond(points)
    low, high = max(short), min(far)
    finite = sorted((place, length) for place, length in points.items() if math.isfinite(length))
    places, lengths = (np.array(column) for column in zip(*finite, strict=True))
    if low > high or not math.isfinite(points[high]):
        return (low + high) / 2
    if (np.diff(lengths) <= 0).any():
        places, lengths = np.array([low, high]), np.array([points[low], points[high]])
    return float(PchipInterpolator(lengths, places)(0.0))


def _beyond(points: dict[float, float]) -> float:
    """All readings lie on one side: on from the nearest, by the slope of the last two."""
    place, length = _nearest(points)
    if len(points) == 1:
        return place - length
    (first, before), (last, after) = list(points.items())[-2:]
    slope = min(max((after - before) / (last - first), _SLOPES[0]), _SLOPES[1])
    return place - length / slope
