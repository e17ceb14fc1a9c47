"""Prompts in two folds, at random, with as many of each label in either, and whole groups where there are groups."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.errors import PromptError
from probes.prompts.records import LABELS

HARMFUL, HARMLESS = LABELS
_ATTEMPTS = 100  # orders of the groups, until either fold has some of every label


def folds(
    harmful: Bool[np.ndarray, " prompt"], seed: int, groups: np.ndarray | None = None
) -> Int[np.ndarray, " prompt"]:
    """Split prompts in two at random, stratified by label.

    Args:
        harmful: whether each prompt is harmful.
        seed: same seed, labels and groups, same folds.
        groups: the group of each prompt, which is kept whole; None: every prompt is alone.

    Returns:
        0 or 1 for each prompt; without groups the two folds differ by at most one within each label, and so they do in
        all; with groups by as little as a greedy choice makes it, the largest group first.

    Raises:
        PromptError: a label has only one prompt, or all of it cannot but lie in one fold.
    """
    generator = np.random.default_rng(seed)
    for label, members in ((HARMFUL, harmful), (HARMLESS, ~harmful)):
        if members.sum() == 1:
            raise PromptError(f"One {label} prompt cannot be split into two folds", expected="at least two")
    return _folds_alone(harmful, generator) if groups is None else _folds_of_groups(harmful, groups, generator)


def _folds_alone(harmful: Bool[np.ndarray, " prompt"], generator: np.random.Generator) -> Int[np.ndarray, " prompt"]:
    fold = np.empty(len(harmful), dtype=np.int64)
    start = 0
    for members in (np.flatnonzero(harmful), np.flatnonzero(~harmful)):
        # The odd one of the second label goes where the first label's did not, so that the folds stay equal.
        fold[generator.permutation(members)] = (np.arange(len(members)) + start) % 2
        start = (start + len(members)) % 2
    return fold


def _folds_of_groups(
    harmful: Bool[np.ndarray, " prompt"], groups: np.ndarray, generator: np.random.Generator
) -> Int[np.ndarray, " prompt"]:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}  # by place, not by name
    group = np.array([numbers[name] for name in groups])
    counts = np.stack([np.bincount(group[members], minlength=len(numbers)) for members in (harmful, ~harmful)], axis=1)
    for _ in range(_ATTEMPTS):
        side = _sides(counts / np.maximum(counts.sum(axis=0), 1), generator)
        one_sided = [label for label, of_label in zip(LABELS, counts.T, strict=True) if _is_one_sided(side, of_label)]
        if not one_sided:
            return side[group]
    (label, *_) = one_sided
    raise PromptError(
        f"The {label} prompts cannot be split into two folds by topic",
        got=f"{int((counts[:, LABELS.index(label)] > 0).sum())} topics with {label} prompts",
        expected="at least two",
        next_step="Give finer topics, or none.",
    )


def _sides(shares: Float[np.ndarray, "group label"], generator: np.random.Generator) -> Int[np.ndarray, " group"]:
    """The fold of each group, the largest first, each to the fold that has less of its labels."""
    order = generator.permutation(len(shares))
    order = order[np.argsort(-shares[order].sum(axis=1), kind="stable")]
    side = np.empty(len(shares), dtype=np.int64)
    excess = np.zeros(shares.shape[1])  # of each label in fold 0 over fold 1
    for place in order:
        costs = [np.square(excess + sign * shares[place]).sum() for sign in (1, -1)]
        side[place] = generator.integers(2) if np.isclose(*costs) else int(np.argmin(costs))
        excess += shares[place] * (1 - 2 * side[place])
    return side


def _is_one_sided(side: Int[np.ndarray, " group"], counts: Int[np.ndarray, " group"]) -> bool:
    return bool(counts.any()) and len(set(side[counts > 0])) < 2
