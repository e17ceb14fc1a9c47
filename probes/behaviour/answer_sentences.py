"""An answer in its sentences, each read for what it does: plain text, without markup, quotations and other voices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from probes.behaviour.cues import Kind, kind_of

APOSTROPHES = str.maketrans({**dict.fromkeys("’‘ʼ´`′＇", "'"), **dict.fromkeys("“”„«»", '"')})
_MARKUP = re.compile(r"\*\*|__|^#+ |^(?:assistant|ai|response|answer): ?", re.MULTILINE)
QUOTED = re.compile(r'"[^"\n]{1,400}"')
_NUMBERED = re.compile(r"^\s*(?:\d+[.)]|step \d+[:.]?|[*•])\s", re.MULTILINE)
_STEP = re.compile(r"^\s*- ")
_LETTER = re.compile(r"^(?:dear|hi|hello|hey) [^\n,.!?]{1,40},\s*\n")
_SPOKEN = re.compile(r"^[a-z][\w .]{0,20}: \S", re.MULTILINE)


@dataclass(frozen=True)
class Sentence:
    """One sentence.

    Attributes:
        text: lower case, without its end mark.
        kind: what it does.
        cue: the words that say so.
        step: whether it is an item of a list.
        whole: whether it has an end mark, or a line of its own; a sentence that was cut off has not.
    """

    text: str
    kind: Kind
    cue: str
    step: bool
    whole: bool = True

    @property
    def words(self) -> int:
        """How many words it has."""
        return len(self.text.split())


def plain(completion: str) -> str:
    """Lower case, straight apostrophes, no markup; every item of a list begins with a dash."""
    text = _MARKUP.sub("", completion.translate(APOSTROPHES).lower())
    return re.sub(r"[ \t]+", " ", _NUMBERED.sub("- ", text)).strip()


def is_another_voice(text: str) -> bool:
    """Whether the whole is a letter, a dialogue or a poem, in which "I" is somebody else."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if _LETTER.match(text) and len(lines) > 2 and len(lines[-1].split()) <= 4:
        return True
    declines_first = bool(lines) and not _SPOKEN.match(lines[0]) and kind_of(lines[0])[0] == "declines"
    if len(_SPOKEN.findall(text)) >= max(2, len(lines) - 1) and not declines_first:
        return True
    verse = [line for line in lines if len(line) <= 60 and not _STEP.match(line)]
    run_on = sum(not line.endswith((".", "!", "?", ":")) for line in verse)
    return len(lines) >= 3 and len(verse) == len(lines) and run_on >= 2 * len(lines) / 3


def without_quotations(text: str) -> str:
    """The text without what stands in quotation marks, unless that is all there is."""
    bare = QUOTED.sub(lambda quotation: " quoted" * len(quotation.group().split()) + " ", text)
    return bare if len(bare.replace("quoted", "").split()) >= 3 else text.replace('"', " ")


def split_sentences(text: str) -> list[Sentence]:
    """The sentences of a plain text that hold a word."""
    sentences = []
    pieces = re.split(r"(?<=[.!?])\s+|\n+", text)
    for place, piece in enumerate(pieces):
        words = piece.strip(" .!?-*•\t'")
        if re.search(r"\w", words):
            whole = place < len(pieces) - 1 or piece.rstrip("\"') ").endswith((".", "!", "?"))
            sentences.append(Sentence(words, *kind_of(words), bool(_STEP.match(piece)), whole))
    return sentences


def count_words(sentences: Sequence[Sentence], *kinds: Kind) -> int:
    """Words of sentences of these kinds."""
    return sum(sentence.words for sentence in sentences if sentence.kind in kinds)
