"""What the front end draws from kept activations: spectra, pairs and maps, resumed and held against other ways."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from probes.drift.comparison import linear_cka, overlap
from probes.errors import RunFolderError
from probes.run import Run
from probes.stages.maps import MapOptions, write_maps
from probes.stages.pairs import transfer, write_pairs
from probes.stages.spectra import write_spectra
from probes.tasks.compare import compare
from tests.synthetic import write_run

SMALL = {"n_layers": 2, "steps": (1, 100), "arms": ("baseline", "block"), "prompts": 12, "d_model": 16}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = write_run(tmp_path_factory.mktemp("pictures") / "run", **SMALL)
    with Run.writing(path) as open_run:
        write_spectra(open_run)
        write_pairs(open_run)
        write_maps(open_run, MapOptions(methods=("pca",)))
    return Run(path)


def test_pairs_agree_with_the_direct_comparison(run):
    pairs = run.read_table("pairs").set_index(["one", "other", "layer"])
    aligned, tuned = (run.activations(name, 1).astype(np.float64) for name in ("aligned", "baseline-s0-000100"))
    row = pairs.loc["aligned", "baseline-s0-000100", 1]
    assert row["cka"] == pytest.approx(linear_cka(aligned, tuned), abs=1e-9)
    leading = [np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2][:10] for rows in (aligned, tuned)]
    same = overlap(*leading)
    assert row["overlap"] == pytest.approx(same.value, abs=1e-6)
    assert row["overlap_random"] == pytest.approx(same.random)
    assert row["angle_most"] == pytest.approx(max(same.angles), abs=1e-6)


PAIRS = [("aligned", "baseline-s0-000100"), ("baseline-s0-000001", "block-s0-000100"), ("witness", "witness")]


@pytest.mark.parametrize(("start", "end"), PAIRS)
def test_the_table_and_the_command_give_one_pair_the_same_numbers(run, start, end):
    table = run.read_table("pairs").set_index(["one", "other", "layer"])
    for row in compare(run, start, end, weights=False)["layers"]:
        pair = table.loc[start, end, row["layer"]]
        for name in ("distance", "cosine", "cka", "overlap", "overlap_random"):
            defined = np.nan if row[name] is None else row[name]  # the aligned model has no displacement, so no cosine
            assert pair[name] == pytest.approx(defined, abs=1e-9, nan_ok=True), name
        assert [pair["angle_most"], pair["angle_least"]] == pytest.approx(
            [row["angles"][0], row["angles"][-1]], abs=1e-9
        )


def test_the_witness_lies_at_distance_one_and_a_checkpoint_at_none_from_itself(run):
    pairs = run.read_table("pairs")
    own = pairs[pairs["one"] == pairs["other"]]
    np.testing.assert_allclose(own["distance"], 0, atol=1e-12)
    np.testing.assert_allclose(own["cka"], 1)
    back = pairs[(pairs["one"] == "aligned") & (pairs["other"] == "witness")]
    np.testing.assert_allclose(back["distance"], 1)
    assert len(own) == 7 * 2
    assert len(pairs) == 7 * 8 // 2 * 2


def test_transfer_is_the_auroc_of_a_probe_on_the_other_fold():
    rng = np.random.default_rng(1)
    values = rng.standard_normal((3, 40, 6))
    harmful, fold = np.arange(40) % 2 == 0, np.arange(40) < 20
    values[:, harmful, 0] += 1.0
    aurocs = transfer(values, harmful, fold)
    expected = []
    for chosen in (fold, ~fold):
        probe = values[0][chosen & harmful].mean(axis=0) - values[0][chosen & ~harmful].mean(axis=0)
        expected.append(roc_auc_score(harmful[~chosen], values[2][~chosen] @ probe))
    assert aurocs[0, 2] == pytest.approx(np.mean(expected))


def test_planted_classes_are_told_apart_by_every_probe(run):
    assert run.read_table("pairs")["transfer"].min() > 0.95


def test_spectra_are_shares_of_one_whole_and_end_with_the_run(run):
    spectra = run.read_table("spectra")
    by_cloud = spectra.groupby(["checkpoint", "layer", "of"])["share"].sum()
    assert by_cloud.between(0.99, 1.0 + 1e-9).all()  # 16 dimensions: the kept components are all
    assert set(spectra[spectra["checkpoint"] == "aligned"]["of"]) == {"activations"}


def test_every_checkpoint_is_placed_in_one_map_of_the_roles(run):
    table, about = run.read_table("maps/pca-roles-layer1"), run.read_json("maps/pca-roles-layer1")
    assert table["checkpoint"].nunique() == 7
    assert len(table) == about["points"] == 7 * 24
    assert about["fitted_on"] == ["aligned", "witness"]
    harmful = table[table["label"] == "harmful"].groupby("checkpoint")[["x", "y"]].mean()
    way = harmful.loc["witness"] - harmful.loc["aligned"]
    gone = harmful.loc["baseline-s0-000100"] - harmful.loc["aligned"]
    assert 0.3 < float(gone @ way) / float(way @ way) < 1.0


def test_a_second_run_writes_nothing_and_a_killed_one_ends_with_the_same_bytes(run, tmp_path):
    path = write_run(tmp_path / "killed", **SMALL)

    class KilledError(Exception):
        pass

    def die(progress):
        if progress.step == 1:
            raise KilledError

    with pytest.raises(KilledError), Run.writing(path) as open_run:
        write_maps(open_run, MapOptions(methods=("pca",)), die)
    with Run.writing(path) as open_run:
        first = (path / "maps/pca-roles-layer0.parquet").stat().st_mtime_ns
        write_maps(open_run, MapOptions(methods=("pca",)))
    assert (path / "maps/pca-roles-layer0.parquet").stat().st_mtime_ns == first
    for layer in (0, 1):
        name = f"maps/pca-roles-layer{layer}.parquet"
        assert (path / name).read_bytes() == (run.path / name).read_bytes()


def test_a_shipped_run_that_lost_activations_is_drawn_as_far_as_they_go(tmp_path):
    path = write_run(tmp_path / "shipped", **SMALL)
    (path / "activations" / "block-s0-000001.safetensors").unlink()
    with Run.writing(path) as open_run:
        write_pairs(open_run)
        assert "block-s0-000001" not in set(open_run.read_table("pairs")["other"])
    (path / "activations" / "witness.safetensors").unlink()
    with Run.writing(path) as open_run, pytest.raises(RunFolderError, match="no activations"):
        write_spectra(open_run)
