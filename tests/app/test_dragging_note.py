"""Under a picture of many points it is said that it moves as it was drawn while it is dragged; under no other."""

import pytest
from streamlit.testing.v1 import AppTest


@pytest.mark.parametrize(
    ("points", "panels", "modes", "is_said"),
    [
        (40_001, 1, ("toImage", "pan2d"), True),
        (40_000, 1, ("toImage", "pan2d"), False),
        (40_001, 2, ("toImage", "pan2d"), False),
        (40_001, 1, ("toImage",), False),
    ],
)
def test_it_is_said_where_a_drag_moves_what_was_drawn(points, panels, modes, is_said):
    def script(points, panels, modes):
        import numpy as np
        import pandas as pd

        from app import cache, charts, components, state
        from probes.plots.sheet import Sheet

        state.read_url()
        key = cache.Key("/runs/demo", "0")
        components.keep(components.Context(key, None, None, "baseline", 0, 1, 0, "light"))
        sheet = Sheet.grid(1, panels, [""] * panels)
        places = np.arange(points)
        sheet.add("scattergl", row=1, col=1, x=places, y=places, customdata=places.astype(str).tolist())
        charts.chart(sheet, pd.DataFrame({"x": [1]}), name="map", alt="a map", modes=modes)

    at = AppTest.from_function(script, args=(points, panels, modes), default_timeout=60).run()
    assert not at.exception
    words = " ".join(element.proto.body for element in at.get("html"))
    assert ("moves as it was drawn" in words) == is_said
