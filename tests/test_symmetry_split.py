"""A change of weights, split along the symmetries of the architecture: what no activation sees, and the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from probes.errors import CheckpointError
from probes.models.gauges import gauges_of
from probes.models.symmetry_split import by_part, split_files, split_part
from probes.models.weights import WeightFiles
from tests.builders import move_weights, tiny_config, tiny_model
from tests.gauge_twin import KINDS, move_along

TOKENS = torch.tensor([[5, 60, 7, 100, 33, 200, 9, 12]])
SMALL = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 6, "num_attention_heads": 2, "vocab_size": 272}


def network(**changes):
    return tiny_model(**{"num_hidden_layers": 1, "tie_word_embeddings": False, **changes}).double()


def gauges_by_part(model):
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    return by_part(gauges_of(model.config, shapes))


def splits(model, tuned):
    weights, changed = ({name: weight.detach() for name, weight in side.named_parameters()} for side in (model, tuned))
    return [split_part(gauges, weights, changed) for gauges in gauges_by_part(model).values()]


def share(model, tuned):
    parts = splits(model, tuned)
    return sum(part.along for part in parts) / sum(part.total for part in parts)


def streams(model):
    with torch.no_grad():
        return torch.stack(model(TOKENS, output_hidden_states=True).hidden_states)


@pytest.mark.parametrize("kind", KINDS)
def test_a_move_along_one_gauge_lies_along_it_whole_however_far_and_changes_no_activation(kind):
    model = network()
    twin = move_along(model, kind, 0.5)
    assert share(model, twin) == pytest.approx(1, abs=1e-6)
    if kind != "gain":  # hidden_states ends with what leaves the final norm, whose gain is part of its gauge
        torch.testing.assert_close(streams(twin), streams(model), rtol=0, atol=1e-10)
    torch.testing.assert_close(streams(twin)[:-1], streams(model)[:-1], rtol=0, atol=1e-10)


def test_a_move_along_all_gauges_at_once_lies_along_them_but_for_a_remainder_of_third_order():
    model, twins = network(), []
    for size in (0.02, 0.04):
        twin = model
        for kind in KINDS:
            twin = move_along(twin, kind, size)
        twins.append(twin)
    outside = [1 - share(model, twin) for twin in twins]
    assert outside[0] < 1e-3
    assert outside[1] / outside[0] == pytest.approx(16, rel=0.2)  # (t³)² of t²


def test_a_random_move_lies_along_by_the_share_of_dimensions():
    model = network()
    moves = [splits(model, _with_noise(model, seed)) for seed in range(4)]
    for parts in zip(*moves, strict=True):
        observed = np.mean([part.along / part.total for part in parts])
        assert observed == pytest.approx(parts[0].dimension / parts[0].numbers, rel=0.25)


def _with_noise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    tuned = network()
    tuned.load_state_dict(model.state_dict())
    with torch.no_grad():
        for weight in tuned.parameters():
            weight.add_(1e-4 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    return tuned


@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_projection_on_the_span_of_many_small_moves_made_by_hand(bias):
    model = network(**SMALL, attention_bias=bias, mlp_bias=bias)
    tuned = _near(model)
    for gauges, part in zip(gauges_by_part(model).values(), splits(model, tuned), strict=True):
        names = sorted(set().union(*(gauge.tensors for gauge in gauges)))
        middle = network(**SMALL, attention_bias=bias, mlp_bias=bias)
        middle.load_state_dict({name: (model.state_dict()[name] + end) / 2 for name, end in tuned.state_dict().items()})
        kinds = [gauge.kind for gauge in gauges]
        twins = [move_along(middle, kind, 1e-5, seed=seed) for kind in kinds for seed in range(70)]
        moves = np.array([_change(middle, twin, names) for twin in twins])
        moves /= np.linalg.norm(moves, axis=1, keepdims=True)
        _, sizes, axes = np.linalg.svd(moves, full_matrices=False)
        assert int((sizes > 1e-3 * sizes[0]).sum()) <= part.dimension
        along = axes[: part.dimension] @ _change(model, tuned, names)
        assert part.along == pytest.approx(float(along @ along), rel=0.02)


def _near(model):
    tuned = network(**SMALL, attention_bias=model.config.attention_bias, mlp_bias=model.config.mlp_bias)
    tuned.load_state_dict(model.state_dict())
    return move_weights(tuned, seed=3, scale=0.02)


def _change(model, tuned, names):
    before, after = model.state_dict(), tuned.state_dict()
    return torch.cat([(after[name] - before[name]).reshape(-1) for name in names]).numpy()


def test_files_are_split_as_weights_in_memory_are(tmp_path):
    model = tiny_model()
    tuned = move_weights(tiny_model(), seed=5)
    for name, side in (("start", model), ("tuned", tuned)):
        side.save_pretrained(tmp_path / name, max_shard_size="20KB")
    files = [WeightFiles.of_model(tmp_path / name, allow_pickle=False) for name in ("start", "tuned")]
    assert list(split_files(model.config, *files)) == splits(model, tuned)


def test_no_change_has_no_part_along():
    assert all(part.along == part.total == 0 for part in splits(network(), network()))


def test_an_architecture_that_is_not_known_is_refused_by_name(tmp_path):
    save_file({"wte": torch.zeros(2)}, tmp_path / "model.safetensors")
    files = WeightFiles.of_model(tmp_path, allow_pickle=False)
    with pytest.raises(CheckpointError, match="the architecture gpt2"):
        next(split_files(tiny_config("gpt2"), files, files))
    with pytest.raises(CheckpointError, match="weights under other names, such as wte"):
        next(split_files(tiny_config(), files, files))
