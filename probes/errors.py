"""Refusals that a user can act on: what happened, what was found, what was expected, what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from typing import Any


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """`; did you mean 'block'?`, with the known names nearest to a wrong one, at most so many; empty without any."""
    nearest = get_close_matches(name, list(known), n=most)
    return f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""


class GravityError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: one clause that names the thing that is wrong.
        got: what was found, if that helps.
        expected: what would have been right.
        next_step: what the user can do now.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        got: object | None = None,
        expected: object | None = None,
        next_step: str | None = None,
    ) -> None:
        self.what, self.got, self.expected, self.next_step = what, got, expected, next_step
        parts = [what.rstrip(".")]
        if got is not None:
            parts.append(f"got {str(got).rstrip('.')}")
        if expected is not None:
            parts.append(f"expected {expected}")
        sentence = "; ".join(parts) + "."
        super().__init__(f"{sentence} {next_step}" if next_step else sentence)

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross to another process whole."""
        got = None if self.got is None else str(self.got)
        return partial(type(self), got=got, expected=self.expected, next_step=self.next_step), (self.what,)

    def about(self, name: str) -> GravityError:
        """The same refusal, with the name of what it is about, unless it names it already."""
        what = self.what if self.what.startswith(name) else f"{name}: {self.what}"
        return type(self)(what, got=self.got, expected=self.expected, next_step=self.next_step)

    def with_log(self, log: str) -> GravityError:
        """The same refusal, with where the log of the process that refused is."""
        next_step = f"{self.next_step or ''} Its log: {log}".lstrip()
        return type(self)(self.what, got=self.got, expected=self.expected, next_step=next_step)


class UsageError(GravityError):
    """The request itself is wrong: an unknown option, a file in no known format, a missing input."""

    exit_code = 2


class LineageError(GravityError):
    """A checkpoint reference or a lineage that cannot be what it says it is."""


class CheckpointError(GravityError):
    """A checkpoint that cannot be loaded, or does not belong to the lineage."""


class PromptError(GravityError):
    """Prompts that cannot be read, rendered or split."""


class ActivationError(GravityError):
    """Activations that are not finite, or cannot be taken."""


class RunFolderError(GravityError):
    """A run folder that is locked, truncated, or written by another format version."""


class StatisticsError(GravityError):
    """Input from which the asked statistic cannot be computed."""


class GateTripped(GravityError):  # noqa: N818 - a result the user asked for, no error
    """A threshold the user set has been passed; pipelines read the exit code."""

    exit_code = 3
