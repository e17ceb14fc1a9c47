"""Prompts in two folds, at random, with as many of each label in either, and whole groups where there are groups."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from probes.errors import PromptError
from probes.prompts.records import LABELS

HARMFUL, HARMLESS = LABELS


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
    """Groups one by one, those with the largest share of a label first, to the fold that has less of their labels."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}  # by place, not by name
    group = np.array([numbers[name] for name in groups])
    counts = np.stack([np.bincount(group[members], minlength=len(numbers)) for members in (harmful, ~harmful)], axis=1)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    order = generator.permutation(len(numbers))
    order = order[np.argsort(-shares[order].max(axis=1), kind="stable")]
    side = np.empty(len(numbers), dtype=np.int64)
    excess = np.zeros(2)  # of each label in fold 0 over fold 1
    for place in order:
        costs = [np.square(excess + sign * shares[place]).sum() for sign in (1, -1)]
        side[place] = generator.integers(2) if np.isclose(*costs) else int(np.argmin(costs))
        excess += shares[place] * (1 - 2 * side[place])
    for label, of_label in zip((HARMFUL, HARMLESS), counts.T, strict=True):
        if of_label.any() and len(set(side[of_label > 0])) < 2:
            raise PromptError(
                f"The {label} prompts cannot be split into two folds by topic",
                got=f"{int((of_label > 0).sum())} topics with {label} prompts",
                expected="at least two of about equal size",
                next_step="Give finer topics, or none.",
            )
    return side[group]
