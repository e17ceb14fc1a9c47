"""The search for the scale at which weight noise moves the activations as far, on curves whose answer is known."""

import math

import numpy as np
import pytest

from probes.nulls import find_noise_scale, is_as_far


def proportional(scale):
    return 0.04 * scale


def toy_model(scale):
    """Lengths of one draw of the toy model: faster than in proportion, then over a shoulder, then on."""
    scales = [1, 2, 4, 6, 8.1, 9.9, 11, 12.1, 13.4, 14.8, 16.3, 18.1, 22, 30, 45]
    lengths = [0.0584, 0.118, 0.256, 0.417, 0.602, 0.788, 0.898, 1.006, 1.088, 1.143, 1.176, 1.2, 1.271, 1.614, 3.8]
    return math.exp(np.interp(math.log(scale), np.log(scales), np.log(lengths)))


def saturating(scale):
    """It ends a quarter beyond the length that is asked for."""
    return 1.25 * math.tanh(0.05 * scale)


def steep(scale):
    return 0.1 * scale**3


def counting(read):
    """The curve, and the list of what is read from it."""
    scales = []

    def count(scale):
        scales.append(scale)
        return read(scale)

    return count, scales


@pytest.mark.parametrize("read", [proportional, toy_model, saturating, steep], ids=lambda read: read.__name__)
@pytest.mark.parametrize("size", [0.9, 1.0, 1.1, 3.0])
def test_a_scale_that_moves_as_far_is_found_in_four_readings(read, size):
    count, scales = counting(lambda scale: size * read(scale))
    noise = find_noise_scale(count, size * read(1.0))
    assert is_as_far(size * read(noise.scale))
    assert noise.farthest >= 1 / 1.05
    assert len(scales) <= 3, "the first of the four was given"


def test_secants_jump_over_the_shoulder_and_take_it_for_saturation():
    """What an earlier version did: of as many readings, none comes near."""
    places, lengths, slope = [0.0], [math.log(toy_model(1.0))], 1.0
    for _ in range(3):
        place, length = min(zip(places, lengths, strict=True), key=lambda point: abs(point[1]))
        places.append(place - length / slope)
        lengths.append(math.log(toy_model(math.exp(places[-1]))))
        slope = min(max((lengths[-1] - length) / (places[-1] - place), 0.25), 4.0)
    assert not any(is_as_far(math.exp(length)) for length in lengths)
    assert is_as_far(toy_model(find_noise_scale(toy_model, toy_model(1.0)).scale))


def test_noise_that_is_far_enough_already_is_read_once():
    noise = find_noise_scale(lambda scale: pytest.fail(f"it was read at {scale}"), 1.02)
    assert noise.scale == 1
    assert noise.farthest == pytest.approx(1.02)


def test_where_no_noise_moves_as_far_the_farthest_of_four_readings_is_kept():
    """Activations that saturate at half of the length."""
    count, scales = counting(lambda scale: 0.5 * math.tanh(0.2 * scale))
    noise = find_noise_scale(count, 0.5 * math.tanh(0.2))
    assert len(scales) == 3
    assert noise.scale == pytest.approx(max(scales))
    assert noise.farthest == pytest.approx(0.5, abs=0.01)


def test_noise_under_which_activations_are_no_longer_finite_is_no_length():
    """The search goes back, in logarithms half way; what it keeps is finite."""
    count, scales = counting(lambda scale: 0.2 * scale**0.7 if scale < 4 else math.inf)
    noise = find_noise_scale(count, 0.2)
    assert len(scales) <= 3
    assert 1 < noise.scale < 4
    assert noise.farthest < 1


def test_noise_that_rounding_swallows_is_searched_for_further_out():
    assert find_noise_scale(lambda scale: 0.0 if scale < 10 else 1.0, 0.0).scale > 10


def test_readings_that_do_not_grow_are_searched_between_the_nearest_two():
    lengths = iter([1.5, 0.02, 0.03])
    count, scales = counting(lambda _: next(lengths))
    noise = find_noise_scale(count, 0.05)
    assert 1 < scales[1] < scales[2] < noise.scale < scales[0] == pytest.approx(20)


def test_noise_that_moves_too_far_is_made_smaller():
    noise = find_noise_scale(lambda scale: 7 * scale, 7.0)
    assert is_as_far(7 * noise.scale)
