"""Spectra and maps: laws of the numbers, planted clouds that must be found, and the command.

UMAP is compiled once a process, in twenty seconds: no other file draws a map by it.
"""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from probes.cli import app
from probes.drift.comparison import gram
from probes.drift.geometry import PromptMap, spectrum
from probes.errors import StatisticsError
from probes.run import Run
from tests.synthetic import write_run


@pytest.fixture
def cloud():
    """Three clusters in 20 dimensions."""
    rng = np.random.default_rng(0)
    centres = 12 * np.eye(3, 20)
    return np.concatenate([centre + rng.standard_normal((25, 20)) for centre in centres]).astype(np.float32)


def test_the_spectrum_is_that_of_the_covariance(cloud):
    spectrum_of_cloud = spectrum(gram(cloud), cloud, axes=5)
    values, vectors = np.linalg.eigh(np.cov(cloud.astype(np.float64).T))
    np.testing.assert_allclose(spectrum_of_cloud.variances[:20], values[::-1], rtol=1e-6)
    np.testing.assert_allclose(np.abs(spectrum_of_cloud.axes @ vectors[:, ::-1][:, :5]), np.eye(5), atol=1e-4)


@pytest.mark.parametrize("dimensions", [1, 3, 8])
def test_the_participation_ratio_counts_equal_directions(dimensions):
    rows = np.concatenate([np.eye(dimensions, 16), -np.eye(dimensions, 16)])
    assert spectrum(gram(rows), rows).participation_ratio == pytest.approx(dimensions)


def test_a_cloud_that_is_a_point_has_no_spread():
    rows = np.ones((10, 4))
    point = spectrum(gram(rows), rows, axes=3)
    assert point.participation_ratio == 0
    assert point.axes.shape == (0, 4)


@pytest.mark.slow
def test_a_map_leaves_torch_with_the_threads_that_it_had(cloud):
    # numba sets them when it starts, once a process: this must be the file's first UMAP map to show a fault.
    before = torch.get_num_threads()
    PromptMap.fit("umap", cloud[::5])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("method", ["pca", "umap"])
def test_a_map_is_the_same_every_time_and_keeps_the_clusters_apart(cloud, method):
    first, second = (PromptMap.fit(method, cloud, seed=3) for _ in range(2))
    for axes in (2, 3):
        np.testing.assert_array_equal(first.places[axes], second.places[axes])
        np.testing.assert_array_equal(first.place(cloud[:9])[axes], second.place(cloud[:9])[axes])
        assert first.trustworthiness[axes] > 0.85
        flat = first.places[axes].reshape(3, 25, axes)
        centres = flat.mean(axis=1)
        spread = np.linalg.norm(flat - centres[:, None], axis=2).max()
        assert min(np.linalg.norm(centres[i] - centres[i - 1]) for i in range(3)) > spread


def test_the_command_makes_maps_and_says_how_good_they_are(tmp_path):
    path = write_run(tmp_path / "run", n_layers=2, steps=(1, 100), arms=("baseline", "block"), prompts=12, d_model=16)
    done = CliRunner().invoke(app, ["map", str(path), "--method", "umap", "--layer", "1", "--seed", "7", "--json"])
    assert done.exit_code == 0, done.output
    (about,) = json.loads(done.stdout)
    assert (about["method"], about["seed"], about["layer"]) == ("umap", 7, 1)
    assert 0.5 < about["trustworthiness"]["2"] <= 1
    assert isinstance(Run(path).read_table("maps/umap-roles-layer1"), pd.DataFrame)
    assert Run(path).has_table("pairs")
    with pytest.raises(Exception, match="No such layer"):
        CliRunner().invoke(app, ["map", str(path), "--layer", "9"], catch_exceptions=False)


def test_pca_places_new_rows_where_its_axes_say(cloud):
    pca = PromptMap.fit("pca", cloud)
    middle = pca.place(cloud.mean(axis=0, keepdims=True))
    np.testing.assert_allclose(middle[3], 0, atol=1e-4)
    np.testing.assert_allclose(pca.place(cloud)[2], pca.places[2], atol=1e-4)


@pytest.mark.parametrize("rows", [np.zeros((20, 4)), np.ones((3, 4)), np.full((20, 4), np.nan)])
def test_what_makes_no_map_is_refused(rows):
    with pytest.raises(StatisticsError, match="no map"):
        PromptMap.fit("pca", rows.astype(np.float32))
