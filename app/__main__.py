"""The front end's server: `python -m app [OPTIONS OF STREAMLIT] -- [ROOT]`.

What pages are made of is imported while the server starts, not when the first of them is asked for. What is loaded by
then is no garbage, and is not looked through when Streamlit collects that: after every run of a page, before its last
parts are sent.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from pathlib import Path
from threading import Thread

_SLOW = ("probes.nulls", "probes.run", "probes.plots.well", "pandas.io.formats.style")


def _load_ahead() -> None:
    for name in _SLOW:
        import_module(name)
    gc.collect()
    gc.freeze()


def main() -> None:
    """Become Streamlit."""
    Thread(target=_load_ahead).start()
    from streamlit.web.cli import main as streamlit

    sys.argv[1:1] = ["run", str(Path(__file__).with_name("main.py"))]
    streamlit(prog_name="streamlit")


if __name__ == "__main__":
    main()
