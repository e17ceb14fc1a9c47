"""Tells an answer from noise: nothing said, a loop, or strings that are no words.

Short answers, code, numbers and other alphabets are answers. What is wrong or off the topic is coherent too: this
looks at the form alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LONGEST_PERIOD = 20  # words in one turn of a loop
_TURNS, _LOOPED_WORDS = 4, 12  # a loop goes round this often, over at least so many words
_LOOP_SHARE = 0.4
_POOR, _POOR_WORDS = 0.12, 60  # share of different words in a text of at least so many
_NON_WORDS = 6
_STUCK = re.compile(r"([^\W\d_]{1,6}?)\1{11,}")
_PRONOUNCED = re.compile(r"[aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüœ]")
_CLUSTER = re.compile(r"[bcdfghjklmnpqrstvwxz]{5}")


def incoherence(text: str) -> str | None:
    """Why `text` is no answer at all: `empty`, `a loop` or `no words`; None where it is one."""
    if not re.search(r"\w", text):
        return "empty"
    words = re.findall(r"\w+(?:'\w+)?", text.lower())
    if _STUCK.search(text.lower()) or _loops(words):
        return "a loop"
    return "no words" if "\ufffd" * 4 in text or _no_words(words) else None


def _loops(words: Sequence[str]) -> bool:
    """Whether one stretch says the same over and over, or the whole text lives on a handful of words."""
    if len(words) >= _POOR_WORDS and len(set(words)) < _POOR * len(words):
        return True
    needed = max(_LOOPED_WORDS, _LOOP_SHARE * len(words))
    return any(_longest_loop(words, period) >= needed for period in range(1, min(_LONGEST_PERIOD, len(words)) + 1))


def _longest_loop(words: Sequence[str], period: int) -> int:
    """Words in the longest stretch that repeats itself after `period` words, at least `_TURNS` times; else 0.

    Rows of numbers are data, not a loop.
    """
    longest = run = 0
    for place in range(period, len(words)):
        run = run + 1 if words[place] == words[place - period] else 0
        if run > longest and any(word.isalpha() for word in words[place - period : place]):
            longest = run
    return longest + period if longest >= (_TURNS - 1) * period else 0


def _no_words(words: Sequence[str]) -> bool:
    """Whether most longer words cannot be spoken. Only Latin letters are judged."""
    longer = [word for word in words if len(word) > 3 and word.isascii() and word.isalpha()]
    odd = [word for word in longer if not _PRONOUNCED.search(word) or _CLUSTER.search(word)]
    return len(odd) >= _NON_WORDS and 2 * len(odd) >= len(longer)
