"""NumPy's files of arrays, whose headers and archives fail in many ways when they are damaged."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

# A header is Python's text of a dictionary, which NumPy reads with Python's own parser; an archive is a zip file, whose
# damaged flags ask for passwords and for methods that there are not.
_FAULTS = (
    *(ValueError, KeyError, OSError, EOFError, TypeError, SyntaxError, OverflowError, RuntimeError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` by name, or that of an `.npy` under no name; pickled objects are refused.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded.items())
    except _FAULTS as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
