"""The well step by step: the frames of an animation, all in the same limits."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from probes.lineage import ROLES
from probes.plots.style import InkName
from probes.plots.well import contour


def step_by_step(
    prompts: pd.DataFrame, paths: pd.DataFrame, *, subtitle: str, witness: str = "witness", ink: InkName = "light"
) -> list[go.Figure]:
    """The well as `contour` draws it, with the paths as far as each step."""
    steps = sorted({int(step) for step in paths[~paths["arm"].isin(ROLES)]["step"]})
    return [
        contour(prompts, paths, subtitle=f"{subtitle} · step {step:,}", witness=witness, until=step, ink=ink)
        for step in steps
    ]
