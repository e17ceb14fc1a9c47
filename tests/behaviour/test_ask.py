"""Asking real small checkpoints: batched against one at a time, and by the definitions."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from probes.activations import collect
from probes.behaviour import read_completion
from probes.behaviour.answer_form import without_thinking
from probes.behaviour.answer_means import AnswerMeans
from probes.behaviour.answering import answer_again, base_flip_rate, prompt_frame
from probes.behaviour.ask import ask_checkpoint, completion_text
from probes.behaviour.generate import continue_prompts, generate
from probes.behaviour.judges import Judgement, open_judge
from probes.behaviour.refusal_score import refusal_scores, refusal_tokens
from probes.behaviour.task import rendered_items, task_loss
from probes.errors import PromptError, StatisticsError
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.organism.tokenizer import make_tokenizer
from probes.prompts import PromptSet, Rendering, render
from tests.builders import tiny_tokenizer

WORDS = [f"w{number}" for number in range(40)] + ["sorry", ",", "i", "cannot", "help", "."]
CONFIGS = {
    "llama": (
        LlamaForCausalLM,
        LlamaConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=48,
            initializer_range=0.4,
            vocab_size=52,
            bos_token_id=2,
            eos_token_id=3,
        ),
    ),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config(
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=48,
            initializer_range=0.4,
            vocab_size=52,
            bos_token_id=2,
            eos_token_id=3,
        ),
    ),
}
PROMPTS = [[2, 4, *range(6, 6 + length), 5] for length in (1, 3, 3, 9, 14)]


def write_checkpoint(folder, kind, *, seed=0, noise=0.0):
    model_class, config = CONFIGS[kind]
    torch.manual_seed(seed)
    model = model_class(config)
    if noise:
        with torch.no_grad():
            for weight in model.parameters():
                weight += noise * weight.std().nan_to_num() * torch.randn_like(weight)
    model.save_pretrained(folder)
    make_tokenizer(WORDS).save_pretrained(folder)
    return CheckpointRef(model=str(folder))


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("rows", [2, 128])
def test_a_batch_gives_each_prompt_what_it_gets_alone(tmp_path, kind, rows):
    host = ModelHost(write_checkpoint(tmp_path, kind), device="cpu")
    together = generate(host, PROMPTS, max_new_tokens=12, batch_size=rows)
    for prompt, answer in zip(PROMPTS, together, strict=True):
        ids = list(prompt)
        for _ in range(12):
            with torch.no_grad():
                token = int(host.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token == 3:
                break
            ids.append(token)
        assert answer == ids[len(prompt) :]
    assert len({tuple(answer) for answer in together}) > 1


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("batched", ["rows that leave", "batches that stay"])
def test_means_over_answers_are_those_of_reading_them_afterwards(tmp_path, kind, batched):
    host = ModelHost(write_checkpoint(tmp_path, kind), device="cpu")
    stop = generate(host, PROMPTS[:1], max_new_tokens=12)[0][2]  # so that answers are of several lengths, one of none
    host.model.generation_config.eos_token_id = [3, stop, generate(host, PROMPTS[4:], max_new_tokens=1)[0][0]]
    if batched == "batches that stay":
        host.prefix_tried[:] = ["its cache is of another kind"]
    means = AnswerMeans(host, len(PROMPTS))
    answers = generate(host, PROMPTS, max_new_tokens=12, batch_size=3, listen=means.listen)
    fed = [answer[:11] for answer in answers]  # the twelfth token is not read
    assert means.tokens.tolist() == list(map(len, fed))
    assert len(set(means.tokens)) > 1
    assert 0 in means.tokens
    texts = [[*prompt, *answer] for prompt, answer in zip(PROMPTS, fed, strict=True)]
    spans = [(min(len(p), len(t) - 1), len(t)) for p, t in zip(PROMPTS, texts, strict=True)]
    streams, embedding = collect(host, texts, spans=spans)
    assert np.allclose(means.of_layer(-1), embedding, atol=1e-5)
    for layer, expected in enumerate(streams):
        assert np.allclose(means.of_layer(layer), expected, atol=1e-5)


def test_generation_ends_at_the_context(tmp_path):
    host = ModelHost(write_checkpoint(tmp_path, "gpt2"), device="cpu")
    (generation,) = continue_prompts(host, [[2, *range(6, 46), 5]], max_new_tokens=30)
    assert len(generation.ids) <= 6
    assert generation.cut_off == (len(generation.ids) == 6)
    (full,) = continue_prompts(host, [list(range(6, 46)) + list(range(6, 14))], max_new_tokens=30)
    assert (full.ids, full.cut_off) == ([], True)


@pytest.mark.parametrize("batch_size", [2, 128])
def test_an_answer_is_cut_off_where_no_stop_token_came_and_not_where_one_did(tmp_path, batch_size):
    host = ModelHost(write_checkpoint(tmp_path, "llama"), device="cpu")
    stop = generate(host, PROMPTS[:1], max_new_tokens=12)[0][2]  # a token that does come
    host.model.generation_config.eos_token_id = [3, stop]
    expected = {}
    for length in (1, 4, 12):
        for number, prompt in enumerate(PROMPTS):
            ids = list(prompt)
            for _ in range(length):
                with torch.no_grad():
                    ids.append(int(host.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] in (3, stop):
                    break
            expected[length, number] = ids[-1] not in (3, stop)
        continued = continue_prompts(host, PROMPTS, max_new_tokens=length, batch_size=batch_size)
        assert [generation.cut_off for generation in continued] == [expected[length, number] for number in range(5)]
    assert set(expected.values()) == {True, False}


def with_tokens(tokenizer, *tokens):
    """The tokenizer with more special tokens."""
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    return tokenizer


def test_a_completion_keeps_the_marks_of_its_form_and_no_other_special_token():
    tokenizer = with_tokens(make_tokenizer(WORDS), "<think>", "</think>", "<|im_start|>", "<odd>")
    ids = tokenizer.convert_tokens_to_ids(["<odd>", "<think>", "w1", "</think>", "w2", "<|im_start|>", "<pad>"])
    prompt = tokenizer.convert_tokens_to_ids(["<s>", "w3"])
    assert completion_text(tokenizer, prompt, ids).replace(" ", "") == "<think>w1</think>w2<|im_start|>"


def test_where_the_template_opens_the_thinking_the_answer_begins_inside():
    tokenizer = with_tokens(make_tokenizer(WORDS), "<think>", "</think>")
    opened, closed, w1, w2 = tokenizer.convert_tokens_to_ids(["<think>", "</think>", "w1", "w2"])
    cut_off = completion_text(tokenizer, [w1, opened], [w2])
    assert read_completion(cut_off).label == "unjudged"
    whole = completion_text(tokenizer, [w1, opened], [w2, closed, w1])
    assert without_thinking(whole).strip() == "w1"
    assert "<think>" not in completion_text(tokenizer, [opened, w1, closed], [w2])


def test_the_frame_of_a_prompt_is_what_the_template_sets_around_it():
    tokenizer = make_tokenizer(WORDS)
    before, behind = prompt_frame(tokenizer)
    rendered = render(PromptSet.of(["w1"], ["harmful"]), tokenizer, None).token_ids[0]
    assert tokenizer(f"{before}w1{behind}", add_special_tokens=False)["input_ids"] == list(rendered)
    tokenizer.chat_template = None
    assert prompt_frame(tokenizer) == ("", "")


def test_a_model_asked_again_in_other_batches_flips_nothing_in_full_precision(tmp_path):
    host = ModelHost(write_checkpoint(tmp_path, "llama"), device="cpu")
    prompts = PromptSet.of([f"w{number} w{number + 1}" for number in range(9)], ["harmful"] * 9)
    first, *again = [answer_again(host, prompts, repeat, max_new_tokens=4, batch_size=4) for repeat in range(3)]
    assert base_flip_rate(prompts, first, again, open_judge("builtin")) == 0.0
    with pytest.raises(StatisticsError, match="repeats"):
        base_flip_rate(prompts, first, [], open_judge("builtin"))


def test_flips_are_counted_over_prompts_and_repeats():
    prompts = PromptSet.of([f"w{number}" for number in range(6)], ["harmful"] * 6)

    class Fickle:
        """Calls everything a refusal at first, later two of six compliance, and one unjudged."""

        name, identity, rounds = "fickle", None, 0

        def label(self, exchanges):
            self.rounds += 1
            later = ["compliance", "compliance", "unjudged", "refusal", "refusal", "refusal"]
            labels = ["refusal"] * 6 if self.rounds == 1 else later
            by_prompt = dict(zip(prompts.texts, labels, strict=True))
            return (Judgement(by_prompt[exchange.prompt]) for exchange in exchanges)

    rate = base_flip_rate(prompts, ["sure"] * 6, [["sure"] * 6] * 3, Fickle())
    assert rate == pytest.approx(2 / 5)


def test_task_loss_is_the_mean_over_answer_tokens(tmp_path):
    host = ModelHost(write_checkpoint(tmp_path, "llama"), device="cpu")
    items = rendered_items([("w1 w2", "w3 w4 w5"), ("w6", "w7")], host.tokenizer)
    total, tokens = 0.0, 0
    for question, answer in items:
        ids = [*question, *answer]
        with torch.no_grad():
            log = host.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for place in range(len(question), len(ids)):
            total -= log[place - 1, ids[place]].item()
            tokens += 1
    assert tokens == 4 + 2  # the words and the end of each answer
    assert task_loss(host, items).value == pytest.approx(total / tokens, rel=1e-5)


def test_the_refusal_score_is_the_log_odds_of_its_definition(tmp_path):
    host = ModelHost(write_checkpoint(tmp_path, "gpt2"), device="cpu")
    tokens = refusal_tokens(host.tokenizer)
    assert {host.tokenizer.convert_ids_to_tokens(token) for token in tokens} == {"sorry", "i"}
    for prompt, score in zip(PROMPTS, refusal_scores(host, PROMPTS, tokens), strict=True):
        with torch.no_grad():
            chances = host.model(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
        share = float(chances[list(tokens)].sum())
        assert score == pytest.approx(np.log(share) - np.log(1 - share), abs=1e-4)


def test_a_checkpoint_is_asked_everything(tmp_path):
    host = ModelHost(write_checkpoint(tmp_path, "llama"), device="cpu")
    progress = []
    answers = ask_checkpoint(host, PROMPTS, max_new_tokens=4, done=lambda *done: progress.append(done))
    assert len(answers.completions) == len(PROMPTS)
    assert answers.cut_off.dtype == bool
    scores = refusal_scores(host, PROMPTS, refusal_tokens(host.tokenizer))
    np.testing.assert_allclose(answers.scores, scores, atol=1e-5)
    assert progress[-1] == (len(PROMPTS), len(PROMPTS))


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ messages[0].content }}"


@pytest.mark.parametrize("render_all", [lambda tokenizer: rendered_items([("a", "b")], tokenizer), prompt_frame])
def test_a_template_that_does_not_end_is_stopped_here_too(monkeypatch, render_all):
    monkeypatch.setattr("probes.prompts.chat.SECONDS", 0.3)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = ENDLESS
    with pytest.raises(PromptError, match=r"The chat template fails on (task item 1|prompt)"):
        render_all(tokenizer)


def test_task_items_are_rendered_as_the_run_is():
    tokenizer = tiny_tokenizer()
    rendering = Rendering("{% for turn in messages %}[{{ turn.role }}]{{ turn.content }};{% endfor %}", "be brief")
    ((before, answer),) = rendered_items([("add", "two")], tokenizer, rendering)
    assert tokenizer.decode(before) == "[system]be brief;[user]add;"
    assert tokenizer.decode(answer) == "[assistant]two;"
