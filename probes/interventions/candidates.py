"""The candidates for the refusal direction, and what each does when it is ablated or added (arXiv 2406.11717)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from probes.activations import automatic_batch_tokens, batches
from probes.behaviour.next_token import RepeatedReading, next_logits
from probes.behaviour.refusal_score import refusal_tokens, score
from probes.directions.selection import Candidate
from probes.interventions.deciding_scores import UNDEFINED, Estimate
from probes.models.hooks import ablate, hand_over
from probes.models.prefix import body_inputs, prefix_length, read_prefix
from probes.models.view import ModelView

SCORED = 32  # prompts of a class, as many as the source validates on
_SCREENED = 4  # of them, for an estimate
_ERRORS = 6  # standard errors of so few prompts, beyond which a score is not looked for
_MOST_POSITIONS = 8
Prompts = Sequence[Sequence[int]]
Done = Callable[[int, int], None]


@dataclass(frozen=True)
class Asked:
    """Rendered prompts of either class, in two folds: candidates are found on the first and scored on the second."""

    harmful: tuple[Prompts, Prompts]
    harmless: tuple[Prompts, Prompts]

    @classmethod
    def of(cls, token_ids: Prompts, harmful: Bool[np.ndarray, " prompt"], fold: Bool[np.ndarray, " prompt"]) -> Asked:
        """All prompts of fold A, and of fold B the first `SCORED` of each class."""
        return cls(_folds(token_ids, harmful, fold), _folds(token_ids, ~harmful, fold))


def positions_of(token_ids: Prompts) -> tuple[int, ...]:
    """Places behind the instruction: those at which all prompts have the same tokens, counted from the end.

    What the chat template sets there is where a model has read the whole request and has not answered yet. Always −1.
    """
    shortest = min(map(len, token_ids))
    same = 0
    while same < shortest - 1 and len({ids[-1 - same] for ids in token_ids}) == 1:
        same += 1
    return tuple(range(-max(1, min(same, _MOST_POSITIONS)), 0))


class Scorer:
    """Differences of means at every position and layer of a model, and their scores and estimates, one at a time.

    Attributes:
        positions: counted from the end.
        vectors: harmful − harmless means over the first fold.
    """

    vectors: Float[np.ndarray, "position layer d_model"]

    def __init__(self, host: ModelView, questions: Asked, positions: Sequence[int]) -> None:
        """Read the prompts.

        Args:
            host: holds the aligned model.
            questions: the prompts.
            positions: counted from the end.

        Raises:
            PromptError: the tokenizer knows no word that begins a refusal.
        """
        self._host, self.positions = host, tuple(positions)
        self._tokens = refusal_tokens(host.tokenizer)
        self._harmful = questions.harmful[1]
        self.vectors = _differences(host, questions, self.positions)
        self._all = _Harmless(host, questions.harmless[1], self._tokens)
        count = len(self._all.prompts)
        some = np.linspace(0, count - 1, min(count, _SCREENED)).round().astype(int)  # not all of one topic
        self._few = _Harmless(host, [self._all.prompts[prompt] for prompt in some], self._tokens)

    def score(self, name: str, position: int, layer: int) -> float:
        """One score, as of `Candidate`; NaN where the classes do not differ at this place."""
        vector = self._vector(position, layer)
        if not vector.any():
            return float("nan")
        if name == "induce":
            return float(self._all.induces(layer, vector[None]).mean())
        if name == "kl":
            return float(self._all.kl(vector).mean())
        with ablate(self._host, vector):
            return float(score(next_logits(self._host, self._harmful), self._tokens).mean())

    def estimate_kl(self, position: int, layer: int) -> Estimate:
        """KL on a few prompts; NaN where the classes do not differ at this place.

        No KL is below zero, so that of all is at least the sum over the few, divided by all.
        """
        vector = self._vector(position, layer)
        if not vector.any():
            return UNDEFINED
        values = self._few.kl(vector)
        return Estimate(float(values.mean()), float(values.sum() / len(self._all.prompts)))

    def estimate_induces(self, layer: int, positions: Sequence[int]) -> list[Estimate]:
        """Induce on a few prompts at some positions of a layer; NaN where the classes do not differ there.

        It is what all prompts have without the vector, and what it adds on these few; the bound is six standard errors
        above.
        """
        vectors = [self._vector(position, layer) for position in positions]
        defined = [place for place, vector in enumerate(vectors) if vector.any()]
        estimates = [UNDEFINED] * len(vectors)
        if not defined:
            return estimates
        few, count = len(self._few.prompts), len(self._all.prompts)
        values = self._few.induces(layer, np.stack([vectors[place] for place in defined]))
        for place, added in zip(defined, values - self._few.scores, strict=True):
            error = added.std(ddof=1) * math.sqrt((1 - few / count) / few) if few < count else 0.0
            value = float(self._all.scores.mean() + added.mean())
            estimates[place] = Estimate(value, value + _ERRORS * float(error))
        return estimates

    def _vector(self, position: int, layer: int) -> Float[np.ndarray, " d_model"]:
        return self.vectors[self.positions.index(position), layer]


class _Harmless:
    """Harmless prompts, and what a vector does to each.

    Attributes:
        prompts: rendered.
        scores: refusal scores, by the model as it is.
    """

    def __init__(self, host: ModelView, prompts: Prompts, tokens: Sequence[int]) -> None:
        self.prompts, self._host, self._tokens = prompts, host, tokens
        self.reading = RepeatedReading(host, prompts)
        self.scores = score(self.reading.logits, tokens)
        self._plain = self.reading.logits.double().log_softmax(dim=-1)

    def induces(self, layer: int, vectors: Float[np.ndarray, "vector d_model"]) -> Float[np.ndarray, "vector prompt"]:
        """Each prompt's refusal score with each of the vectors added."""
        return np.stack([score(logits, self._tokens) for logits in self.reading.logits_with(layer, vectors)])

    def kl(self, vector: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " prompt"]:
        """Each prompt's KL with the direction ablated."""
        with ablate(self._host, vector):
            changed = next_logits(self._host, self.prompts).double().log_softmax(dim=-1)
        return (self._plain.exp() * (self._plain - changed)).sum(dim=-1).numpy()


def candidates(
    host: ModelView,
    questions: Asked,
    positions: Sequence[int],
    done: Done | None = None,
    *,
    layers: Sequence[int] | None = None,
) -> tuple[list[Candidate], Float[np.ndarray, "position layer d_model"]]:
    """Difference of means at every position and layer of the model in `host`, and its three scores.

    Args:
        host: holds the aligned model.
        questions: the prompts.
        positions: counted from the end.
        done: is given (candidates done, candidates in all).
        layers: blocks behind which candidates are scored; None is all of them.

    Returns:
        The scores, and the vectors that were scored (those of the first fold).
    """
    scorer = Scorer(host, questions, positions)
    places = [(position, layer) for position in positions for layer in layers or range(host.n_layers)]
    scored = []
    for number, place in enumerate(places):
        scored.append(Candidate(*place, *(scorer.score(name, *place) for name in ("bypass", "induce", "kl"))))
        if done is not None:
            done(number + 1, len(places))
    return scored, scorer.vectors


def _folds(token_ids: Prompts, of_class: np.ndarray, fold: np.ndarray) -> tuple[Prompts, Prompts]:
    first, second = (np.flatnonzero(of_class & side).tolist() for side in (~fold, fold))
    return [token_ids[place] for place in first], [token_ids[place] for place in second[:SCORED]]


def _differences(
    host: ModelView, questions: Asked, positions: Sequence[int]
) -> Float[np.ndarray, "position layer d_model"]:
    """Harmful − harmless means in float64, all positions in one pass."""
    prompts, harmful = [*questions.harmful[0], *questions.harmless[0]], len(questions.harmful[0])
    length = prefix_length(host, prompts, before=min(map(len, prompts)) + min(positions))
    prefix = read_prefix(host, prompts[0][:length])
    sums = np.zeros((2, len(positions), host.n_layers, host.d_model))
    for batch in batches([len(ids) - length for ids in prompts], automatic_batch_tokens(host)):
        ends = torch.tensor([len(prompts[prompt]) - length for prompt in batch])
        take = _Sums(sums, ends[:, None] + torch.tensor(positions), np.array(batch) < harmful)
        with torch.inference_mode(), hand_over(host.blocks, range(host.n_layers), take):
            host.body(**body_inputs(host, [prompts[prompt] for prompt in batch], prefix))
    return sums[0] / harmful - sums[1] / (len(prompts) - harmful)


@dataclass(frozen=True)
class _Sums:
    """Adds up a batch's activations at some places of each prompt, by class: [class, position, layer, d_model]."""

    sums: np.ndarray
    places: torch.Tensor
    harmful: np.ndarray

    def __call__(self, layer: int, stream: torch.Tensor) -> None:
        places = self.places.to(stream.device)
        rows = stream[torch.arange(len(places), device=stream.device)[:, None], places].double().cpu().numpy()
        for of_class, members in enumerate((self.harmful, ~self.harmful)):
            self.sums[of_class, :, layer] += rows[members].sum(axis=0)
