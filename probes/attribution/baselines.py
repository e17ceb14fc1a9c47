"""What a ranking of examples has to beat: BM25 to the harmful probes, and projections on the direction.

Projections are those of persona vectors (arXiv 2507.21509) and Concept Influence (arXiv 2602.14869), at the model that
training starts from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from probes.activations import collect
from probes.behaviour.generate import generate
from probes.guard.recorded_path import RecordedExample
from probes.models.view import ModelView

_SATURATION, _LENGTH = 1.5, 0.75  # k₁ and b of Robertson and Zaragoza (2009), the usual ones
_ANSWER_TOKENS = 32


def bm25(texts: Sequence[str], queries: Sequence[str]) -> Float[np.ndarray, " text"]:
    """Mean BM25 score of each text over the queries: our own formula on scikit-learn's counts of words in lower case.

    It is that of Robertson and Zaragoza (2009), but with Lucene's weight of a rare word, log(1 + (N − n + ½)/(n + ½)),
    which is never negative.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(token_pattern=r"(?u)\b\w+\b")
    try:
        every = counter.fit_transform(texts)
    except ValueError:  # no word in any text
        return np.zeros(len(texts))
    frequency = np.asarray(counter.transform(queries).sum(axis=0)).ravel() / max(len(queries), 1)
    queried = np.flatnonzero(frequency)  # a data set has far more words than its queries
    counts = every[:, queried].toarray().astype(np.float64)
    holding = (counts > 0).sum(axis=0)
    rarity = np.log1p((len(texts) - holding + 0.5) / (holding + 0.5))
    length = np.asarray(every.sum(axis=1), dtype=np.float64).reshape(-1, 1)
    damped = counts + _SATURATION * (1 - _LENGTH + _LENGTH * length / length.mean())
    return (counts * (_SATURATION + 1) / damped) @ (rarity * frequency[queried])


Pair = tuple[Float[np.ndarray, " example"], Float[np.ndarray, " example"]]


def projections(
    view: ModelView, examples: Sequence[RecordedExample], units: Mapping[int, Float[np.ndarray, " d_model"]]
) -> dict[int, Pair]:
    """⟨h(x), v̂⟩ at the end of each request, and the mean over its answer less that over the model's own answer.

    An example without a request has no projection, one without an answer of the model's own no difference: NaN.

    Args:
        view: the model.
        examples: requests with answers.
        units: v̂ at each layer.

    Returns:
        Both, by layer.
    """
    starts = [next((n for n, label in enumerate(e.labels) if label >= 0), len(e.ids)) for e in examples]
    asked_of = [place for place, start in enumerate(starts) if start > 0]
    requests = [list(examples[place].ids[: starts[place]]) for place in asked_of]
    own = generate(view, requests, max_new_tokens=_ANSWER_TOKENS)
    pairs = {layer: (np.full(len(examples), np.nan), np.full(len(examples), np.nan)) for layer in units}
    for layer, along in _along(view, requests, None, units).items():
        pairs[layer][0][asked_of] = along
    answered = [
        (place, request, answer) for place, request, answer in zip(asked_of, requests, own, strict=True) if answer
    ]
    if answered:
        places = [place for place, _, _ in answered]
        data = [list(examples[place].ids) for place in places]
        spans = [(len(request), len(ids)) for (_, request, _), ids in zip(answered, data, strict=True)]
        alternatives = [[*request, *answer] for _, request, answer in answered]
        own_spans = [(len(request), len(ids)) for (_, request, _), ids in zip(answered, alternatives, strict=True)]
        of_own = _along(view, alternatives, own_spans, units)
        for layer, along in _along(view, data, spans, units).items():
            pairs[layer][1][places] = along - of_own[layer]
    return pairs


def _along(
    view: ModelView,
    token_ids: Sequence[Sequence[int]],
    spans: Sequence[tuple[int, int]] | None,
    units: Mapping[int, Float[np.ndarray, " d_model"]],
) -> dict[int, Float[np.ndarray, " row"]]:
    stream, _ = collect(view, token_ids, spans=spans)
    return {layer: stream[layer].astype(np.float64) @ unit for layer, unit in units.items()}
