"""Which direction is selected, on every page that has one, and the tokens that it writes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from app import cache, components, state, tables
from app.components import Context
from probes.plots import style
from probes.prompts.tokens import visible

REVERSION = "reversion"


def direction_of(known: Sequence[str], first: str = "refusal") -> str:
    """The selected direction where it is among these; at first the refusal direction."""
    chosen = state.selection().direction
    return chosen if chosen in known else first if first in known else known[0]


def known_directions(run: Context) -> list[str]:
    """The fitted directions; a damaged table of theirs leaves the drift to be looked at."""
    with components.section():
        return cache.tracked_directions(run.key)
    return []


def other_than_reversion(known: Sequence[str]) -> str:
    """The selected direction; empty for the reversion, of which every run keeps the drift."""
    chosen = state.selection().direction
    return chosen if chosen in known and chosen != REVERSION else ""


def choose_direction(known: Sequence[str], direction: str, says: str = "", **also: str) -> None:
    """Choose one, for every page; what else is selected with it comes in `also`."""
    requested = state.selection().direction
    components.choose(
        "Direction",
        known,
        direction,
        lambda name: state.change(direction=name, **also),
        name="direction",
        help=says or None,
    )
    if requested and requested not in known:
        components.absent("direction", requested, direction)


def readout(run: Context, direction: str, checkpoint: str) -> None:
    """The tokens that a direction writes, and those that its opposite does, in the aligned model and a checkpoint."""
    if not cache.has_table(run.key, "direction_readout"):
        components.missing(
            "No tokens have been read out.",
            f"gravity-probe directions fit {run.command_path}",
            "That opens the checkpoints, which must not have been moved or deleted.",
        )
        return
    names = {"aligned": "aligned", checkpoint: components.checkpoint_name(checkpoint, run)}
    rows = cache.readout(run.key, run.layer, direction, tuple(names))
    if rows.empty:
        components.note(f"No tokens of {direction} were read out here: it may not be defined at this layer.")
        return
    columns = {}
    for checkpoint, name in names.items():
        for sign, mark in ((1, "+"), (-1, "−")):
            own = rows[(rows["checkpoint"] == checkpoint) & (rows["sign"] == sign)].sort_values("rank")
            if len(own):
                columns[f"{name}, {mark}"] = pd.Series(
                    [
                        f"{visible(text)}  {style.decimal(score, 1)}"
                        for text, score in zip(own["token"], own["score"], strict=True)
                    ]
                )
    components.note(
        f"Tokens that {direction} (+) and its opposite (−) raise most, through the final norm and the unembedding of "
        "each checkpoint, with their logit less the vocabulary's mean."
    )
    tables.data_table(pd.DataFrame(columns), name="readout")
