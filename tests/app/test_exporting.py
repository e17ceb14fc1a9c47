"""What the page hands out is what the command writes, and reads back as the direction of the run."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import streamlit as st

from app import exporting
from app.cache import Key
from probes.directions.vectors import Vectors
from probes.errors import GravityError
from probes.exchange import FORMATS, read_vectors
from tests import processes
from tests.synthetic import write_run

LAYER = 1
BY_THE_PAGE = ("safetensors", "refusal-direction")  # a file and a folder; the rest is the same command in a fork


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "demo"
    st.cache_data.clear()
    write_run(path, n_layers=3, steps=(1, 10), arms=("baseline",), prompts=4, directions=("refusal", "control:drift"))
    return Key(str(path), "as it is")


@pytest.fixture(scope="module")
def expected(key):
    return Vectors.read(Path(key.path) / "directions" / "refusal.safetensors")


def test_every_format_of_the_command_is_offered():
    assert set(exporting.FORMATS) == set(FORMATS) - {"gguf-cvector", "vector"}  # which are only read
    assert set(exporting.ONE_LAYER) == {name for name, form in FORMATS.items() if form.one_layer}


def run_as_fork(words, **_):
    """The page's command in a fork that has loaded the libraries, not in an interpreter that has yet to load them."""
    return processes.run(processes.gravity_probe, *words[3:])


@pytest.mark.parametrize("form", exporting.FORMATS)
def test_what_is_downloaded_is_loaded_back(key, expected, tmp_path, form, monkeypatch):
    if form not in BY_THE_PAGE:
        monkeypatch.setattr(exporting.subprocess, "run", run_as_fork)
    export = exporting.write_export(key, "refusal", form, LAYER if form in exporting.ONE_LAYER else None, "aligned")
    assert export.remarks[0]
    place = tmp_path / export.name
    if export.name.endswith(".zip"):
        place = tmp_path / "unpacked"
        zipfile.ZipFile(io.BytesIO(export.content)).extractall(place)
    else:
        place.write_bytes(export.content)
    inside = [place, *sorted(place.rglob("*"))]
    back, _ = read_vectors(next(path for path in inside if FORMATS[form].recognises(path)), "refusal", form)
    assert LAYER in back.layers
    for layer in back.layers:
        loaded, own = back.at(layer)[0], expected.at(layer)[0]
        assert np.allclose(loaded, own, atol=1e-5)


def test_a_refusal_of_the_command_is_its_sentence(key):
    with pytest.raises(GravityError, match="no direction 'nobody'"):
        exporting.write_export(key, "nobody", "npz", None, "aligned")
