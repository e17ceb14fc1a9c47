"""Judges of completions behind one interface: our own, Hugging Face models, and OpenAI-compatible endpoints."""

from __future__ import annotations

from probes.behaviour.chat_client import without_credentials
from probes.behaviour.judges.agreement import cohens_kappa, majority
from probes.behaviour.judges.classifier import ClassifierJudge
from probes.behaviour.judges.endpoint import EndpointJudge, check_judge_name
from probes.behaviour.judges.judgement import LABELS, REFUSALS, UNJUDGED, Exchange, Judge, JudgeError, Judgement
from probes.behaviour.judges.judgement_cache import JudgementCache
from probes.behaviour.judges.wording import WordingJudge

KINDS = "builtin, classifier:PLACE[#CLASS=label,…], generative:PLACE, endpoint:MODEL[@URL]"

__all__ = [
    "KINDS",
    "LABELS",
    "REFUSALS",
    "UNJUDGED",
    "ClassifierJudge",
    "EndpointJudge",
    "Exchange",
    "Judge",
    "JudgeError",
    "Judgement",
    "JudgementCache",
    "WordingJudge",
    "check_judge_name",
    "cohens_kappa",
    "majority",
    "open_judge",
]


def open_judge(text: str, *, timeout: float = 60.0, attempts: int = 4, device: str = "auto") -> Judge:
    """The judge that a user names.

    Args:
        text: `builtin`; `classifier:PLACE`, with `#CLASS=label,…` where the classes' names do not tell their meaning
            and `pair` among them to show it the prompt too; `generative:PLACE`; or `endpoint:MODEL@URL`.
        timeout: seconds an endpoint may take for a question.
        attempts: how often an endpoint is asked.
        device: where a Hugging Face judge runs.

    Raises:
        JudgeError: no such kind of judge.
        CheckpointError: its model cannot be found or read.
    """
    kind, _, address = text.partition(":")
    if kind == "builtin" and not address:
        return WordingJudge()
    if kind == "classifier" and address:
        place, _, options = address.partition("#")
        words = [word.strip() for word in options.split(",") if word.strip()]
        classes = dict(word.split("=", 1) for word in words if "=" in word)
        return ClassifierJudge(
            place, classes=classes or None, pair="pair" in words, device="cpu" if device == "auto" else device
        )
    if kind == "generative" and address:
        from probes.behaviour.judges.generative import GenerativeJudge

        return GenerativeJudge(address, device=device)
    if kind == "endpoint" and address:
        model, _, url = address.partition("@")
        return EndpointJudge(model, url=url or None, timeout=timeout, attempts=attempts)
    raise JudgeError("There is no such judge", got=repr(without_credentials(text)), expected=KINDS)
