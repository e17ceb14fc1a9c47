"""The page Layers shows BaRA's ranks beside the map of the return."""

import pandas as pd

from probes.run import Run
from tests.synthetic import write_run

ACTIVE_RANKS = "active_ranks"


def test_the_page_shows_them_where_the_chosen_checkpoint_has_them(tmp_path, visit):
    path = write_run(tmp_path / "demo", n_layers=3, steps=(1, 100), prompts=6, directions=("reversion",), d_model=8)
    rows = [
        {
            **{"checkpoint": "baseline-s0-000100", "arm": "baseline", "seed": 0, "step": 100, "layer": layer},
            **{"module": f"model.layers.{layer}.self_attn.q_proj", "terms": 8, "open": 5.0},
            **{"harmful": 3.0, "harmless": 2.5, "difference": 0.5},
        }
        for layer in range(3)
    ]
    with Run.writing(path) as writing, writing.stage(ACTIVE_RANKS, "test"):
        writing.write_table(ACTIVE_RANKS, pd.DataFrame(rows))
    charts = {}
    for step in (1, 100):
        at = visit("layers", {"step": str(step)}, run=path)
        charts[step] = len(at.get("plotly_chart"))
        assert ("Ranks of the adapter, step 100" in [header.value for header in at.header]) == (step == 100)
    assert charts[100] == charts[1] + 2
    words = " ".join(element.proto.body for element in at.get("html"))
    assert "3.00 terms are active on harmful prompts and 2.50 on harmless ones, of 8.0" in words
