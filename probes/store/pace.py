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
    def measure(self, at_least: float = 0.0) -> Iterator[None]:
        """Open while the document is written; an attempt that fails counts too.

        Args:
            at_least: seconds until the next, however short this one was.
        """
        started = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            self._next = ended + max(at_least, min(_SHARE * (ended - started), _LONGEST))

    @property
    def is_due(self) -> bool:
        """Whether it may be written again."""
        return time.monotonic() >= self._next
