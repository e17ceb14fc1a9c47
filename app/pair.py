"""The two checkpoints that are compared, `one` and `other` in the address, on every page that sets two side by side."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import components, state
from app.components import Context
from probes.lineage import ROLES


def checkpoints(run: Context) -> dict[str, str]:
    """Every checkpoint of the run and its arm, roles first."""
    arms: dict[str, str] = {role: role for role in ROLES if role in _roles(run)}
    for (arm, _, _), name in sorted(run.catalogue.checkpoints.items(), key=lambda entry: _rank(run, entry[0])):
        arms[name] = arm
    return arms


def current_pair(run: Context) -> tuple[str, str]:
    """The chosen two; at first the aligned model and the selected checkpoint."""
    places, selection = checkpoints(run), state.selection()
    first = selection.first if selection.first in places else "aligned" if "aligned" in places else next(iter(places))
    return first, selection.second if selection.second in places else run.checkpoint


def names(run: Context, pair: tuple[str, str]) -> tuple[str, str]:
    """Both in words."""
    return components.checkpoint_name(pair[0], run), components.checkpoint_name(pair[1], run)


def controls(run: Context) -> None:
    """Choose both, and say what the address asks for in vain."""
    places, pair = checkpoints(run), current_pair(run)
    fields = (("First", "first", "one"), ("Second", "second", "other"))
    for column, (label, field, name), current in zip(st.columns(2), fields, pair, strict=True):
        with column:
            components.choose(
                label,
                list(places),
                current,
                partial(_choose, field),
                name=name,
                format_func=lambda checkpoint: components.checkpoint_name(checkpoint, run),
            )
            requested = getattr(state.selection(), field)
            if requested and requested not in places:
                components.absent(name, requested, components.checkpoint_name(current, run))


def _choose(field: str, checkpoint: str) -> None:
    state.change(**{field: checkpoint})


def _roles(run: Context) -> set[str]:
    known = set(run.manifest.checkpoints) or {"aligned", "witness"}
    return known & set(ROLES)


def _rank(run: Context, place: tuple[str, int, int]) -> tuple[int, int]:
    return run.catalogue.trajectories.index(place[:2]), place[2]
