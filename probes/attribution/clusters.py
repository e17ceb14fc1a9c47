"""Clusters of examples by their words: one cluster can be the whole signal, so examples are grouped before they rank.

Words are weighed by TF-IDF without those that more than a fifth of the examples share; examples are merged while their
mean cosine distance is under a threshold. A cluster is named after its heaviest words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    import pandas as pd

_DISTANCE = 0.8  # mean cosine distance up to which two groups are merged
_SHARED = 0.2  # of the examples: a word of more of them tells nothing apart
_MANY = 4000  # above, agglomeration's square of distances is too much, and k-means takes its place
_NAMED = 3  # words in a name


@dataclass(frozen=True)
class Clusters:
    """Which example lies in which cluster, the largest first, and what each is called."""

    of: Int[np.ndarray, " example"]
    names: tuple[str, ...]


def cluster_texts(texts: Sequence[str]) -> Clusters:
    """Group texts by their words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectoriser = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", max_df=max(_SHARED, 1.5 / len(texts)), sublinear_tf=True)
    try:
        weights = vectoriser.fit_transform(texts)
    except ValueError:  # no word tells them apart
        return Clusters(np.zeros(len(texts), dtype=np.int64), ("all",))
    raw = _labels(weights)
    order = sorted(set(raw.tolist()), key=lambda label: (-int((raw == label).sum()), int(np.argmax(raw == label))))
    number = {label: place for place, label in enumerate(order)}
    words = vectoriser.get_feature_names_out()
    names = [_name(weights[np.flatnonzero(raw == label)], words) for label in order]
    return Clusters(np.array([number[label] for label in raw.tolist()]), tuple(names))


def sum_clusters(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A row a cluster of a table of examples: cluster, cluster_name, the sums of these columns, examples (how many)."""
    grouped = table.groupby(["cluster", "cluster_name"], sort=False)
    return grouped[list(columns)].sum().assign(examples=grouped.size()).reset_index()


def effective_number(values: Float[np.ndarray, " part"]) -> float:
    """(Σ c)² / Σ c²: how many equal parts would be as uneven; 0 where everything is zero."""
    squares = float(np.square(values).sum())
    return float(values.sum()) ** 2 / squares if squares > 0 else 0.0


def _labels(weights: object) -> Int[np.ndarray, " example"]:
    from sklearn.cluster import AgglomerativeClustering, MiniBatchKMeans

    count: int = weights.shape[0]  # type: ignore[attr-defined]
    if count == 1:
        return np.zeros(1, dtype=np.int64)
    if count > _MANY:
        return MiniBatchKMeans(count // 20, random_state=0, n_init=3).fit_predict(weights).astype(np.int64)
    rows = weights.toarray()  # type: ignore[attr-defined]
    # An example without a word that counts has no angle to others; it is put at a corner of its own.
    rows = np.hstack([rows, np.where(rows.any(axis=1), 0.0, 1.0)[:, None]])
    merging = AgglomerativeClustering(n_clusters=None, distance_threshold=_DISTANCE, metric="cosine", linkage="average")
    return merging.fit_predict(rows).astype(np.int64)


def _name(weights: object, words: np.ndarray) -> str:
    mean = np.asarray(weights.mean(axis=0)).ravel()  # type: ignore[attr-defined]
    heaviest = [place for place in np.argsort(-mean, kind="stable")[:_NAMED] if mean[place] > 0]
    return " ".join(str(words[place]) for place in heaviest) or "no words of its own"
