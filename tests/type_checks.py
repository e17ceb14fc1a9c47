"""The checks of types at run time, which cost a simulation a third of its time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from jaxtyping import config


@contextlib.contextmanager
def no_type_checks() -> Iterator[None]:
    """Leave them out, where the same functions have just run with them."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)
