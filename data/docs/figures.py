"""Draw the figures of README and documentation again from the shipped runs: `python data/docs/figures.py`.

They are pictures of the gallery, as `gravity-probe report RUN --figures FOLDER` draws them; the SVGs go into `img/`. A
Chromium draws them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from probes.run import Run
from probes.tasks.gallery import write_gallery

HERE = Path(__file__).parent
SHOWN = {"demo-run": {"trajectories": "trajectories", "well": "well"}, "smollm2-run": {"well": "smollm2-well"}}


def main() -> None:
    """Write every figure."""
    for run, names in SHOWN.items():
        with tempfile.TemporaryDirectory() as folder:
            write_gallery(Run(HERE.parent / run), Path(folder))
            for picture, name in names.items():
                shutil.copy(Path(folder) / f"{picture}.svg", HERE / "img" / f"{name}.svg")


if __name__ == "__main__":
    main()
