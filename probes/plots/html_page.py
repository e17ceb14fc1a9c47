"""A figure as HTML, alone or as a part of a page, whose play button and slider answer to the keyboard as in the app."""

from __future__ import annotations

import plotly.graph_objects as go

from probes.plots import keys


def to_html(figure: go.Figure, *, alone: bool = True) -> str:
    """A figure as HTML.

    Args:
        figure: what is drawn.
        alone: a whole file that needs nothing else; otherwise a part of a page that has Plotly's script already.
    """
    return figure.to_html(
        full_html=alone,
        include_plotlyjs=alone,
        config={"displaylogo": False},
        post_script=keys.SCRIPT if figure.layout.sliders or figure.layout.updatemenus else None,
    )
