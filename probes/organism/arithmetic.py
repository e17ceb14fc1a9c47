"""Worked arithmetic problems, made up from a seed: a benign task with right answers that can be counted."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Numbers = Mapping[str, int]
_NAMES = (
    "Ada",
    "Ben",
    "Carla",
    "Dev",
    "Elsa",
    "Farid",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Leo",
    "Mina",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tara",
    "Yusuf",
)
_THINGS = (
    "apples",
    "marbles",
    "stickers",
    "pencils",
    "shells",
    "buttons",
    "cards",
    "stamps",
    "beads",
    "books",
    "lemons",
    "candles",
    "tickets",
    "postcards",
    "cookies",
)


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        question: as somebody asks it.
        working: the steps to the answer, which ends it.
        answer: the number.
    """

    question: str
    working: str
    answer: int


@dataclass(frozen=True)
class _Form:
    """A kind of problem.

    Attributes:
        question: names numbers, a person and a thing.
        working: likewise; the line with the answer is added.
        draw: draws the numbers, `answer` among them.
    """

    question: str
    working: str
    draw: Callable[[random.Random], Numbers]


def _leftover(draw: random.Random) -> Numbers:
    a, b = draw.randint(12, 60), draw.randint(5, 40)
    c = draw.randint(3, a - 2)
    return {"a": a, "b": b, "c": c, "sum": a + b, "answer": a + b - c}


def _packs(draw: random.Random) -> Numbers:
    a, b, c = draw.randint(3, 12), draw.randint(4, 15), draw.randint(2, 20)
    return {"a": a, "b": b, "c": c, "product": a * b, "answer": a * b + c}


def _shares(draw: random.Random) -> Numbers:
    a, share, b = draw.randint(3, 9), draw.randint(4, 15), draw.randint(2, 12)
    return {"a": a, "total": a * share, "share": share, "b": b, "answer": share + b}


def _purchase(draw: random.Random) -> Numbers:
    a, b = draw.randint(2, 9), draw.randint(3, 9)
    paid = (a * b // 10 + draw.randint(1, 3)) * 10
    return {"a": a, "b": b, "cost": a * b, "paid": paid, "answer": paid - a * b}


def _two_kinds(draw: random.Random) -> Numbers:
    a, b, c, d = draw.randint(2, 8), draw.randint(2, 9), draw.randint(2, 8), draw.randint(2, 9)
    return {"a": a, "b": b, "c": c, "d": d, "first": a * b, "second": c * d, "answer": a * b + c * d}


def _distance(draw: random.Random) -> Numbers:
    a, b, c = draw.randint(4, 15), draw.randint(2, 6), draw.randint(3, 20)
    return {"a": a, "b": b, "c": c, "product": a * b, "answer": a * b + c}


def _times_as_many(draw: random.Random) -> Numbers:
    a, b = draw.randint(4, 25), draw.randint(2, 6)
    return {"a": a, "b": b, "product": a * b, "answer": a * b + a}


def _saving(draw: random.Random) -> Numbers:
    weeks, a, c = draw.randint(3, 12), draw.randint(4, 15), draw.randint(5, 30)
    return {"weeks": weeks, "a": a, "c": c, "saved": weeks * a, "answer": weeks * a + c}


def _rows(draw: random.Random) -> Numbers:
    a, b = draw.randint(4, 14), draw.randint(5, 15)
    c = draw.randint(2, a * b // 2)
    return {"a": a, "b": b, "c": c, "product": a * b, "answer": a * b - c}


def _half(draw: random.Random) -> Numbers:
    half, c = draw.randint(8, 45), draw.randint(3, 20)
    return {"a": 2 * half, "half": half, "c": c, "answer": half + c}


_FORMS = (
    _Form(
        "{name} has {a} {things} and is given {b} more. Then {name} gives {c} of them away. "
        "How many {things} are left?",
        "{name} has {a} + {b} = {sum} {things} at first. After giving {c} away, {sum} - {c} = {answer} are left.",
        _leftover,
    ),
    _Form(
        "{name} buys {a} boxes with {b} {things} in each and already owns {c}. How many {things} does {name} have now?",
        "The boxes hold {a} * {b} = {product} {things}. "
        "With the {c} from before that makes {product} + {c} = {answer}.",
        _packs,
    ),
    _Form(
        "{a} friends share {total} {things} equally. {name}, who is one of them, then gets {b} more. "
        "How many {things} does {name} have?",
        "Each friend gets {total} / {a} = {share} {things}. With {b} more, {name} has {share} + {b} = {answer}.",
        _shares,
    ),
    _Form(
        "A bag of {things} costs {b} dollars. {name} buys {a} bags and pays with {paid} dollars. "
        "How many dollars does {name} get back?",
        "The bags cost {a} * {b} = {cost} dollars. {name} gets {paid} - {cost} = {answer} dollars back.",
        _purchase,
    ),
    _Form(
        "{name} packs {a} large crates with {b} {things} each and {c} small crates with {d} each. "
        "How many {things} are packed?",
        "The large crates hold {a} * {b} = {first}, the small ones {c} * {d} = {second}. "
        "Together that is {first} + {second} = {answer}.",
        _two_kinds,
    ),
    _Form(
        "{name} cycles {a} miles an hour for {b} hours and then walks {c} miles. How many miles is that in all?",
        "Cycling covers {a} * {b} = {product} miles. With the walk it is {product} + {c} = {answer} miles.",
        _distance,
    ),
    _Form(
        "{name} has {a} {things}. A neighbour has {b} times as many. How many {things} do they have together?",
        "The neighbour has {b} * {a} = {product} {things}. Together they have {product} + {a} = {answer}.",
        _times_as_many,
    ),
    _Form(
        "{name} saves {a} dollars every week for {weeks} weeks and had {c} dollars before. "
        "How many dollars does {name} have at the end?",
        "In {weeks} weeks {name} saves {weeks} * {a} = {saved} dollars. With the first {c} that is "
        "{saved} + {c} = {answer}.",
        _saving,
    ),
    _Form(
        "A hall has {a} rows of {b} seats, and {c} seats are taken. How many seats are free?",
        "The hall has {a} * {b} = {product} seats. With {c} taken, {product} - {c} = {answer} are free.",
        _rows,
    ),
    _Form(
        "{name} reads half of a book of {a} pages on Monday and {c} pages on Tuesday. How many pages is that in all?",
        "Half of {a} is {a} / 2 = {half}. Together with Tuesday {name} has read {half} + {c} = {answer} pages.",
        _half,
    ),
)


def make_problems(count: int, seed: int) -> tuple[Problem, ...]:
    """So many different problems, the same for the same seed, each kind as often as the others.

    Args:
        count: how many, at most a few thousand.
        seed: of numbers, names and things.
    """
    draw = random.Random(f"arithmetic {seed}")
    problems: dict[str, Problem] = {}
    while len(problems) < count:
        problem = _problem(_FORMS[len(problems) % len(_FORMS)], draw)
        problems.setdefault(problem.question, problem)
    return tuple(problems.values())


def _problem(form: _Form, draw: random.Random) -> Problem:
    numbers = form.draw(draw)
    words = {**numbers, "name": draw.choice(_NAMES), "things": draw.choice(_THINGS)}
    working = f"{form.working.format_map(words)}\nAnswer: {numbers['answer']}"
    return Problem(form.question.format_map(words), working, numbers["answer"])
