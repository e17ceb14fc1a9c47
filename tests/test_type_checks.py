"""What is checked at run time while tests run: types everywhere, and shapes where a signature has any."""

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from probes.behaviour.coherence import find_loop
from probes.directions.vectors import Vectors
from tests.type_checks import no_type_checks

ROWS = np.zeros((2, 3), dtype=np.float32)


def test_a_type_is_checked_where_there_is_no_shape():
    with pytest.raises(BeartypeCallHintViolation):
        find_loop(7)


@pytest.mark.parametrize("norms", [np.zeros(3, dtype=np.float32), np.zeros(2), ROWS])
def test_a_shape_is_checked_against_those_of_the_same_call(norms):
    with pytest.raises(TypeCheckError):
        Vectors("drift", (0, 1), ROWS, norms)


def test_shapes_go_unchecked_where_that_is_asked_for():
    with no_type_checks(), pytest.raises(ValueError, match="one vector and one norm a layer"):
        Vectors("drift", (0, 1), ROWS, np.zeros(3, dtype=np.float32))
