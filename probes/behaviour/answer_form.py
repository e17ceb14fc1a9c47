"""The form of an answer, which never overrules its content: thinking, a leaked next turn, and the language.

What is judged is what the user would read as the answer: without the model's thinking, and up to where the model
begins to write the user's next turn itself.
"""

from __future__ import annotations

import re

from probes.behaviour.coherence import find_loop

_THOUGHT = re.compile(r"<(think|thinking|reasoning|thought)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(r"<(?:think|thinking|reasoning|thought)>", re.IGNORECASE)
_CLOSED = re.compile(r"</(?:think|thinking|reasoning|thought)>", re.IGNORECASE)
# Marks of chat templates, and the names that scripts of dialogues give to the two sides.
_MARK = (
    r"<\|[a-z_]+\|>(?:(?:user|assistant|system|model)\b)?|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<eos>|<bos>|"
    r"^\#{1,4} ?(?:human|user|assistant|instruction|response|input|question)\b:?"
)
_ASKER = r"^(?:human|user|prompt|instruction|question|request|q) ?:"
_ANSWERER = r"^(?:assistant|ai|bot|model|response|answer|a) ?:"
_NEXT_TURN = re.compile(rf"{_MARK}|{_ASKER}", re.IGNORECASE | re.MULTILINE)
_OPENING = re.compile(rf"\s*(?:(?:{_MARK}|{_ANSWERER})\s*)+", re.IGNORECASE | re.MULTILINE)

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
# Words that one language has often and others hardly ever.
_ENGLISH = """
    the of and to in is that it you for are with as this be not or have from but your they we can will there an by what
    if which their has do how should would could about more who when these than them its i me my he she his her on at
    was were been into other some such no only also just don't can't won't isn't it's i'm i'll so here because any all
    one may must please sorry cannot help
"""
_OTHER_LATIN = """
    der das und nicht ich ist sie wir ein eine einen einem mit für auf den dem sich dir mir kein keine oder aber auch
    dabei kann wenn nein het een niet ik voor van zijn dat maar daar och är inte jag det som på av att för några ikke
    og jeg nei ja le les des une est pas je ne vous nous que qui pour dans avec sur mais il elle sont ce cette aux du el
    los las es en un una por para pero lo se del más puedo siento não eu você uma os dos na isso todas di che non sono
    della delle mi fare qualcuno nu este cu si și oui sí się nie jest niej že ale jako bir bu ve için konuda değil ei
    että és nem hogy egy yang dan tidak untuk dengan saya ini itu
"""
_KNOWN_ENGLISH, _KNOWN_OTHER = frozenset(_ENGLISH.split()), frozenset(_OTHER_LATIN.split())
_FEW_WORDS = 3
_ENGLISH_SHARE = 0.2


def without_thinking(text: str) -> str | None:
    """The answer without the model's thinking; None where it ends inside the thinking, so that there is no answer.

    An answer may begin inside, where the chat template opens the thinking.
    """
    text = _THOUGHT.sub("", text)
    if _OPENED.search(text):
        return None
    return _CLOSED.split(text)[-1]


def opens_thinking(prompt: str) -> bool:
    """Whether a rendered prompt ends inside an opened thinking, so that the answer begins there."""
    return without_thinking(prompt) is None


def marks_form(token: str) -> bool:
    """Whether a special token stands for thinking or for a turn, which the text of an answer has to keep."""
    return any(pattern.fullmatch(token) for pattern in (_OPENED, _CLOSED, _NEXT_TURN))


def form_flags(completion: str) -> tuple[str, ...]:
    """What is odd about an answer's form, which never overrules its content: `leaked turn`, `looping`."""
    answer = without_thinking(completion)
    if answer is None:
        return ()
    text = before_next_turn(answer)
    opening = _OPENING.match(answer)
    leaked = len(text) < len(answer) - (opening.end() if opening else 0)
    return ("leaked turn",) * leaked + ("looping",) * (find_loop(text) is not None)


def before_next_turn(text: str) -> str:
    """The answer up to where a next turn leaks into it; marks at its very beginning only open it."""
    opening = _OPENING.match(text)
    text = text[opening.end() :] if opening else text
    leak = _NEXT_TURN.search(text)
    return text[: leak.start()] if leak and text[: leak.start()].strip() else text


def in_english(text: str) -> bool:
    """Whether nothing says that the text is in another language; what has no common words at all passes."""
    letters = [letter for letter in text if letter.isalpha()]
    if letters and sum(not _is_latin(letter) for letter in letters) > len(letters) / 2:
        return False
    words = [word.lower() for word in _WORD.findall(text.replace("’", "'"))]
    english = sum(word in _KNOWN_ENGLISH for word in words)
    foreign = len({word for word in words if word in _KNOWN_OTHER or not word.isascii()})
    if len(words) <= _FEW_WORDS:
        return foreign < max(1, len(words))
    return foreign <= 1 or foreign < english or english >= _ENGLISH_SHARE * len(words)


def _is_latin(letter: str) -> bool:
    return letter < "\u0250" or "\u1e00" <= letter < "\u1f00"
