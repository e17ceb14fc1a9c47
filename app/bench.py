"""The one model that the app may hold: loaded when it is asked for, freed when asked, and when its page is left.

Nothing here is imported from a model library until a model is loaded; `probes.tasks.ask` does the work.
"""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING

import streamlit as st

from app.cache import Key
from probes.run import Run
from probes.store import Manifest

if TYPE_CHECKING:
    from probes.tasks.ask import Bench, Read

_LOADED = "live-loaded"


def is_loaded(key: Key) -> bool:
    """Whether this visitor has asked for the run's model."""
    return st.session_state.get(_LOADED) == key.path


def load(key: Key) -> None:
    """Ask for the run's model."""
    st.session_state[_LOADED] = key.path


def free() -> None:
    """Let go of the model and of what it said; does nothing where this visitor has loaded none."""
    if st.session_state.pop(_LOADED, None) is None:
        return
    _opened.clear()
    _read.clear()
    gc.collect()


def bench(key: Key, manifest: Manifest) -> Bench:
    """The model of a run.

    Raises:
        GravityError: it cannot be loaded.
    """
    return _opened(key.path, _made_of(manifest))


def read(
    key: Key,
    manifest: Manifest,
    checkpoint: str,
    direction: str,
    prompt: str,
    layer: int,
    coefficient: float,
    new_tokens: int,
) -> Read:
    """What a checkpoint does with a prompt; asked once for each choice.

    Raises:
        GravityError: the checkpoint cannot be loaded, or the prompt cannot be rendered.
    """
    return _read(key, manifest, _made_of(manifest), checkpoint, direction, prompt, layer, coefficient, new_tokens)


def _made_of(manifest: Manifest) -> str:
    """Changes when the run's checkpoints do, and not with every stage of a run that is still being written."""
    return json.dumps([manifest.lineage, manifest.checkpoints], sort_keys=True)


@st.cache_resource(show_spinner="Loading the model …", max_entries=1)
def _opened(path: str, made_of: str) -> Bench:  # noqa: ARG001 - a part of the key
    from probes.tasks.ask import Bench

    return Bench.open(Run(path))


@st.cache_data(show_spinner=False, max_entries=32)
def _read(
    key: Key,
    _manifest: Manifest,
    made_of: str,
    checkpoint: str,
    direction: str,
    prompt: str,
    layer: int,
    coefficient: float,
    new_tokens: int,
) -> Read:
    from probes.tasks.ask import Asked

    vectors = Run(key.path).direction(direction)
    return _opened(key.path, made_of).read(checkpoint, vectors, Asked(prompt, layer, coefficient, new_tokens))
