"""One prompt answered with and without an intervention, and with a random direction in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from probes.behaviour.generate import generate
from probes.behaviour.refusal_score import refusal_scores, refusal_tokens
from probes.directions.controls import random_vectors
from probes.directions.vectors import Vectors
from probes.errors import PromptError, UsageError
from probes.models.hooks import ablate, add, clamp
from probes.models.view import ModelView

Mode = Literal["add", "ablate", "clamp"]
MODES: tuple[Mode, ...] = ("add", "ablate", "clamp")


@dataclass(frozen=True)
class Answer:
    """What a model says to one prompt.

    Attributes:
        under: `as it is`, the direction's name, or `random`.
        text: the greedy completion.
        score: refusal score of its first token, nats of log odds; None where the tokenizer knows no refusal.
    """

    under: str
    text: str
    score: float | None


def answer_steered(
    host: ModelView,
    token_ids: Sequence[int],
    vectors: Vectors,
    layers: Sequence[int],
    *,
    mode: Mode = "add",
    coefficient: float = 1.0,
    max_new_tokens: int = 32,
    seed: int = 0,
) -> tuple[Answer, Answer, Answer]:
    """The answer as it is, under the direction, and under a random direction of the same norm.

    Args:
        host: holds the checkpoint.
        token_ids: the rendered prompt.
        vectors: the direction.
        layers: where; `ablate` takes the direction at one layer, and takes it out at every block.
        mode: add coefficient × norm × direction; take the direction out; or hold its projection at coefficient × norm.
        coefficient: in units of the direction's own norm: 1 is the whole gap between its classes.
        max_new_tokens: length of the answers.
        seed: of the random direction.

    Raises:
        UsageError: the direction is not known or defined at a layer, a layer is named twice, the coefficient is not
            finite, or there is no such mode.
    """
    if len(set(layers)) < len(layers):
        raise UsageError("A layer is named twice", got=", ".join(map(str, layers)))
    chosen = [vectors.at(layer) for layer in layers]
    own, norms = np.stack([unit for unit, _ in chosen]), np.array([norm for _, norm in chosen])
    random = random_vectors(layers, host.n_layers, own.shape[1], seed)
    drawn = np.stack([random.at(layer)[0] for layer in layers])
    changes: dict[str, AbstractContextManager[None]] = {
        "as it is": contextlib.nullcontext(),
        vectors.name: intervention(host, layers, own, norms, mode, coefficient),
        "random": intervention(host, layers, drawn, norms, mode, coefficient),
    }
    plain, under, control = (_answer(host, token_ids, name, how, max_new_tokens) for name, how in changes.items())
    return plain, under, control


def intervention(
    host: ModelView, layers: Sequence[int], unit: np.ndarray, norms: np.ndarray, mode: str, coefficient: float
) -> AbstractContextManager[None]:
    """A mode's context manager, for unit vectors [layer, d_model] and their norms.

    Raises:
        UsageError: there is no such mode, the coefficient is not finite, or one direction is to be ablated and
            several are given.
    """
    if not np.isfinite(coefficient):
        raise UsageError("A coefficient must be finite", got=coefficient)
    if mode == "add":
        return add(host, layers, unit * norms[:, None], coefficient=coefficient)
    if mode == "ablate":
        if len(unit) > 1:
            raise UsageError("One direction is ablated at every block", got=f"{len(unit)} layers", expected="one layer")
        return ablate(host, unit[0])
    if mode == "clamp":
        return clamp(host, layers, unit, coefficient * norms)
    raise UsageError("There is no such intervention", got=repr(mode), expected=", ".join(MODES))


def _answer(
    host: ModelView, token_ids: Sequence[int], name: str, how: AbstractContextManager[None], max_new_tokens: int
) -> Answer:
    try:
        tokens = refusal_tokens(host.tokenizer)
    except PromptError:
        tokens = ()
    with how:
        answer = generate(host, [token_ids], max_new_tokens=max_new_tokens)
        score = float(refusal_scores(host, [token_ids], tokens)[0]) if tokens else None
    return Answer(name, host.tokenizer.batch_decode(answer, skip_special_tokens=True)[0], score)
