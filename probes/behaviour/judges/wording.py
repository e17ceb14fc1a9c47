"""The built-in judge: the classifier of refusals by their wording, which needs neither model nor network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probes.behaviour.judges.judgement import Exchange, Judgement
from probes.behaviour.refusal_text import read_completion


class WordingJudge:
    """Judges by `probes.behaviour.refusal_text.read_completion`."""

    name = "builtin"
    identity: str | None = None

    def label(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement for each exchange, in order."""
        for exchange in exchanges:
            reading = read_completion(exchange.completion, exchange.prompt)
            yield Judgement(reading.label, "; ".join(filter(None, (reading.cue, *reading.flags))))
