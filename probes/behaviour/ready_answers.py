"""Answers that were generated elsewhere, matched with the evaluation's questions by the text of the request.

Nothing is loaded or asked here. A question that has no answer has no completion, and is unjudged. Neither refusal
scores nor task losses can be had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probes.behaviour.evaluation import ANSWER_COLUMNS, Evaluation
from probes.errors import PromptError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ReadyAnswer:
    """One answer of a file.

    Attributes:
        requests: texts, one of which is the request: a log may hold it bare, rendered, and as a dataset's field.
        completion: the answer, with the model's thinking in its tags; None where there is none.
        cut_off: whether it is known to have reached its greatest length.
    """

    requests: tuple[str, ...]
    completion: str | None
    cut_off: bool = False


def match_answers(
    answers: Sequence[ReadyAnswer], evaluation: Evaluation, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a file answers to the evaluation's questions, as `evaluation.answer_questions` returns it.

    Of several answers to one request the first counts; answers to other requests are left out.

    Args:
        answers: in the order of the file.
        evaluation: what is asked.
        name: the file's, for messages.

    Raises:
        PromptError: no question is answered.
    """
    import pandas as pd

    by_request: dict[str, ReadyAnswer] = {}
    for answer in answers:
        for request in answer.requests:
            by_request.setdefault(request.strip(), answer)
    questions = evaluation.questions
    matches = [by_request.get(text.strip()) for text in questions.texts]
    if not any(match is not None and match.completion is not None for match in matches):
        example = next((request for answer in answers for request in answer.requests), "no request")
        raise PromptError(
            f"{name} answers none of the evaluation's {len(matches)} questions",
            got=repr(example[:60]),
            expected=repr(questions.texts[0][:60]),
            next_step="Name the prompts that were asked: --harmful FILE --harmless FILE.",
        )
    rows = [
        (prompt, match.completion if match else None, bool(match and match.cut_off), float("nan"))
        for prompt, match in zip(questions.ids, matches, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(ANSWER_COLUMNS)), pd.DataFrame(columns=["item", "loss", "tokens"])
