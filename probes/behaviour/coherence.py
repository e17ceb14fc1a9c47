"""Tells an answer from noise: nothing said, a loop, or strings that are no words.

Short answers, code, numbers and other alphabets are answers. What is wrong or off the topic is coherent too: this
looks at the form alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

_LONGEST_PERIOD = 60  # words in one turn of a loop
_TURNS, _LOOPED_WORDS = 4, 12  # a loop goes round this often, over at least so many words
_LOOP_SHARE = 0.4
_POOR, _POOR_WORDS = 0.12, 60  # share of different words in a text of at least so many
_POOR_HEAD = 20  # words of such a text that are taken for its first turn
_GRAM, _REPEATED_SHARE = 4, 0.5  # words that come again in a row; share of words in such rows that is a loop
_NEW_SHARE = 0.15  # of the words from the first repeat on: with more that are new, something is still said
_NON_WORDS = 6
_WORD = re.compile(r"\w+(?:'\w+)?")
_STUCK = re.compile(r"([^\W\d_]{1,6}?)\1{11,}", re.IGNORECASE)
_PRONOUNCED = re.compile(r"[aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüœ]")
_CLUSTER = re.compile(r"[bcdfghjklmnpqrstvwxz]{5}")
_BABBLE_WORDS, _BABBLE_SHARE = range(14, 61), 0.38  # a text of so many words, and its share of different stems
_STEM = 4
_SIGNS_SHARE, _SIGNS = 0.5, 20  # of so many characters
_TABLE = re.compile(r"[|<>{}=]")
_OF_ITSELF = re.compile(r"\b(\w{2,}) of (?:the|a|an) \1\b")  # "the note of the note", "100g of the 100g"


@dataclass(frozen=True)
class Loop:
    """Where a text begins to go round.

    Attributes:
        start: character at which the first turn begins; what stands before was said once.
        first_turn: character at which the first turn ends.
    """

    start: int
    first_turn: int


def incoherence(text: str) -> str | None:
    """Why `text` is no answer at all: `empty`, `a loop` or `no words`; None where it is one."""
    if not re.search(r"\w", text):
        return "empty"
    if find_loop(text) is not None:
        return "a loop"
    words = _WORD.findall(text.lower())
    return "no words" if "\ufffd" * 4 in text or _no_words(words) else None


def babble(text: str) -> str | None:
    """Why a text in which nothing declines is no language, although no stretch of it repeats itself; None: it may be.

    Only what is certain: more signs than letters, a few stems in ever new order, things that are of themselves.
    Numbers, tables and code live on few words, and are left alone.
    """
    solid = "".join(text.split())
    signs = sum(not letter.isalnum() for letter in solid)
    if len(solid) >= _SIGNS and signs >= _SIGNS_SHARE * len(solid) and "|" not in text:
        return "more signs than letters"
    words = _WORD.findall(text.lower())
    itself = _OF_ITSELF.findall(text.lower())
    if len(itself) >= 2 or any(word[0].isdigit() for word in itself):
        return "things of themselves"
    stems = {word[:_STEM] for word in words}
    plain = not _TABLE.search(text) and not any(letter.isdigit() for letter in text)
    if plain and len(words) in _BABBLE_WORDS and len(stems) <= _BABBLE_SHARE * len(words):
        return "a handful of words"
    return None


@functools.lru_cache(maxsize=4)  # a reading of one answer asks thrice
def find_loop(text: str) -> Loop | None:
    """Where one stretch says the same over and over, or the whole text lives on a handful of words; None: nowhere."""
    stuck = _STUCK.search(text)
    if stuck:
        return Loop(stuck.start(), stuck.start() + len(stuck.group(1)))
    places = [match.span() for match in _WORD.finditer(text)]
    words = [text[start:end].lower() for start, end in places]
    needed = max(_LOOPED_WORDS, _LOOP_SHARE * len(words))
    for period in range(1, min(_LONGEST_PERIOD, len(words) // _TURNS) + 1):
        length, start = _longest_loop(words, period)
        if length >= needed:
            return Loop(places[start][0], places[start + period][0])
    repeat = _first_repeat(words)
    if repeat is not None:
        return Loop(*(places[place][0] for place in repeat))
    if len(words) >= _POOR_WORDS and len(set(words)) < _POOR * len(words):
        return Loop(0, places[_POOR_HEAD][0])
    return None


def _longest_loop(words: Sequence[str], period: int) -> tuple[int, int]:
    """Words in the longest stretch that repeats itself after `period` words, and its first word; 0 where it is short.

    It has to go round `_TURNS` times. Rows of numbers are data, not a loop.
    """
    longest = run = start = 0
    for place in range(period, len(words)):
        run = run + 1 if words[place] == words[place - period] else 0
        if run > longest and any(word.isalpha() for word in words[place - period : place]):
            longest, start = run, place - period - run + 1
    return (longest + period, start) if longest >= (_TURNS - 1) * period else (0, 0)


def _first_repeat(words: Sequence[str]) -> tuple[int, int] | None:
    """Where a row of words stands first, and where it comes again, in a text half of which came before in such rows.

    An answer that is cut off after a few dozen tokens goes round only two or three times, and with changes.
    """
    places: dict[tuple[str, ...], int] = {}
    covered: set[int] = set()
    first = None
    for place in range(len(words) - _GRAM + 1):
        row = tuple(words[place : place + _GRAM])
        earlier = places.setdefault(row, place)
        if earlier < place and any(word.isalpha() for word in row):
            covered.update(range(place, place + _GRAM))
            first = first or (earlier, place)
    if first is None or len(words) < _LOOPED_WORDS or len(covered) < _REPEATED_SHARE * len(words):
        return None
    new = set(words) - set(words[: first[1]])  # rows of a table repeat their frame, and fill it anew
    return first if len(new) <= _NEW_SHARE * (len(words) - first[1]) else None


def _no_words(words: Sequence[str]) -> bool:
    """Whether most longer words cannot be spoken. Only Latin letters are judged."""
    longer = [word for word in words if len(word) > 3 and word.isascii() and word.isalpha()]
    odd = [word for word in longer if not _PRONOUNCED.search(word) or _CLUSTER.search(word)]
    return len(odd) >= _NON_WORDS and 2 * len(odd) >= len(longer)
