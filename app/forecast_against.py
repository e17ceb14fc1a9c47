"""On the page Trajectories: the forecast that was made of a training, against what came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import cache, cached_figures, charts, components
from app.cache import Key
from app.components import Context
from probes.plots import return_forecast, style
from probes.plots.style import InkName

_FORECAST = "forecast"


def show(run: Context) -> None:
    """How many returns of the selected arm lie within the forecast's interval, and the picture; nothing without one."""
    document = cache.document(run.key, _FORECAST)
    if document is None:
        return
    st.header("Forecast and what came", anchor=False)
    calibration, layer = document["calibration"], int(document["layer"])
    if calibration is None:
        components.note(f"The forecast of this training gave ranks alone: {document['why_ranks']}.")
        return
    rows = _rows(run.key, layer, run.arm)
    if rows.empty:
        components.note(f"The forecast was made at {components.layer_name(layer)}, where {run.arm} has no return.")
        return
    components.paragraph(_sentence(rows, calibration))
    subtitle = f"{run.subtitle(layer=False)} · {components.layer_name(layer)}"
    figure = cached_figures.figure(_figure, run.key, layer, run.arm, subtitle, run.ink)
    charts.chart(figure, rows, name="forecast", alt=f"Forecast return by step with its interval, and {run.arm}'s")


def _rows(key: Key, layer: int, arm: str) -> pd.DataFrame:
    drift = cache.drift(key, layer)
    chosen = (drift["arm"] == arm) & (drift["statistic"] == "return_fraction") & (drift["step"] > 0)
    return drift[chosen][["seed", "step", "value"]].dropna()


def _figure(key: Key, layer: int, arm: str, subtitle: str, ink: InkName) -> go.Figure:
    calibration = cache.document(key, _FORECAST)["calibration"]
    return return_forecast.return_forecast(_rows(key, layer, arm), calibration, arm=arm, subtitle=subtitle, ink=ink)


def _sentence(rows: pd.DataFrame, calibration: dict[str, Any]) -> str:
    """How many returns lie within the interval as it is drawn, straight between its steps; when the alarm rang."""
    forecast = pd.DataFrame(calibration["return_by_step"])
    known = rows[rows["step"].between(forecast["step"].min(), forecast["step"].max())]
    low, high = (np.interp(np.log(known["step"]), np.log(forecast["step"]), forecast[end]) for end in ("low", "high"))
    inside, later = int(known["value"].between(low, high).sum()), len(rows) - len(known)
    beyond = f" (not forecast, at later steps: {later})" if later else ""
    alarm = style.decimal(calibration["alarm"])
    rang = rows[rows["value"] >= calibration["alarm"]]["step"].min()
    came = "it has not been reached" if pd.isna(rang) else f"a measured return first reached it at step {int(rang):,}"
    foreseen = calibration["alarm_step"]
    expected = "was not expected" if foreseen is None else f"was expected at step {foreseen:,}"
    return (
        f"{inside} of {len(known)} measured returns lie within the interval{beyond}. "
        f"The alarm at {alarm} {expected}; {came}. "
        f"Forecast from {calibration['runs']} {calibration.get('of', 'runs')} up to step {calibration['last_step']:,}."
    )
