"""What every format of vector files offers, and what none of them may do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from probes.directions.vectors import Vectors
from probes.errors import UsageError


class DamagedDocumentError(UsageError, ValueError):
    """JSON or text inside a vector file that cannot be read; whoever knows what was expected says so."""


class Format:
    """One format of vector files.

    Attributes:
        name: as on the command line.
        says: which place block l has in it, for the user.
        suffix: of its file; empty where it is a folder.
        one_layer: whether it holds a single layer.
        read_only: whether it is never written.
        is_whole: whether its vectors have their own length, and not length 1 with the length beside them.
    """

    name: ClassVar[str]
    says: ClassVar[str]
    suffix: ClassVar[str] = ""
    one_layer: ClassVar[bool] = False
    read_only: ClassVar[bool] = False
    is_whole: ClassVar[bool] = False

    def whole(self) -> Format:
        """The same format with whole vectors in place of unit vectors.

        Raises:
            UsageError: it has the lengths beside unit vectors, and nothing else.
        """
        if self.is_whole:
            return self
        raise UsageError(
            f"{self.name} files hold unit vectors with their lengths beside them", next_step="Leave --raw out."
        )

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write a direction to the file or folder `out`, which is not there yet.

        Returns:
            What the format could not take, in sentences.

        Raises:
            UsageError: the direction does not fit the format.
        """
        raise NotImplementedError

    def recognises(self, path: Path) -> bool:
        """Whether a file looks like one of these, by its name, its first bytes, or what can be loaded without code."""
        raise NotImplementedError

    def read(self, path: Path, name: str) -> Vectors:
        """Read a file that this tool or another one wrote.

        Raises:
            UsageError: it is none of these, is damaged, or wants to run code.
        """
        raise NotImplementedError


def describe(vectors: Vectors) -> dict[str, str]:
    """What a file says of its vectors, all strings: everything known, and the place in any case."""
    place = {
        "hook": "blocks.{l}.hook_resid_post",
        "site": "resid_post",
        "index_base": "0",
        "n_layers": "",
        "final_norm_included": "false",
    }
    return {**place, **vectors.about, "name": vectors.name, "layers": json.dumps(list(vectors.layers))}


def recover(about: Mapping[str, str]) -> dict[str, str]:
    """The description of a file without what `Vectors` keeps in fields of its own."""
    return {key: str(value) for key, value in about.items() if key not in ("name", "layers")}


def beside(path: Path) -> Path:
    """Where a format without room for a description keeps it."""
    return path.with_suffix(".about.json")


def refusal(path: Path, why: object, expected: str) -> UsageError:
    """The error of a file that is not what it must be."""
    lines = str(why).strip().splitlines()
    return UsageError(
        f"{path} cannot be read as a direction", got=lines[0] if lines else type(why).__name__, expected=expected
    )


def digits(value: np.floating) -> str:
    """A number as text, with as many digits as bring it back exactly."""
    return np.format_float_scientific(value, unique=True, trim="-")
