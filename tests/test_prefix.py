"""What all prompts begin with is read once, and nothing comes out otherwise than if it were read with each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.activations import collect
from probes.behaviour.generate import continue_prompts
from probes.interventions.projections import read_projections
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.hooks import ablate, add, clamp_prompts
from probes.models.prefix import FEWEST_TOKENS, prefix_fault, prefix_length
from probes.models.view import ModelView
from tests.builders import CONTEXT, FAMILIES, WIDTH, save_adapter, save_checkpoint, tiny_model, tiny_tokenizer
from tests.test_activations import TOLERANCE, by_hugging_face, relative_error

PREFIX = [7, 9, 11, 13, 15, 17]


def prompts(longest: int = 9) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [[*PREFIX, 20 + n, *rng.integers(3, 250, size=n % longest).tolist()] for n in range(7)]


@pytest.fixture(scope="module", params=list(FAMILIES))
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelHost:
    place = tmp_path_factory.mktemp(request.param)
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<s>"
    return ModelHost(save_checkpoint(place, tiny_model(request.param), tokenizer), device="cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ModelHost:
    return ModelHost(save_checkpoint(tmp_path_factory.mktemp("one"), tiny_model(), tiny_tokenizer()), device="cpu")


class Tokens:
    """Counts the tokens that go through the embedding while open."""

    def __init__(self, host: ModelHost) -> None:
        self._embedding, self.count = host.embedding, 0

    def __enter__(self) -> Tokens:
        def count(_: object, args: tuple[torch.Tensor, ...]) -> None:
            self.count += args[0].numel()

        self._hook = self._embedding.register_forward_pre_hook(count)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()


def test_every_family_shares_it_and_equals_transformers_at_every_layer(host: ModelHost) -> None:
    assert host.notices == []
    assert prefix_length(host, prompts()) == len(PREFIX)
    with Tokens(host) as read:
        resid_post, embedding = collect(host, prompts())
    assert read.count <= len(PREFIX) + 9 * len(prompts())
    reference = np.stack([by_hugging_face(host.model, host.blocks, ids) for ids in prompts()], axis=1)
    for layer, rows in enumerate([embedding, *resid_post]):
        assert relative_error(rows, reference[layer]) < TOLERANCE


@pytest.mark.parametrize("position", [0, 3, -2])
def test_positions_within_the_prefix_are_read_whole(host: ModelHost, position: int) -> None:
    longer = [[*ids, 5] for ids in prompts()]
    reference = np.stack([by_hugging_face(host.model, host.blocks, ids, position) for ids in longer], axis=1)
    assert relative_error(collect(host, longer, position=position)[0], reference[1:]) < TOLERANCE


def test_means_over_tokens_of_the_prefix_are_right(llama: ModelHost) -> None:
    spans = [(2, len(ids)) for ids in prompts()]
    resid_post, _ = collect(llama, prompts(), spans=spans)
    states = [[by_hugging_face(llama.model, llama.blocks, ids, at) for at in range(2, len(ids))] for ids in prompts()]
    reference = np.stack([np.mean(places, axis=0) for places in states], axis=1)
    assert relative_error(resid_post, reference[1:]) < TOLERANCE


def test_answers_are_those_that_each_prompt_gets_alone(host: ModelHost) -> None:
    together = continue_prompts(host, prompts(), max_new_tokens=6)
    assert together == [continue_prompts(host, [ids], max_new_tokens=6)[0] for ids in prompts()]


def test_a_prompt_near_the_end_of_the_context_shortens_no_other_answer(host: ModelHost) -> None:
    lengths = [3, 10, CONTEXT - 20, CONTEXT - 8, CONTEXT - 4, CONTEXT - 4, CONTEXT - 1, CONTEXT]
    rng = np.random.default_rng(3)
    crowded = [[*PREFIX, *rng.integers(3, 250, size=CONTEXT).tolist()][:length] for length in lengths]
    together = continue_prompts(host, crowded, max_new_tokens=12)
    assert together == [continue_prompts(host, [ids], max_new_tokens=12)[0] for ids in crowded]
    assert all(len(answer.ids) <= CONTEXT - length for answer, length in zip(together, lengths, strict=True))
    assert max(len(answer.ids) for answer in together) > CONTEXT - lengths[-2]
    assert together[-1].ids == []
    assert together[-1].cut_off


def by_generate(host: ModelHost, ids: list[int], max_new_tokens: int) -> list[int]:
    """What transformers answers one prompt."""
    answer = host.model.generate(
        torch.tensor([ids]), max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=2, attention_mask=None
    )
    return [int(token) for token in answer[0, len(ids) :]]


def test_answers_are_those_of_transformers_whoever_joins_and_leaves(host: ModelHost) -> None:
    """With a stop that comes for some, so that others take their places."""
    expected = [by_generate(host, ids, 12) for ids in prompts()]
    stop = expected[0][2]
    host.model.generation_config.eos_token_id = [1, stop]
    try:
        answers = continue_prompts(host, prompts(), max_new_tokens=12, batch_size=3)
    finally:
        host.model.generation_config.eos_token_id = 1
    for answer, whole in zip(answers, expected, strict=True):
        ends = [place for place, token in enumerate(whole) if token in (0, 1, stop)]
        assert answer.ids == (whole[: ends[0]] if ends else whole)
        assert answer.cut_off == (not ends)


def test_a_cache_gains_room_as_answers_grow(tmp_path) -> None:
    model = tiny_model(max_position_embeddings=256)
    longer = ModelHost(save_checkpoint(tmp_path, model, tiny_tokenizer()), device="cpu")
    longer.model.generation_config.eos_token_id = longer.tokenizer.eos_token = None
    together = continue_prompts(longer, prompts()[:3], max_new_tokens=70)
    assert [answer.ids for answer in together] == [by_generate(longer, ids, 70) for ids in prompts()[:3]]


def test_no_token_is_read_behind_an_answer_that_has_ended(llama: ModelHost) -> None:
    longer = [[*ids, 5] for ids in prompts()]
    alone = [continue_prompts(llama, [ids], max_new_tokens=8)[0].ids for ids in longer]
    llama.model.generation_config.eos_token_id = [alone[0][1], alone[3][4]]
    shapes: list[torch.Size] = []
    hook = llama.embedding.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    try:
        together = continue_prompts(llama, longer, max_new_tokens=8, batch_size=4)
    finally:
        hook.remove()
        llama.model.generation_config.eos_token_id = 1
    assert sum(rows for rows, tokens in shapes if tokens == 1) == sum(
        len(answer.ids) - answer.cut_off for answer in together
    )
    assert max(rows for rows, _ in shapes) <= 4
    assert len({len(answer.ids) for answer in together}) > 2


def test_an_answer_that_is_not_finite_spoils_none_that_takes_its_place(llama: ModelHost) -> None:
    """What it leaves in its row is masked, but a weight of 0 times NaN is NaN."""
    overflows = 251

    def overflow(_: object, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill((args[0] == overflows)[..., None], torch.nan)

    rng = np.random.default_rng(4)
    crowded = [[*PREFIX, 20 + n, *rng.integers(3, 250, size=size).tolist()] for n, size in enumerate([7, 7, 7, 8])]
    crowded[0][-1] = overflows
    hook = llama.embedding.register_forward_hook(overflow)
    try:
        together = continue_prompts(llama, crowded, max_new_tokens=6, openings=[30], batch_size=2)
    finally:
        hook.remove()
    assert np.isnan(together[0].refusal_score)
    assert [answer.ids for answer in together[1:]] == [by_generate(llama, ids, 6) for ids in crowded[1:]]


def test_a_model_that_needs_its_own_mask_is_answered_in_whole_batches(tmp_path, monkeypatch) -> None:
    """A model for which slots behind a row's end are not hidden: the trial sees it, and answers stay right."""
    ref = save_checkpoint(tmp_path, tiny_model(), tiny_tokenizer())
    monkeypatch.setattr("probes.models.row_cache.RowCache.mask", lambda rows: torch.ones(len(rows.lengths), rows.width))
    host = ModelHost(ref, device="cpu")
    assert prefix_fault(host) is not None
    answers = continue_prompts(host, prompts(), max_new_tokens=6)
    assert [answer.ids for answer in answers] == [by_generate(host, ids, 6) for ids in prompts()]


def test_what_is_ablated_everywhere_is_ablated_in_the_prefix_too(llama: ModelHost) -> None:
    direction = np.random.default_rng(2).standard_normal(WIDTH)
    with ablate(llama, direction):
        assert prefix_length(llama, prompts()) == len(PREFIX)
        together, _ = collect(llama, prompts())
        alone = np.stack([collect(llama, [ids])[0][:, 0] for ids in prompts()], axis=1)
    assert relative_error(together, alone) < TOLERANCE


@pytest.mark.parametrize("generated", [True, False])
def test_what_is_added_to_prompts_alone_or_to_answers_too_is_so_behind_a_prefix(
    llama: ModelHost, generated: bool
) -> None:
    vectors = 3 * np.random.default_rng(3).standard_normal((1, WIDTH))
    plain = continue_prompts(llama, prompts(), max_new_tokens=6)
    with add(llama, [1], vectors, generated=generated):
        assert prefix_length(llama, prompts()) == len(PREFIX)
        together = continue_prompts(llama, prompts(), max_new_tokens=6)
        assert together == [continue_prompts(llama, [ids], max_new_tokens=6)[0] for ids in prompts()]
    assert together != plain


def test_what_is_added_at_one_place_of_a_prompt_reads_prompts_whole(llama: ModelHost) -> None:
    vectors = 3 * np.random.default_rng(3).standard_normal((1, WIDTH))
    with add(llama, [1], vectors, positions=[-9]):
        assert prefix_length(llama, prompts()) == 0
    assert prefix_length(llama, prompts()) == len(PREFIX)


@pytest.mark.parametrize(
    "token_ids", [[], [PREFIX], [[*PREFIX[: FEWEST_TOKENS - 1], 30], [*PREFIX[: FEWEST_TOKENS - 1], 31, 32]]]
)
def test_too_little_to_share_is_not_shared(llama: ModelHost, token_ids: list[list[int]]) -> None:
    assert prefix_length(llama, token_ids) == 0


def test_every_prompt_keeps_a_token_of_its_own(llama: ModelHost) -> None:
    assert prefix_length(llama, [PREFIX, [*PREFIX, 5]]) == len(PREFIX) - 1


def test_prompts_beyond_a_sliding_window_are_read_whole(tmp_path) -> None:
    windowed = ModelHost(save_checkpoint(tmp_path, tiny_model("gemma2"), tiny_tokenizer()), device="cpu")
    assert prefix_length(windowed, prompts()) == len(PREFIX)
    long = [[*PREFIX, *range(30, 30 + n)] for n in (4, 14, 20)]
    assert prefix_length(windowed, long) == 0
    reference = np.stack([by_hugging_face(windowed.model, windowed.blocks, ids) for ids in long], axis=1)
    assert relative_error(collect(windowed, long)[0], reference[1:]) < TOLERANCE
    assert prefix_length(windowed, prompts(), more=CONTEXT) == 0


def test_a_model_whose_cache_keeps_something_else_is_read_the_old_way_and_that_is_said(tmp_path) -> None:
    from transformers import AutoModelForCausalLM, MambaConfig

    config = MambaConfig(vocab_size=272, hidden_size=WIDTH, state_size=4, num_hidden_layers=2)
    ref = save_checkpoint(tmp_path, AutoModelForCausalLM.from_config(config).eval(), tiny_tokenizer())
    host = ModelHost(ref, device="cpu")
    assert prefix_fault(host) is not None
    assert any("read with every one of them" in sentence for sentence in host.notices)
    alone = np.stack([collect(host, [ids])[0][:, 0] for ids in prompts()], axis=1)
    assert relative_error(collect(host, prompts())[0], alone) < TOLERANCE


def test_a_model_that_fails_the_trial_is_read_the_old_way(tmp_path, monkeypatch) -> None:
    """A layer that forgets what is in its cache: its own output then hangs on how the prompt was cut."""
    ref = save_checkpoint(tmp_path, tiny_model(), tiny_tokenizer())
    attention = type(ModelHost(ref, device="cpu").model.model.layers[1].self_attn)
    real = attention.forward

    def forget(self, *args, **kwargs):
        if self.layer_idx == 1:
            kwargs = {**kwargs, "cache": None, "past_key_values": None}
        return real(self, *args, **kwargs)

    monkeypatch.setattr(attention, "forward", forget)
    host = ModelHost(ref, device="cpu")
    assert prefix_fault(host) is not None
    assert prefix_length(host, prompts()) == 0
    assert host.notices


def test_an_adapter_is_tried_too(tmp_path) -> None:
    ref = save_checkpoint(tmp_path / "base", tiny_model(), tiny_tokenizer())
    tuned = save_adapter(tmp_path / "adapter", ref, targets=["q_proj", "v_proj"])
    host = ModelHost(ref, device="cpu")
    host.put(CheckpointRef(model=ref.model, adapter=tuned.adapter))
    assert host.prefix_tried == [None]
    together, _ = collect(host, prompts())
    alone = np.stack([collect(host, [ids])[0][:, 0] for ids in prompts()], axis=1)
    assert relative_error(together, alone) < TOLERANCE


def test_a_model_is_not_tried_while_single_prompts_are_held(tmp_path) -> None:
    ref = save_checkpoint(tmp_path / "base", tiny_model(), tiny_tokenizer())
    tuned = save_adapter(tmp_path / "adapter", ref, targets=["q_proj", "v_proj"])
    host = ModelHost(ref, device="cpu")
    host.put(CheckpointRef(model=ref.model, adapter=tuned.adapter))
    host.put(ref)
    for model in (host, ModelView(host.model, host.tokenizer)):
        axis = np.eye(1, WIDTH)
        (held,) = read_projections(host, prompts(), [1], axis[None])
        with clamp_prompts(model, [1], axis, held):
            together = continue_prompts(model, prompts(), max_new_tokens=4)
        assert together == continue_prompts(model, prompts(), max_new_tokens=4)  # held at what it is
        assert prefix_length(model, prompts()) == len(PREFIX)


def test_noise_that_breaks_a_model_is_not_laid_to_its_cache(tmp_path) -> None:
    ref = save_checkpoint(tmp_path / "base", tiny_model(), tiny_tokenizer())
    tuned = save_adapter(tmp_path / "adapter", ref, targets=["q_proj", "v_proj"])
    host = ModelHost(ref, device="cpu")
    host.put(CheckpointRef(model=ref.model, adapter=tuned.adapter))
    with torch.no_grad():
        for tensor in host.bare().values():
            tensor.fill_(float("nan"))
    prefix_length(host, prompts())
    host.put(ref)
    assert prefix_length(host, prompts()) == len(PREFIX)
