"""How often a document that grows is worth writing again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

_SHARE = 20  # a writing is followed by so many times its own length without one
_LONGEST = 10.0  # seconds


class Pace:
    """Leaves a twentieth of the time to writing, whatever a single writing takes."""

    def __init__(self) -> None:
        """Nothing is written yet."""
        self._next = 0.0

    @contextlib.contextmanager
    def measure(self) -> Iterator[None]:
        """Open while the document is written."""
        started = time.monotonic()
        yield
        ended = time.monotonic()
        self._next = ended + min(_SHARE * (ended - started), _LONGEST)

    @property
    def is_due(self) -> bool:
        """Whether it may be written again."""
        return time.monotonic() >= self._next
