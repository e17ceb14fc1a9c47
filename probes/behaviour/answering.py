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
    served: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON that says how answers were made.

    Args:
        max_new_tokens: greatest length of an answer.
        answers: each checkpoint's, with the columns of `evaluation.ANSWER_COLUMNS`.
        frame: of `prompt_frame`; None where servers alone set what stands around the prompt.
        left_out: (id, number of tokens) of each prompt that the context does not hold.
        served: `MODEL@URL` of the checkpoints that answered behind a server.

    Returns:
        `decoding`, `samples`, `max_new_tokens`, `system_prompt` and `prefill` (all that stands before and behind the
        prompt), `left_out`, and by checkpoint its place (`local` or the server), the number of answers, of those cut
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
                "place": (served or {}).get(checkpoint, "local"),
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


def base_flip_rate(
    host: ModelView,
    prompts: PromptSet,
    *,
    judge: Judge,
    max_new_tokens: int = 128,
    repeats: int = 3,
    batch_size: int = _BATCH_SIZE,
    seed: int = 0,
    rendering: Rendering = OWN,
    completions: Sequence[str] | None = None,
) -> float:
    """Share of answers that flip between refusal and none when the aligned model is asked again in shuffled batches.

    Greedy answers depend on who shares their batch only through rounding, so that this is what a difference between
    two models has to exceed. Pairs with an unjudged answer are left out.

    Args:
        host: holds the aligned model.
        prompts: harmful evaluation prompts.
        judge: who says what is a refusal.
        max_new_tokens: greatest length of an answer, as in the evaluation.
        repeats: how often all are asked again.
        batch_size: prompts in a batch.
        seed: of the shuffles.
        rendering: as in the evaluation.
        completions: what the model answered at first; None asks it.

    Raises:
        StatisticsError: no repeats, or no pair of answers could be judged.
    """
    if repeats < 1:
        raise StatisticsError("A rate of flips needs repeats", got=repeats, expected="1 or more")
    rendered = render(prompts, host.tokenizer, host.context_length, rendering).token_ids
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(rendered)) for _ in range(repeats)]
    if completions is None:
        completions = _answers(host, rendered, _batches(np.arange(len(rendered)), batch_size), max_new_tokens)
    again = [_answers(host, rendered, _batches(order, batch_size), max_new_tokens) for order in orders]
    first, *later = [_refusals(prompts, texts, judge) for texts in (completions, *again)]
    pairs = [(before, after) for again in later for before, after in zip(first, again, strict=True)]
    judged = [(before, after) for before, after in pairs if before is not None and after is not None]
    if not judged:
        raise StatisticsError("No answer of the aligned model could be judged twice", got=f"{len(pairs)} pairs")
    return sum(before != after for before, after in judged) / len(judged)


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
