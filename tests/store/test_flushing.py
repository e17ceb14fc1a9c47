"""What is written is on the disk before it takes its place; a disk that refuses leaves what was there.

The rest of the suite does not wait for the disk; these tests do.
"""

import errno
import os

import numpy as np
import pytest

from probes.store import ActivationWriter
from probes.store.atomic import place_beside, write_json
from tests.conftest import REAL_FSYNC


@pytest.fixture
def flushed(monkeypatch):
    """The names of the files that were flushed, really, in their order."""
    names = []

    def flush(number):
        REAL_FSYNC(number)
        names.append(os.readlink(f"/proc/self/fd/{number}"))

    monkeypatch.setattr(os, "fsync", flush)
    return names


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux says which file a number is")
def test_a_file_is_flushed_before_it_takes_its_place(tmp_path, flushed):
    write_json(tmp_path / "a.json", [1])
    assert flushed == [str(place_beside(tmp_path / "a.json"))]
    with ActivationWriter(tmp_path / "b.safetensors", (1, 2, 3), dtype="float32", about={}) as writer:
        for layer in (-1, 0):
            writer.write(layer, [0, 1], np.ones((2, 3), dtype=np.float32))
    assert len(flushed) > 1
    assert all(name != str(tmp_path / "b.safetensors") for name in flushed)


def test_a_file_that_cannot_be_flushed_leaves_the_one_before(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", [1])

    def refuse(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        write_json(tmp_path / "a.json", [2])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "[\n 1\n]\n"
