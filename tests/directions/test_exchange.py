"""Directions in other tools' formats: bit for bit there and back, as those tools have them, and nothing foreign."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from gguf import GGUFReader
from safetensors import safe_open
from safetensors.torch import save_file

from probes.directions.vectors import KEYS, Owner, Vectors
from probes.errors import RunFolderError, UsageError
from probes.exchange import FORMATS, read_vectors, write_vectors

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "published" / "gemma-2b-it"
WRITTEN = [name for name, form in FORMATS.items() if not form.read_only]
ABOUT = {key: f"{key} of it" for key in KEYS} | {
    "n_layers": "5",
    "hook": "blocks.{l}.hook_resid_post",
    "site": "resid_post",
    "index_base": "0",
    "position": "-2",
    "final_norm_included": "false",
    "model_type": "llama",
    "selected_layer": "3",
    "orientation": "harmless → härmful",
}


@pytest.fixture
def vectors():
    raw = np.random.default_rng(0).standard_normal((5, 16)) * np.array([[3.7], [0.1], [11.0], [1e-3], [250.0]])
    return Vectors.of_raw("refusal", tuple(range(5)), raw, ABOUT)


def equal(first, second):
    assert first.layers == second.layers
    assert first.direction.dtype == first.norm.dtype == np.float32
    assert first.direction.tobytes() == second.direction.tobytes()
    assert first.norm.tobytes() == second.norm.tobytes()


@pytest.mark.parametrize("name", WRITTEN)
def test_there_and_back_bit_for_bit(name, vectors, tmp_path):
    path, notes = write_vectors(vectors, name, tmp_path / "out")
    vectors_read, form = read_vectors(path, "refusal")
    assert form.name == name
    expected = vectors
    if name == "gguf":
        expected = Vectors("refusal", (1, 2, 3, 4), vectors.direction[1:], vectors.norm[1:], vectors.about)
        assert "0" in notes[0]
    if name == "refusal-direction":
        expected = vectors.only(3)
    equal(vectors_read, expected)
    assert vectors_read.name == "refusal"
    assert {key: vectors_read.about.get(key) for key in KEYS} == {key: ABOUT[key] for key in KEYS}


@pytest.mark.parametrize("name", WRITTEN)
def test_one_layer_there_and_back(name, vectors, tmp_path):
    path, _ = write_vectors(vectors, name, tmp_path / "out", layer=2)
    equal(read_vectors(path, "refusal")[0], vectors.only(2))


@pytest.mark.parametrize("name", WRITTEN)
def test_every_file_says_where_its_vectors_belong(name, vectors, tmp_path):
    path, _ = write_vectors(vectors, name, tmp_path / "out")
    about = read_vectors(path, "x")[0].about
    place = {key: about[key] for key in ("hook", "site", "index_base", "n_layers", "final_norm_included")}
    assert place == {key: ABOUT[key] for key in place}
    assert FORMATS[name].says


def test_gguf_is_what_repeng_and_llama_cpp_expect(vectors, tmp_path):
    path, _ = write_vectors(vectors, "gguf", tmp_path / "out")
    assert path.suffix == ".gguf"
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "llama"
    assert fields["controlvector.layer_count"] == 4
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert set(tensors) == {"direction.1", "direction.2", "direction.3", "direction.4"}
    for layer in range(1, 5):
        assert tensors[f"direction.{layer}"].tensor_type.name == "F32"
        assert list(tensors[f"direction.{layer}"].shape) == [16]
        assert np.array_equal(tensors[f"direction.{layer}"].data, vectors.direction[layer])


def test_a_control_vector_keeps_its_dose(vectors, tmp_path):
    """Unit vectors with the measured lengths in the file and in the message, or whole vectors."""
    path, notes = write_vectors(vectors, "gguf", tmp_path / "unit")
    fields = {name: field.contents() for name, field in GGUFReader(path).fields.items()}
    assert fields["gravity_probe.layers"] == [1, 2, 3, 4]
    assert fields["gravity_probe.norm"] == vectors.norm[1:].tolist()
    assert f"scale of 1 adds length 1; measured was {vectors.norm[3]:.4g} at layer 3" in notes[-1]
    path, notes = write_vectors(vectors, "gguf", tmp_path / "whole", raw=True)
    assert f"measured length, {vectors.norm[3]:.4g} at layer 3" in notes[-1]
    for tensor in GGUFReader(path).tensors:
        layer = int(tensor.name.removeprefix("direction."))
        assert np.allclose(tensor.data, vectors.raw[layer], rtol=1e-6)
    back, _ = read_vectors(path, "refusal")
    assert back.layers == (1, 2, 3, 4)
    assert np.allclose(back.raw, vectors.raw[1:], rtol=1e-6)
    assert back.about["method"] == vectors.about["method"]
    _, notes = write_vectors(Vectors("x", (1, 2), vectors.direction[:2], vectors.norm[:2]), "gguf", tmp_path / "two")
    assert f"measured was {vectors.norm[1]:.4g} to {vectors.norm[0]:.4g}" in notes[-1]


@pytest.mark.parametrize("name", WRITTEN)
def test_whole_vectors_are_written_or_refused(name, vectors, tmp_path):
    """What has the lengths beside unit vectors needs no other form; what is whole already is as it was."""
    if name in ("gguf", "refusal-direction", "persona-vectors", "steering-vectors"):
        path, _ = write_vectors(vectors, name, tmp_path / "out", raw=True)
        back, _ = read_vectors(path, "x", layer=3)
        assert np.allclose(back.raw[0], vectors.raw[3], rtol=1e-6)
    else:
        with pytest.raises(UsageError, match="unit vectors with their lengths beside them"):
            write_vectors(vectors, name, tmp_path / "out", raw=True)


BARE = {
    "layer12.pt": lambda path, vector: torch.save(torch.tensor(vector), path),
    "refusal_layer-12.pth": lambda path, vector: torch.save({"vector": torch.tensor(vector).bfloat16()}, path),
    "blocks.12.hook_resid_post.npy": lambda path, vector: np.save(path, vector),
    "L12.npz": lambda path, vector: np.savez(path, vector),
    "x_l12_final.safetensors": lambda path, vector: save_file({"v": torch.tensor(vector).half()}, path),
}
AS_TEXT = {
    "layer 12.json": lambda path, vector: path.write_text(json.dumps(vector.tolist())),
    "layer.12.csv": lambda path, vector: path.write_text(",".join(map(str, vector))),
    "LAYER_12.txt": lambda path, vector: path.write_text("\n".join(map(str, vector)) + "\n"),
}


@pytest.mark.parametrize("name", [*BARE, *AS_TEXT])
def test_a_bare_vector_lies_where_its_name_or_its_reader_says(name, tmp_path):
    vector = np.array([3.0, 0.0, -4.0])
    path = tmp_path / name
    ({**BARE, **AS_TEXT})[name](path, vector)
    form = None if name in BARE else "vector"
    for layer, expected in ((None, 12), (5, 5)):
        vectors, recognised = read_vectors(path, "mine", form, layer)
        assert (recognised.name, vectors.layers, vectors.name) == ("vector", (expected,), "mine")
        assert np.allclose(vectors.raw, vector[None])
        assert vectors.norm[0] == 5
    unplaced = path.with_name(f"mine{path.suffix}")
    path.rename(unplaced)
    with pytest.raises(UsageError, match=r"does not say at which layer.*--layer L"):
        read_vectors(unplaced, "mine", form)
    twice = unplaced.rename(path.with_name(f"layer1-layer2{path.suffix}"))
    with pytest.raises(UsageError, match=r"does not say at which layer"):
        read_vectors(twice, "mine", form)
    assert read_vectors(twice, "mine", form, 7)[0].layers == (7,)


def test_what_is_no_bare_vector_is_refused(tmp_path):
    for array in (np.zeros(4), np.ones((2, 2)), np.ones(1), np.array(["a", "b"])):
        np.save(tmp_path / "layer1.npy", array)
        with pytest.raises(UsageError, match="cannot be read as a direction"):
            read_vectors(tmp_path / "layer1.npy", "x", "vector")
    np.save(tmp_path / "layer1.npy", np.array([1.0, np.inf]))
    with pytest.raises(UsageError, match="not finite"):
        read_vectors(tmp_path / "layer1.npy", "x")
    np.savez(tmp_path / "layer1.npz", np.ones(3), np.ones(3))
    with pytest.raises(UsageError, match="2 arrays"):
        read_vectors(tmp_path / "layer1.npz", "x", "vector")
    np.save(tmp_path / "layer2.npy", np.array([Malicious()], dtype=object))
    with pytest.raises(UsageError, match="cannot be read as a direction"):
        read_vectors(tmp_path / "layer2.npy", "x", "vector")
    (tmp_path / "layer1.json").write_text("[1, NaN]")
    with pytest.raises(UsageError, match="no finite number"):
        read_vectors(tmp_path / "layer1.json", "x", "vector")
    (tmp_path / "layer1.bin").write_bytes(b"1")
    with pytest.raises(UsageError, match=r"a file of kind \.bin"):
        read_vectors(tmp_path / "layer1.bin", "x", "vector")
    with pytest.raises(UsageError, match="read only"):
        write_vectors(Vectors.of_raw("x", (0,), np.ones((1, 3))), "vector", tmp_path / "out")


def test_one_layer_of_a_file_is_read(vectors, tmp_path):
    path, _ = write_vectors(vectors, "npz", tmp_path / "out")
    equal(read_vectors(path, "refusal", layer=2)[0], vectors.only(2))
    with pytest.raises(UsageError, match="not known at layer 9"):
        read_vectors(path, "refusal", layer=9)


def test_no_cell_of_a_written_table_is_a_formula(vectors, tmp_path):
    name = "=HYPERLINK(0)"
    path, _ = write_vectors(dataclasses.replace(vectors, name=name), "tensorboard", tmp_path / "out")
    cells = [line.split("\t") for line in (path / "metadata.tsv").read_text().splitlines()]
    assert {row[0] for row in cells[1:]} == {f"'{name}"}
    path, _ = write_vectors(vectors, "csv", tmp_path / "out")
    numbers = [line.split(",") for line in path.read_text().splitlines()[2:]]
    assert all(float(cell) is not None for row in numbers for cell in row)  # a negative number is a number


def test_gguf_refuses_block_zero_with_the_reason(vectors, tmp_path):
    with pytest.raises(UsageError, match=r"llama.cpp refuses direction.0"):
        write_vectors(vectors, "gguf", tmp_path / "out", layer=0)


def test_a_generated_control_vector_is_one_off(vectors, tmp_path):
    path, _ = write_vectors(vectors, "gguf", tmp_path / "out")
    shifted, form = read_vectors(path, "x", "gguf-cvector")
    assert shifted.layers == (0, 1, 2, 3)
    assert np.array_equal(shifted.direction[0], vectors.direction[1])
    assert "l + 1" in form.says
    with pytest.raises(UsageError, match="read only"):
        write_vectors(vectors, "gguf-cvector", tmp_path / "other")


def test_refusal_direction_is_what_its_authors_write(vectors, tmp_path):
    path, _ = write_vectors(vectors, "refusal-direction", tmp_path / "out")
    assert json.loads((path / "direction_metadata.json").read_text()) == {"pos": -2, "layer": 4}
    direction = torch.load(path / "direction.pt", weights_only=True)
    assert direction.dtype == torch.float64
    assert np.allclose(direction.numpy(), vectors.raw[3])


def test_a_description_counts_for_the_file_that_it_was_written_for(vectors, tmp_path):
    """Another tool's tensor in the place of ours is read as it stands, not as the file beside it says."""
    path, _ = write_vectors(vectors, "persona-vectors", tmp_path / "out")
    assert read_vectors(path, "x")[0].about["method"] == vectors.about["method"]
    replacement = torch.zeros(9, 16, dtype=torch.float64)
    replacement[2:] = torch.randn(7, 16, generator=torch.Generator().manual_seed(0))
    torch.save(replacement, path)
    back, _ = read_vectors(path, "x")
    assert back.layers == tuple(range(1, 8))
    assert "method" not in back.about
    assert np.allclose(back.raw, replacement[2:].numpy(), atol=1e-6)


def test_one_layer_is_selected_only_where_it_was(vectors):
    assert vectors.only(3).declared_layer == 3
    assert vectors.only(2).declared_layer is None


def test_persona_vectors_have_a_row_for_the_embeddings(vectors, tmp_path):
    path, _ = write_vectors(vectors, "persona-vectors", tmp_path / "out")
    rows = torch.load(path, weights_only=True)
    assert rows.shape == (6, 16)
    assert not rows[0].any()
    assert np.allclose(rows[4].numpy(), vectors.raw[3])


def test_steering_vectors_are_by_layer(vectors, tmp_path):
    path, _ = write_vectors(vectors, "steering-vectors", tmp_path / "out")
    content = torch.load(path, weights_only=True)
    assert content["layer_type"] == "decoder_block"
    assert sorted(content["layer_activations"]) == [0, 1, 2, 3, 4]
    assert np.allclose(content["layer_activations"][2].numpy(), vectors.raw[2])


def test_what_viewers_read(vectors, tmp_path):
    path, _ = write_vectors(vectors, "tensorboard", tmp_path / "board")
    assert len((path / "tensors.tsv").read_text().splitlines()) == 5
    assert (path / "metadata.tsv").read_text().splitlines()[0] == "name\tlayer\tnorm"
    path, _ = write_vectors(vectors, "embedding-atlas", tmp_path / "atlas")
    frame = pd.read_parquet(path)
    assert {"vector", "x", "y"} <= set(frame.columns)
    centred = vectors.direction.astype(float) - vectors.direction.astype(float).mean(axis=0)
    assert np.allclose(np.linalg.norm(frame[["x", "y"]], axis=0), np.linalg.svd(centred)[1][:2], atol=1e-5)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published direction is not here")
def test_the_published_direction_is_read_behind_the_block_that_leaves_it():
    """Layer 10 there is what enters block 10, which is what leaves block 9. It was saved on another device."""
    published, form = read_vectors(PUBLISHED, "refusal")
    assert form.name == "refusal-direction"
    assert published.layers == (9,)
    assert published.about["position"] == "-2"
    raw = torch.load(PUBLISHED / "direction.pt", weights_only=True, map_location="cpu").double().numpy()
    assert np.allclose(published.raw[0], raw, rtol=1e-6, atol=1e-8)
    assert published.norm[0] == pytest.approx(np.linalg.norm(raw))


def test_files_of_other_tools_need_no_description(vectors, tmp_path):
    torch.save(torch.tensor(np.concatenate([np.ones((1, 16)), vectors.raw])), tmp_path / "persona.pt")
    equal(read_vectors(tmp_path / "persona.pt", "x")[0], Vectors.of_raw("x", tuple(range(5)), vectors.raw))
    torch.save({"layer_activations": {3: torch.ones(16)}, "layer_type": "decoder_block"}, tmp_path / "steering.pt")
    assert read_vectors(tmp_path / "steering.pt", "x")[0].layers == (3,)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/this-must-never-be-there",)


@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required")
def test_no_damage_to_a_file_of_numpy_is_more_than_a_sentence(vectors, tmp_path):
    """A header is read by Python's parser, an archive by zipfile: each has errors of its own."""
    bare, archive = tmp_path / "layer1.npy", tmp_path / "whole.npz"
    np.save(bare, vectors.raw[0])
    write_vectors(vectors, "npz", archive)
    cuts = [(start, end) for start in range(0, 128, 2) for end in range(start + 1, 129, 3)]
    whole = {path: path.read_bytes() for path in (bare, archive)}
    damaged = [(bare, whole[bare][:start] + whole[bare][end:]) for start, end in cuts]
    damaged += [
        (archive, whole[archive][:place] + bytes([value]) + whole[archive][place + 1 :])
        for place in range(0, len(whole[archive]), 3)
        for value in (0, 0xFF, whole[archive][place] ^ 1)
    ]
    sentences = []
    for path, content in damaged:
        path.write_bytes(content)
        try:
            read_vectors(path, "x", "vector" if path == bare else "npz")
        except UsageError as error:
            sentences.append(str(error))
    assert len(sentences) > 1000
    assert all("cannot be read as a direction" in sentence for sentence in sentences)


@pytest.mark.parametrize("name", ["persona.pt", "steering.pt", "direction.pt", "arrays.npz"])
def test_malicious_pickles_are_refused_and_run_nothing(name, tmp_path):
    mark = tmp_path / "ran"
    Malicious.__reduce__ = lambda _: (os.system, (f"touch {mark}",))
    path = tmp_path / name
    if name == "direction.pt":
        (tmp_path / "direction_metadata.json").write_text('{"pos": -1, "layer": 2}')
    if name == "arrays.npz":
        with open(path, "wb") as file:
            np.savez(file, direction=np.array([Malicious()], dtype=object), norm=np.ones(1), layers=[0], about="{}")
    else:
        torch.save({"layer_activations": Malicious()}, path)
    with pytest.raises(UsageError):
        read_vectors(path, "x")
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(UsageError):
        read_vectors(path, "x")
    assert not mark.exists()


@pytest.mark.parametrize("name", WRITTEN)
def test_a_damaged_file_is_refused_in_one_sentence(name, vectors, tmp_path):
    path, _ = write_vectors(vectors, name, tmp_path / "out")
    file = next(part for part in sorted(path.rglob("*")) if part.suffix != ".json") if path.is_dir() else path
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\xff" * 200):
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"direction|is not opened"):
            read_vectors(path, "x", name)


def test_a_control_vector_that_names_more_than_it_holds_is_refused_at_once(vectors, tmp_path):
    """The reader of the library would go on to the end of the count, past the end of the file."""
    path, _ = write_vectors(vectors, "gguf", tmp_path / "out")
    content = path.read_bytes()
    count = content.index(b"gravity_probe.layers") + len("gravity_probe.layers") + 8  # after the types: how many
    assert content[count : count + 8] == (4).to_bytes(8, "little")
    path.write_bytes(content[:count] + (2**60).to_bytes(8, "little") + content[count + 8 :])
    with pytest.raises(UsageError, match="ends before what it describes"):
        read_vectors(path, "x")


def test_a_direction_of_another_model_is_refused(vectors):
    Owner(16, 5).refuse_foreign(vectors)
    Owner(16, 5, frozenset({"weights_sha256 of it", "b"})).refuse_foreign(vectors)
    for owner, message in [
        (Owner(32, 5), "width 16"),
        (Owner(16, 7), "5 layers"),
        (Owner(16, 5, frozenset({"a" * 64})), "weights"),
    ]:
        with pytest.raises(UsageError, match=f"another model; got {message}"):
            owner.refuse_foreign(vectors)
    short = Vectors("x", (0, 6), vectors.direction[:2], vectors.norm[:2])
    with pytest.raises(UsageError, match="layer 6"):
        Owner(16, 5).refuse_foreign(short)


def test_nothing_is_overwritten(vectors, tmp_path):
    write_vectors(vectors, "npz", tmp_path / "out")
    with pytest.raises(UsageError, match="already there"):
        write_vectors(vectors, "npz", tmp_path / "out")
    (tmp_path / "folder").mkdir()
    assert write_vectors(vectors, "npz", tmp_path / "folder")[0] == tmp_path / "folder" / "refusal.npz"


def test_what_cannot_be_is_refused(vectors, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'safetensors'"):
        write_vectors(vectors, "safetensor", tmp_path / "out")
    with pytest.raises(UsageError, match="not known at layer 9"):
        write_vectors(vectors, "npz", tmp_path / "out", layer=9)
    with pytest.raises(UsageError, match="is not there"):
        read_vectors(tmp_path / "absent", "x")
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="no known format"):
        read_vectors(tmp_path / "thesis.tex", "x")
    undefined = Vectors("x", (0, 1), np.zeros((2, 4), dtype=np.float32), np.zeros(2, dtype=np.float32))
    with pytest.raises(UsageError, match="not defined at layer 1"):
        undefined.at(1)
    with pytest.raises(RunFolderError, match="no direction"):
        Vectors.read(_write_other_tensor(tmp_path))
    endless = Vectors("x", (1,), np.full((1, 4), np.nan, dtype=np.float32), np.ones(1, dtype=np.float32))
    write_vectors(endless, "npz", tmp_path / "nan")
    with pytest.raises(UsageError, match="not finite"):
        read_vectors(tmp_path / "nan.npz", "x")


def test_the_native_file_is_ordinary_safetensors(vectors, tmp_path):
    path, _ = write_vectors(vectors, "safetensors", tmp_path / "out")
    with safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == {"direction", "norm"}
        assert set(KEYS) <= set(file.metadata())
        assert file.get_tensor("direction").shape == (5, 16)


def _write_other_tensor(folder):
    from safetensors.numpy import save_file

    save_file({"x": np.ones(2, dtype=np.float32)}, folder / "other.safetensors")
    return folder / "other.safetensors"
