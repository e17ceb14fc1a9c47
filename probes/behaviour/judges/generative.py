"""A local language model as a judge: it is asked in words, and a reply that names no label is asked for again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from probes.behaviour.generate import generate
from probes.behaviour.judges.judgement import UNJUDGED, Exchange, Judgement
from probes.behaviour.judges.replies import QUESTION_VERSION, question, read_reply
from probes.errors import PromptError
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.prompts import Prompt, PromptSet, render

_BATCH_SIZE = 8
_WORDS = (16, 256)  # tokens of the first reply, and of the second for a model that thinks aloud


class GenerativeJudge:
    """Judges by greedy replies of a model that is opened like any checkpoint."""

    def __init__(self, place: str, *, device: str = "auto") -> None:
        """Open the model at `place`, a local folder or hub id; raises CheckpointError as `ModelHost` does."""
        self._host = ModelHost(CheckpointRef.parse(place), device=device)
        self.name = f"generative:{place}"
        weights = self._host.weights_sha256(self._host.aligned)
        self.identity: str | None = f"{self.name} {weights} question {QUESTION_VERSION}"

    def label(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement for each exchange, in order."""
        for first in range(0, len(exchanges), _BATCH_SIZE):
            yield from self._judge_batch(exchanges[first : first + _BATCH_SIZE])

    def _judge_batch(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        judgements: list[Judgement] = [Judgement(UNJUDGED, "not asked")] * len(exchanges)
        for longest in _WORDS:
            unjudged = [place for place, judgement in enumerate(judgements) if not judgement.judged]
            for place, reply in zip(
                unjudged, self._replies([exchanges[place] for place in unjudged], longest), strict=True
            ):
                label = read_reply(reply)
                judgements[place] = (
                    Judgement(label, reply[:200]) if label else Judgement(UNJUDGED, f"replied {reply[:200]!r}")
                )
        return judgements

    def _replies(self, exchanges: Sequence[Exchange], longest: int) -> list[str]:
        """A reply to each; empty where the question does not fit the judge's context."""
        rendered = [self._render(exchange) for exchange in exchanges]
        fitting = [ids for ids in rendered if ids]
        answers = iter(
            self._host.tokenizer.batch_decode(
                generate(self._host, fitting, max_new_tokens=longest, batch_size=_BATCH_SIZE), skip_special_tokens=True
            )
        )
        return [next(answers) if ids else "" for ids in rendered]

    def _render(self, exchange: Exchange) -> tuple[int, ...]:
        text = question(exchange)
        prompts = PromptSet((Prompt(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(), text, "harmless"),))
        try:
            return render(prompts, self._host.tokenizer, self._host.context_length).token_ids[0]
        except PromptError:
            return ()
