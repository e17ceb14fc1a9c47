"""A measured run of tiny checkpoints, with every direction fitted, made once."""

from __future__ import annotations

import shutil

import pytest

from probes.lineage import Trajectory
from probes.store.settings import Settings
from probes.tasks.fit import fit_directions
from probes.tasks.measure import measure
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer
from tests.guard.lineages import lineage, prompts


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """Aligned, witness, and two fine-tuned checkpoints."""
    home = tmp_path_factory.mktemp("directions")
    history = lineage(home / "models")
    for step in (1, 2):
        model = move_weights(tiny_model(), seed=7 + step, scale=0.05 * step)
        save_checkpoint(home / "models" / "tuned" / f"checkpoint-{step}", model, tiny_tokenizer())
    history = history.with_trajectories((Trajectory.from_folder(home / "models" / "tuned"),))
    return measure(history, prompts(0), home / "run", settings=Settings(nulls=False, splits=5, bootstraps=20)).path


@pytest.fixture(scope="session")
def fitted(measured):
    """The same with directions; not to be written to."""
    fit_directions(measured)
    return measured


@pytest.fixture
def own(fitted, tmp_path):
    """A copy of the fitted run for one test alone; its models stay where they are."""
    shutil.copytree(fitted, tmp_path / "run")
    return tmp_path / "run"
