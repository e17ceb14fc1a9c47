"""Draw the figures of README and documentation again from the shipped run: `python data/docs/figures.py`.

They are pictures of the gallery, as `gravity-probe report data/demo-run --figures FOLDER` draws them; the SVGs go into
`img/`. A Chromium draws them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from probes.run import Run
from probes.tasks.gallery import write_gallery

HERE = Path(__file__).parent
SHOWN = ("trajectories", "well")


def main() -> None:
    """Write every figure."""
    with tempfile.TemporaryDirectory() as folder:
        write_gallery(Run(HERE.parent / "demo-run"), Path(folder))
        for name in SHOWN:
            shutil.copy(Path(folder) / f"{name}.svg", HERE / "img" / f"{name}.svg")


if __name__ == "__main__":
    main()
