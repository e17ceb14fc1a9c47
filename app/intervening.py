"""What a direction does to answers, and what moving along the reversion does, for Directions and Overview."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from app import cache, cached_figures, charts, components
from app.cache import Key
from app.components import Context
from probes.plots import answers, style
from probes.plots.style import InkName


def panel(run: Context, checkpoint: str, direction: str) -> None:
    """What the direction does to behaviour, and what moving along the reversion does, where that was tried."""
    with components.section():
        _effects(run, checkpoint, direction)
    with components.section():
        mediation(run, checkpoint)


def _effects(run: Context, checkpoint: str, direction: str) -> None:
    filters = (("direction", "==", direction),)
    rows = cache.table(run.key, "effects", None, filters) if cache.has_table(run.key, "effects") else pd.DataFrame()
    if rows.empty:
        components.missing(
            f"The effect of {direction} on answers has not been measured in this run.",
            f"gravity-probe directions effect {run.command_path} --direction {direction}",
        )
        return
    tried = list(rows["checkpoint"].unique())
    chosen = checkpoint if checkpoint in tried else tried[-1]
    own = rows[rows["checkpoint"] == chosen]
    layers = ", ".join(str(layer) for layer in sorted(own["layer"].unique()))
    words = components.checkpoint_name(chosen, run)
    subtitle = f"{run.subtitle(layer=False, direction=False)} · {style.plain(words)} · layer {style.plain(layers)}"
    figure = cached_figures.figure(_effects_figure, run.key, direction, chosen, _arm(run, chosen), subtitle, run.ink)
    charts.chart(figure, own, name="effects", alt="Answers with the direction ablated and added")


def _effects_figure(key: Key, direction: str, checkpoint: str, arm: str, subtitle: str, ink: InkName) -> go.Figure:
    rows = cache.table(key, "effects", None, (("direction", "==", direction), ("checkpoint", "==", checkpoint)))
    return answers.effects(rows, direction=direction, arm=arm, subtitle=subtitle, ink=ink)


def _arm(run: Context, checkpoint: str) -> str:
    places = {name: arm for (arm, _, _), name in run.catalogue.checkpoints.items()}
    return places.get(checkpoint, checkpoint)


def mediation(run: Context, checkpoint: str) -> None:
    """Answers with and without the motion along the reversion, at the selected checkpoint or where it was run."""
    if not cache.has_table(run.key, "mediation"):
        components.missing(
            "The mediation test along the reversion has not been run.",
            f"gravity-probe directions mediate {run.command_path}",
        )
        return
    tried = list(cache.table(run.key, "mediation", ("checkpoint",))["checkpoint"].unique())
    chosen = checkpoint if checkpoint in tried else tried[-1]
    rows = cache.table(run.key, "mediation", None, (("checkpoint", "==", chosen),))
    words = components.checkpoint_name(chosen, run)
    arm = _arm(run, chosen)
    figure = cached_figures.figure(
        _mediation_figure,
        run.key,
        chosen,
        arm,
        f"{run.subtitle(layer=False, direction=False)} · {style.plain(words)}",
        run.ink,
    )
    charts.chart(figure, rows, name="mediation", alt="Answers with and without the motion along the reversion")
    if chosen != checkpoint:
        components.note(f"It was run at {words}, not at the selected checkpoint.")


def _mediation_figure(key: Key, checkpoint: str, arm: str, subtitle: str, ink: InkName) -> go.Figure:
    rows = cache.table(key, "mediation", None, (("checkpoint", "==", checkpoint),))
    return answers.mediation(rows, arm=arm, subtitle=subtitle, ink=ink)
