"""Which prompts are selected: kept on every page, and in the address as `selected`, by their ids and compactly.

A few prompts stand there by the shortest beginning of their ids that tells all prompts of the run apart; many as one
bit each over the run's sorted ids, behind a check of those ids, so that a link to other prompts is noticed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from urllib.parse import quote, unquote

import numpy as np
import streamlit as st

from app import cache, components, state
from app.cache import Key
from app.components import Context

NAME = "selected"
_FEW, _LEAST, _BITS = 40, 5, "bits:"


@st.cache_data(show_spinner=False, max_entries=16)
def known_ids(key: Key) -> tuple[str, ...]:
    """The probe prompts' ids in the run's order; none where they are not kept."""
    return () if not cache.has_table(key, "prompts") else tuple(cache.table(key, "prompts", ("id",))["id"])


def prompts(run: Context) -> tuple[str, ...]:
    """Ids of the selected prompts that the run has, in the run's order."""
    return decode(state.view(NAME), known_ids(run.key))[0]


def choose(run: Context, ids: Iterable[str]) -> None:
    """Select prompts instead of those that are selected, none for none; the address says so at once."""
    state.change_view(NAME, encode(ids, known_ids(run.key)))
    state.forget_unread()
    state.write_url()


def encode(ids: Iterable[str], known: Sequence[str]) -> str:
    """Prompts as they stand in the address."""
    chosen, every = set(ids) & set(known), sorted(known)
    if len(chosen) > _FEW:
        bits = np.packbits([prompt in chosen for prompt in every]).tobytes()
        return f"{_BITS}{_check(every)}:{base64.urlsafe_b64encode(bits).decode().rstrip('=')}"
    length = _telling_length(every)
    return ",".join(quote(prompt[:length], safe="") for prompt in every if prompt in chosen)


def decode(text: str, known: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The prompts that an address names, in the order of `known`, and what it names that is none of them."""
    if text.startswith(_BITS):
        chosen, absent = _read_bits(text, sorted(known))
    else:
        chosen, absent = set(), []
        for part in filter(None, map(unquote, text.split(","))):
            matches = [prompt for prompt in known if prompt.startswith(part)]
            if len(matches) == 1 or part in matches:
                chosen.add(part if part in matches else matches[0])
            else:
                absent.append(part)
    return tuple(prompt for prompt in known if prompt in chosen), tuple(absent)


def note(run: Context) -> tuple[str, ...]:
    """Say how many prompts are selected, with a button that selects none, and what the address names in vain."""
    chosen, absent = decode(state.view(NAME), known_ids(run.key))
    if absent:
        components.absent(NAME, ", ".join(absent)[:80], f"{len(chosen)} prompts")
    if chosen:
        left, right = st.columns([4, 1], vertical_alignment="center")
        with left:
            components.note(f"{count(len(chosen))} of {len(known_ids(run.key)):,} selected.")
        right.button("Clear", key="clear-selected", type="tertiary", on_click=choose, args=(run, ()))
    return chosen


def count(number: int) -> str:
    """How many prompts, in words."""
    return "1 prompt" if number == 1 else f"{number:,} prompts"


def _telling_length(every: Sequence[str]) -> int:
    longest = max(map(len, every), default=0)
    return next(
        (length for length in range(_LEAST, longest) if len({prompt[:length] for prompt in every}) == len(every)),
        longest,
    )


def _check(every: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(every).encode()).hexdigest()[:6]


def _read_bits(text: str, every: Sequence[str]) -> tuple[set[str], list[str]]:
    check, _, mask = text.removeprefix(_BITS).partition(":")
    try:
        bits = np.unpackbits(np.frombuffer(base64.urlsafe_b64decode(mask + "=" * (-len(mask) % 4)), dtype=np.uint8))
    except (binascii.Error, ValueError):
        bits = np.zeros(0, dtype=np.uint8)
    if check != _check(every) or not len(every) <= len(bits) < len(every) + 8:
        return set(), ["prompts of another run"]
    return {prompt for prompt, bit in zip(every, bits, strict=False) if bit}, []
