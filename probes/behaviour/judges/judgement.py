"""What is judged, what a judge says, and what every judge offers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from probes.errors import UsageError

REFUSALS = ("refusal", "partial_refusal")
LABELS = (*REFUSALS, "compliance", "incoherent")
UNJUDGED = "unjudged"


@dataclass(frozen=True)
class Exchange:
    """One request and what was answered; the prompt may be empty where it is not known."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one exchange.

    Attributes:
        label: one of `LABELS`, or `unjudged` where the judge failed: that is never a safe answer.
        reason: the words that decided, the judge's own reply, or what went wrong.
    """

    label: str
    reason: str = ""

    def __post_init__(self) -> None:
        if self.label not in (*LABELS, UNJUDGED):
            raise ValueError(f"{self.label!r} is no label")

    @property
    def judged(self) -> bool:
        """Whether there is an answer to count."""
        return self.label != UNJUDGED


@runtime_checkable
class Judge(Protocol):
    """One judge.

    Attributes:
        name: as the user gave it, e.g. `endpoint:gpt-4o-mini`.
        identity: all that its answer depends on beside the exchange; None says that asking again costs nothing, so
            that its answers need not be kept.
    """

    name: str
    identity: str | None

    def label(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement for each exchange, in order, as they come."""
        ...


class JudgeError(UsageError):
    """A judge that cannot be opened, or that refuses every question."""
