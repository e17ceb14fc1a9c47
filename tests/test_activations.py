"""Activations agree with Hugging Face and with TransformerLens, however prompts are batched and padded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.activations import automatic_batch_tokens, batches, collect, extract
from probes.errors import ActivationError
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.store import ActivationFile, ActivationWriter
from tests.builders import CONTEXT, DEPTH, FAMILIES, VOCABULARY, WIDTH, save_checkpoint, tiny_model, tiny_tokenizer

STORIES = Path(__file__).parents[1].parent / "shared" / "data" / "models" / "stories260K"
TOLERANCE = 1e-5


def prompts_of_unequal_length(n: int = 16, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, size=int(rng.integers(3, 40))).tolist() for _ in range(n)]


def relative_error(values: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(values - expected, axis=-1).max() / np.linalg.norm(expected, axis=-1).max())


def by_hugging_face(model: Any, blocks: list[Any], ids: list[int], position: int = -1) -> np.ndarray:
    """[embedding and layers, d_model] of one unpadded prompt; the last block by a hook, before the final norm."""
    last: list[torch.Tensor] = []
    hook = blocks[-1].register_forward_hook(
        lambda *call: last.append(call[-1][0] if isinstance(call[-1], tuple) else call[-1])
    )
    try:
        with torch.inference_mode():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    finally:
        hook.remove()
    return torch.stack([state[0, position].float() for state in (*states[:-1], last[0])]).numpy()


def collect_stacked(host: ModelHost, prompts: list[list[int]], **options: Any) -> np.ndarray:
    """[embedding and layers, prompt, d_model]."""
    resid_post, embed = collect(host, prompts, **options)
    return np.concatenate([embed[None], resid_post])


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> CheckpointRef:
    return save_checkpoint(tmp_path_factory.mktemp(family), tiny_model(family), tiny_tokenizer())


@pytest.fixture(scope="module")
def host(checkpoint: CheckpointRef) -> ModelHost:
    return ModelHost(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def reference(host: ModelHost) -> np.ndarray:
    by_prompt = [by_hugging_face(host.model, host.blocks, ids) for ids in prompts_of_unequal_length()]
    return np.stack(by_prompt, axis=1)


class TestParity:
    @pytest.mark.parametrize("padding_side", ["left", "right"])
    @pytest.mark.parametrize("batch_tokens", [1, 16 * 40], ids=["batch-1", "batch-16"])
    def test_equals_hugging_face_at_every_layer(
        self, host: ModelHost, reference: np.ndarray, padding_side: str, batch_tokens: int
    ) -> None:
        host.tokenizer.padding_side = padding_side
        ours = collect_stacked(host, prompts_of_unequal_length(), batch_tokens=batch_tokens)
        for layer in range(-1, DEPTH):
            assert relative_error(ours[layer + 1], reference[layer + 1]) < TOLERANCE

    def test_equals_transformer_lens_at_every_layer(self, host: ModelHost, checkpoint: CheckpointRef) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        bridge = TransformerBridge.boot_transformers(checkpoint.model, device="cpu", dtype=torch.float32)
        prompts = prompts_of_unequal_length(4)
        ours = collect_stacked(host, prompts)
        with torch.inference_mode():
            caches = [bridge.run_with_cache(torch.tensor([ids]))[1] for ids in prompts]
        for layer in range(DEPTH):
            theirs = np.stack([cache[f"blocks.{layer}.hook_resid_post"][0, -1].numpy() for cache in caches])
            assert relative_error(ours[layer + 1], theirs) < TOLERANCE
        entering = np.stack([cache["blocks.0.hook_resid_pre"][0, -1].numpy() for cache in caches])
        assert relative_error(ours[0], entering) < TOLERANCE

    @pytest.mark.parametrize("position", [0, 2, -2])
    def test_any_position_equals_hugging_face(self, host: ModelHost, position: int) -> None:
        prompts = prompts_of_unequal_length(5, seed=3)
        theirs = np.stack([by_hugging_face(host.model, host.blocks, ids, position) for ids in prompts], axis=1)
        assert relative_error(collect_stacked(host, prompts, position=position), theirs) < TOLERANCE

    def test_no_hook_is_left_behind(self, host: ModelHost) -> None:
        before = hooks_on(host)  # transformers leaves some of its own once it was asked for hidden_states
        collect(host, prompts_of_unequal_length(3))
        assert hooks_on(host) == before

    @pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 6e-2), ("float16", 8e-3)])
    def test_half_precision_is_near_and_comes_out_as_float32(
        self, checkpoint: CheckpointRef, reference: np.ndarray, dtype: str, tolerance: float
    ) -> None:
        half = ModelHost(checkpoint, device="cpu", dtype=dtype)
        ours = collect_stacked(half, prompts_of_unequal_length())
        assert half.about["dtype"] == dtype
        assert ours.dtype == np.float32
        # The experts of a mixture are chosen by a comparison, which half precision may tip for single prompts.
        error = np.linalg.norm(ours - reference, axis=-1) / np.linalg.norm(reference, axis=-1)
        assert np.median(error) < tolerance
        assert np.median(error) > 0


def test_left_padding_without_positions_would_be_wrong_for_gpt2(tmp_path: Path) -> None:
    """The common mistake, made on purpose: the parity tests above would see it."""
    host = ModelHost(save_checkpoint(tmp_path, tiny_model("gpt2"), tiny_tokenizer(padding_side="left")), device="cpu")
    prompts = prompts_of_unequal_length(4)
    padded = host.tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    with torch.inference_mode():
        states = host.model(**padded, output_hidden_states=True).hidden_states
    ours = collect_stacked(host, prompts)
    assert relative_error(states[DEPTH - 1][:, -1].numpy(), ours[DEPTH - 1]) > 1e-2


@pytest.mark.skipif(not STORIES.is_dir(), reason="the real weights of stories260K are not beside this checkout")
class TestRealWeights:
    @pytest.fixture(scope="class")
    def host(self) -> ModelHost:
        return ModelHost(CheckpointRef.parse(str(STORIES)), device="cpu")

    @pytest.fixture(scope="class")
    def prompts(self, host: ModelHost) -> list[list[int]]:
        texts = ["Once upon a time", "The little dog ran to the park because he was happy.", "A", "Lily said: no!"]
        return [host.tokenizer.encode(text) for text in texts]

    @pytest.mark.parametrize("batch_tokens", [1, 1024])
    def test_equals_hugging_face(self, host: ModelHost, prompts: list[list[int]], batch_tokens: int) -> None:
        theirs = np.stack([by_hugging_face(host.model, host.blocks, ids) for ids in prompts], axis=1)
        ours = collect_stacked(host, prompts, batch_tokens=batch_tokens)
        assert all(relative_error(ours[layer], theirs[layer]) < TOLERANCE for layer in range(host.n_layers + 1))

    def test_equals_transformer_lens(self, host: ModelHost, prompts: list[list[int]]) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        bridge = TransformerBridge.boot_transformers(str(STORIES), device="cpu", dtype=torch.float32)
        ours = collect_stacked(host, prompts)
        for prompt, ids in enumerate(prompts):
            with torch.inference_mode():
                cache = bridge.run_with_cache(torch.tensor([ids]))[1]
            for layer in range(host.n_layers):
                theirs = cache[f"blocks.{layer}.hook_resid_post"][0, -1].numpy()
                assert relative_error(ours[layer + 1, prompt], theirs) < TOLERANCE


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ModelHost:
    return ModelHost(save_checkpoint(tmp_path_factory.mktemp("one"), tiny_model(), tiny_tokenizer()), device="cpu")


def hooks_on(host: ModelHost) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in host.model.modules())


@pytest.fixture
def calls(llama: ModelHost) -> Iterator[dict[str, int]]:
    """How often each module of the model is run."""
    counts = dict.fromkeys((name for name, _ in llama.model.named_modules()), 0)

    def count(name: str) -> Any:
        def hook(*_: object) -> None:
            counts[name] += 1

        return hook

    hooks = [module.register_forward_hook(count(name)) for name, module in llama.model.named_modules()]
    yield counts
    for hook in hooks:
        hook.remove()


class TestWhatIsRun:
    def test_neither_final_norm_nor_unembedding(self, llama: ModelHost, calls: dict[str, int]) -> None:
        collect(llama, prompts_of_unequal_length(4), batch_tokens=1)
        assert calls["model.layers.0.mlp"] == calls["model.layers.2.mlp"] == 4
        assert calls["model.norm"] == calls["lm_head"] == 0

    def test_nothing_behind_the_last_wanted_layer(self, llama: ModelHost, calls: dict[str, int]) -> None:
        resid_post, embed = collect(llama, prompts_of_unequal_length(4), layers=[0])
        assert calls["model.layers.0"] == 1
        assert calls["model.layers.1"] == 0
        assert np.isfinite(resid_post[0]).all()
        assert np.isnan(resid_post[1:]).all()
        assert np.isnan(embed).all()

    def test_the_embedding_alone(self, llama: ModelHost, calls: dict[str, int]) -> None:
        prompts = prompts_of_unequal_length(4)
        _, embed = collect(llama, prompts, layers=[-1])
        table = llama.embedding.weight.numpy()
        np.testing.assert_array_equal(embed, table[[ids[-1] for ids in prompts]])
        assert calls["model.layers.0"] == 0


class TestBatches:
    def test_is_the_same_bytes_each_time(self, llama: ModelHost) -> None:
        prompts = prompts_of_unequal_length()
        np.testing.assert_array_equal(collect_stacked(llama, prompts), collect_stacked(llama, prompts))

    def test_reversed_batches_agree_up_to_rounding(self, llama: ModelHost) -> None:
        prompts = prompts_of_unequal_length()
        forward, backward = collect_stacked(llama, prompts), collect_stacked(llama, prompts, reverse=True)
        assert relative_error(forward, backward) < TOLERANCE

    def test_prompts_of_one_batch_are_split_when_reversed(self) -> None:
        lengths = [5, 3, 8, 8, 2]
        assert [set(batch) for batch in batches(lengths, 1000)] == [{0, 1, 2, 3, 4}]
        assert len(list(batches(lengths, 1000, reverse=True))) > 1

    @settings(deadline=None)
    @given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 300), st.booleans())
    def test_every_prompt_comes_once_and_the_budget_holds(self, lengths: list[int], budget: int, reverse: bool) -> None:
        groups = list(batches(lengths, budget, reverse=reverse))
        assert sorted(prompt for group in groups for prompt in group) == list(range(len(lengths)))
        for group in groups:
            assert len(group) == 1 or max(lengths[prompt] for prompt in group) * len(group) <= budget

    def test_the_automatic_budget_depends_on_the_model_alone(self, llama: ModelHost) -> None:
        assert automatic_batch_tokens(llama) == automatic_batch_tokens(llama) >= 256

    def test_is_halved_until_it_fits(self, llama: ModelHost) -> None:
        prompts = prompts_of_unequal_length()
        expected = collect_stacked(llama, prompts)
        streamed = np.full_like(expected, np.nan)

        def keep(layer: int, rows: Any, values: np.ndarray) -> None:
            streamed[layer + 1, list(rows)] = values

        with memory_for(llama, tokens=100):
            used = extract(llama, prompts, keep, batch_tokens=10_000)
        assert used <= 200
        assert relative_error(streamed, expected) < TOLERANCE
        assert hooks_on(llama) == 0

    def test_a_single_prompt_that_does_not_fit_is_named(self, llama: ModelHost) -> None:
        with memory_for(llama, tokens=10), pytest.raises(ActivationError, match="Prompt 1 does not fit into memory"):
            collect(llama, [[5] * 4, [6] * 20])


class memory_for:  # noqa: N801 - reads as a sentence
    """Let the model run out of memory, as torch reports it, on batches above a number of tokens."""

    def __init__(self, host: ModelHost, *, tokens: int) -> None:
        self._host, self._tokens = host, tokens

    def __enter__(self) -> None:
        def refuse(_: Any, args: tuple[torch.Tensor, ...]) -> None:
            if args[0].numel() > self._tokens:
                raise torch.OutOfMemoryError("CUDA out of memory")

        self._hook = self._host.embedding.register_forward_pre_hook(refuse)

    def __exit__(self, *_: object) -> None:
        self._hook.remove()


class TestRefusals:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_names_layer_and_prompt_of_what_is_not_finite(self, llama: ModelHost, value: float) -> None:
        prompts = [[5, 6, 7, 8, 9], [5, 6, 7], [5, 6, 100]]
        weight = llama.embedding.weight
        with torch.no_grad():
            original = weight[100].clone()
            weight[100] = value
        try:
            with pytest.raises(ActivationError, match="layer 1 are not finite for prompt 2"):
                collect(llama, prompts, layers=[1])
        finally:
            with torch.no_grad():
                weight[100] = original
        assert hooks_on(llama) == 0

    @pytest.mark.parametrize("layers", [[DEPTH], [-2], []])
    def test_an_unknown_layer(self, llama: ModelHost, layers: list[int]) -> None:
        with pytest.raises(ActivationError, match="no such layer"):
            collect(llama, [[1, 2]], layers=layers)

    def test_a_position_that_a_prompt_does_not_have(self, llama: ModelHost) -> None:
        with pytest.raises(ActivationError, match="Prompt 1 has no position -3"):
            collect(llama, [[5, 6, 7], [5, 6]], position=-3)
        with pytest.raises(ActivationError, match="Prompt 0 has no position -1"):
            collect(llama, [[]])

    def test_a_prompt_longer_than_the_context(self, llama: ModelHost) -> None:
        with pytest.raises(ActivationError, match="Prompt 1 is longer"):
            collect(llama, [[5, 6], [5] * (CONTEXT + 1)])

    def test_an_error_in_the_model_comes_through_and_leaves_no_hook(self, llama: ModelHost) -> None:
        with pytest.raises(IndexError):
            collect(llama, [[VOCABULARY + 5]])
        assert hooks_on(llama) == 0


def test_streams_into_an_activation_file(llama: ModelHost, tmp_path: Path) -> None:
    prompts = prompts_of_unequal_length()
    writer = ActivationWriter(
        tmp_path / "aligned.safetensors",
        (DEPTH, len(prompts), WIDTH),
        dtype="float32",
        about={},
    )
    seen: list[tuple[int, int]] = []
    extract(llama, prompts, writer.write, batch_tokens=120, progress=lambda *done: seen.append(done))
    writer.close()
    file, expected = ActivationFile(tmp_path / "aligned.safetensors"), collect_stacked(llama, prompts, batch_tokens=120)
    for layer in range(-1, DEPTH):
        np.testing.assert_array_equal(file.layer(layer), expected[layer + 1])
    assert seen[-1] == (16, 16)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
