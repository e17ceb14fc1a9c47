"""How each role and arm is drawn: colour, mark and line, of which no two arms share all three.

Roles and the main arms have looks of their own; every other arm has one of its family (blocks, pushes, defences,
controls): a shade of the family's colour, a mark and a broken line. The project's own arms have fixed places in their
family. An arm of another name takes the place that its name says, or the next one that is free in this process, so
that it looks the same in every figure and like no other arm.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from probes.lineage import MIRROR


@dataclass(frozen=True)
class Mark:
    """How one role or arm is drawn everywhere: `symbol` in the plane, `solid` in space, where there are few."""

    colour: str
    symbol: str
    dash: str = "solid"
    width: float = 2.2
    solid: str = "circle"


MARKS: dict[str, Mark] = {
    "pretrained": Mark("#7F7F7F", "square", solid="square"),
    "witness": Mark("#E69F00", "diamond", solid="diamond"),
    "aligned": Mark("#0072B2", "circle"),
    "baseline": Mark("#D55E00", "circle"),
    "block": Mark("#009E73", "triangle-up", solid="diamond-open"),
    "push": Mark("#CC79A7", "pentagon", "dashdot"),
}
# Lengths without a common factor: counting all three on by one meets no look twice before their product.
_SYMBOLS = ("hexagon", "star", "cross", "triangle-down", "bowtie", "triangle-left", "hourglass", "star-diamond")
_SOLIDS = ("circle", "diamond", "cross", "square", "x", "circle-open", "square-open", "diamond-open")
_CONTROL_SYMBOLS = ("x", *_SYMBOLS[1:])
_DASHES = ("dot", "dashdot", "dash", "longdashdot", "longdash")
_SHADES = {
    "block": ("#009E73", "#2CA67F", "#00704F"),
    "push": ("#CC79A7", "#A8527F", "#B5649A"),
    "defence": ("#56B4E9", "#2F8AC4", "#6E8FD8"),
    "control": ("#ABABAB", "#8A8A8A", "#938A7C"),
}
_WIDTHS = {"control": 1.4}
_LOOKS = len(_SYMBOLS) * len(_DASHES) * 3
_KNOWN: dict[str, tuple[str, ...]] = {
    "block": (
        *(f"block:{name}" for name in ("mean", "signed", "cosine", "project", "budget", "subspace", "did", "answers")),
        *(f"block:{name}" for name in ("subspace-answers", "spared", "anchored", "rehearsed")),
    ),
    "push": (),
    "defence": (
        *("anchor", "anchor:answers", "kl", "rehearsal", "refusal-direction", "safe-lora", "steering", "caft"),
        *("restore", "restore:exact", "restore:along", "safety-direction", "interleaved", "inoculation"),
    ),
    "control": (
        *(f"control:{name}" for name in ("random", "covariance", "drift", "sham", "continued", "shuffled", "tokens")),
        *("control:text", MIRROR, "helpful", "control:harmless"),
        *(f"control:{name}:{draw}" for draw in range(10) for name in ("random", "covariance", "sham")),
    ),
}


class _Family:
    """The arms of one family and the place that each has taken."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._places = {arm: place for place, arm in enumerate(_KNOWN[name])}
        self._fixed = len(self._places)
        self._lock = threading.Lock()

    def look_of(self, arm: str) -> Mark:
        """The arm's look; a free one where it has none yet, as long as there are free ones."""
        with self._lock:
            if arm not in self._places:
                self._places[arm] = self._free_place(arm)
            return self._look(self._places[arm])

    def _free_place(self, arm: str) -> int:
        free = _LOOKS - self._fixed
        first = int.from_bytes(hashlib.sha256(arm.encode()).digest()[:4], "big") % free
        in_turn = [self._fixed + (first + further) % free for further in range(free)]
        occupied = set(self._places.values())
        return next((place for place in in_turn if place not in occupied), in_turn[0])

    def _look(self, place: int) -> Mark:
        shades, dash = _SHADES[self._name], _DASHES[place % len(_DASHES)]
        symbols = _CONTROL_SYMBOLS if self._name == "control" else _SYMBOLS
        index = place % len(symbols)
        width = _WIDTHS.get(self._name, 2.0)
        return Mark(shades[place % len(shades)], symbols[index], dash, width, _SOLIDS[index])


_FAMILIES = {name: _Family(name) for name in _KNOWN}
CONTROL = _FAMILIES["control"].look_of("control:random")


def mark_of(arm: str) -> Mark:
    """The look of a role or arm; arms of one process share none, up to 120 in a family."""
    return MARKS[arm] if arm in MARKS else _FAMILIES[family_of(arm)].look_of(arm)


def family_of(arm: str) -> str:
    """What an arm is kin to: block, push, control, and defence for all else."""
    stem = re.split("[:-]", arm, maxsplit=1)[0]
    if is_control(arm):
        return "control"
    return stem if stem in ("block", "push") else "defence"


def is_control(arm: str) -> bool:
    """Whether an arm is a control, the mirror or the positive control."""
    return arm.split(":", 1)[0] == "control" or arm in (MIRROR, "helpful")


def in_order(arms: Iterable[str]) -> list[str]:
    """Arms in the one order of every list: roles, baseline, blocks, pushes, defences, controls; each once."""
    known = list(MARKS)
    kin = {"block": known.index("block"), "push": known.index("push")}

    def rank(arm: str) -> tuple[int, bool, str]:
        if arm in MARKS:
            return known.index(arm), False, arm
        return kin.get(family_of(arm), len(known) + is_control(arm)), True, arm

    return sorted(set(arms), key=rank)
