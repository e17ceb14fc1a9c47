"""How answers were made, and how steady they are: the record that stands beside every rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.behaviour.judges import REFUSALS, Exchange, Judge, JudgementCache
from probes.errors import StatisticsError
from probes.models.view import ModelView
from probes.prompts import OWN, LeftOut, PromptSet, Rendering, prompt_texts, render

if TYPE_CHECKING:
    import pandas as pd

_BATCH_SIZE = 32


def answering_record(
    max_new_tokens: int,
    answers: Mapping[str, pd.DataFrame],
    *,
    frame: tuple[str, str] | None,
    left_out: LeftOut = (),
    places: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON that says how answers were made.

    Args:
        max_new_tokens: greatest length of an answer.
        answers: each checkpoint's, with the columns of `evaluation.ANSWER_COLUMNS`.
        frame: of `prompt_frame`; None where servers alone set what stands around the prompt.
        left_out: (id, number of tokens) of each prompt that the context does not hold.
        places: where checkpoints answered that did not answer here: `MODEL@URL` of a server, or a file.

    Returns:
        `decoding`, `samples`, `max_new_tokens`, `system_prompt` and `prefill` (all that stands before and behind the
        prompt), `left_out`, and by checkpoint its place (`local` or elsewhere), the number of answers, of those cut
        off, and of those that are missing.
    """
    before, behind = frame or (None, None)
    return {
        "decoding": "greedy",
        "samples": 1,
        "max_new_tokens": max_new_tokens,
        "system_prompt": before,
        "prefill": behind,
        "left_out": [list(pair) for pair in left_out],
        "checkpoints": {
            checkpoint: {
                "place": (places or {}).get(checkpoint, "local"),
                "answers": len(table),
                "cut_off": int(table["cut_off"].sum()),
                "missing": int(table["completion"].isna().sum()),
            }
            for checkpoint, table in answers.items()
        },
    }


def prompt_frame(tokenizer: Any, rendering: Rendering = OWN) -> tuple[str, str]:
    """The text that the chat template sets before and behind a prompt; empty where there is none.

    Raises:
        PromptError: the chat template fails or does not end.
    """
    mark = "GRAVITY"
    _, (text,), _ = prompt_texts(PromptSet.of([mark], ["harmless"]), tokenizer, rendering)
    before, _, behind = text.partition(mark)
    return before, behind


def answer_again(
    host: ModelView,
    prompts: PromptSet,
    repeat: int,
    *,
    max_new_tokens: int = 128,
    batch_size: int = _BATCH_SIZE,
    rendering: Rendering = OWN,
) -> list[str]:
    """What a model answers when it is asked in batches that are shuffled.

    Greedy answers depend on who shares their batch only through rounding, so that what changes here is what a
    difference between two models has to exceed.

    Args:
        host: holds the model.
        prompts: harmful evaluation prompts.
        repeat: which shuffle, from 0.
        max_new_tokens: greatest length of an answer, as in the evaluation.
        batch_size: prompts in a batch.
        rendering: as in the evaluation.
    """
    rendered = render(prompts, host.tokenizer, host.context_length, rendering).token_ids
    rng = np.random.default_rng(0)
    order = [rng.permutation(len(rendered)) for _ in range(repeat + 1)][repeat]
    return _answers(host, rendered, _batches(order, batch_size), max_new_tokens)


def base_flip_rate(prompts: PromptSet, first: Sequence[str], again: Sequence[Sequence[str]], judge: Judge) -> float:
    """Share of answers that flip between refusal and none when the model is asked again.

    Pairs with an unjudged answer are left out.

    Args:
        prompts: harmful evaluation prompts.
        first: what the model answered at first.
        again: what it answered in each repeat, as of `answer_again`.
        judge: who says what is a refusal.

    Raises:
        StatisticsError: no repeats, or no pair of answers could be judged.
    """
    if not again:
        raise StatisticsError("A rate of flips needs repeats", got=0, expected="1 or more")
    before, *later = [_refusals(prompts, texts, judge) for texts in (first, *again)]
    pairs = [(was, now) for after in later for was, now in zip(before, after, strict=True)]
    judged = [(was, now) for was, now in pairs if was is not None and now is not None]
    if not judged:
        raise StatisticsError("No answer of the aligned model could be judged twice", got=f"{len(pairs)} pairs")
    return sum(was != now for was, now in judged) / len(judged)


def _batches(order: np.ndarray, size: int) -> Iterator[list[int]]:
    for first in range(0, len(order), size):
        yield order[first : first + size].tolist()


def _answers(
    host: ModelView, rendered: Sequence[Sequence[int]], batches: Iterator[list[int]], max_new_tokens: int
) -> list[str]:
    """What each prompt is answered, asked in these batches."""
    from probes.behaviour.ask import completion_text
    from probes.behaviour.generate import generate

    completions: dict[int, str] = {}
    for batch in batches:
        ids = [rendered[prompt] for prompt in batch]
        continued = generate(host, ids, max_new_tokens=max_new_tokens, batch_size=len(batch))
        for prompt, answer in zip(batch, continued, strict=True):
            completions[prompt] = completion_text(host.tokenizer, rendered[prompt], answer)
    return [completions[prompt] for prompt in range(len(rendered))]


def _refusals(prompts: PromptSet, completions: Sequence[str], judge: Judge) -> list[bool | None]:
    """Whether each prompt is refused; None where the judge cannot say."""
    exchanges = [Exchange(text, completion) for text, completion in zip(prompts.texts, completions, strict=True)]
    judgements = JudgementCache().ask(judge, exchanges)
    return [judgement.label in REFUSALS if judgement.judged else None for judgement in judgements]
