"""Where this user's caches are."""

from __future__ import annotations

import os
from pathlib import Path

from probes.store.remote.bucket import whole_url


def cache_folder() -> Path:
    """The folder of Gravity Probe in the user's cache: in `XDG_CACHE_HOME`, else in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "gravity-probe"


def mirror_folder(url: str) -> Path:
    """Where the mirror of a URL lies, whether or not it is there: by the URL's own path."""
    protocol, _, path = whole_url(url).partition("://")
    return cache_folder() / "remote" / protocol / path
