"""Draw the figures of README and documentation again from the shipped run: `python data/docs/figures.py`.

Plotly draws in Debian's Chromium (`pip install -e '.[test]'` brings its driver); one SVG a figure, into `img/`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import plotly.graph_objects as go
from playwright.sync_api import sync_playwright

from probes.plots.trajectories import plane
from probes.run import Run

HERE = Path(__file__).parent
ARMS = ("aligned", "witness", "baseline", "block", "push", "control:random")
WIDTH = 960


def trajectories(run: Run) -> go.Figure:
    """Return fraction against the whole off-axis length, arm by arm, at the headline layer."""
    rows = run.drift(layer=run.headline_layer)
    rows = rows[rows["statistic"].isin(["return_fraction", "off_axis"]) & rows["arm"].isin(ARMS)]
    places = rows.pivot_table(index=["arm", "seed", "step"], columns="statistic", values="value").reset_index()
    places = places.rename(columns={"return_fraction": "along", "off_axis": "across"})
    return plane(places, subtitle=f"{run.manifest.name} · layer {run.headline_layer}", whole=True)


def main() -> None:
    """Write every figure."""
    run = Run(HERE.parent / "demo-run")
    figures = {"trajectories": trajectories(run)}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH + 16, "height": 800})  # the body has a margin of 8
        page.evaluate("let s = 1; Math.random = () => (s = s * 16807 % 2147483647) / 2147483647")  # Plotly's ids
        for name, figure in figures.items():
            page.set_content(figure.to_html(include_plotlyjs=True))
            image = page.evaluate(
                "size => Plotly.toImage(document.querySelector('.plotly-graph-div'), {format: 'svg', ...size})",
                {"width": WIDTH, "height": figure.layout.height},
            )
            (HERE / "img" / f"{name}.svg").write_text(unquote(image.partition(",")[2]) + "\n", encoding="utf-8")
        browser.close()


if __name__ == "__main__":
    main()
