"""Asking real small checkpoints: batched against one at a time, and by the definitions."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from probes.behaviour.ask import ask
from probes.behaviour.generate import generate
from probes.behaviour.refusal_score import refusal_scores, refusal_tokens
from probes.behaviour.task import rendered_items, task_loss
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.organism.tokenizer import make_tokenizer

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
    together = generate(host, PROMPTS, max_new_tokens=12, rows=rows)
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


def test_generation_ends_at_the_context(tmp_path):
    host = ModelHost(write_checkpoint(tmp_path, "gpt2"), device="cpu")
    (answer,) = generate(host, [[2, *range(6, 46), 5]], max_new_tokens=30)
    assert len(answer) <= 6


def test_task_loss_is_the_mean_over_answer_tokens(tmp_path):
    host = ModelHost(write_checkpoint(tmp_path, "llama"), device="cpu")
    items = rendered_items([("w1 w2", "w3 w4 w5"), ("w6", "w7")], host.tokenizer)
    total, tokens = 0.0, 0
    for asked, answered in items:
        ids = [*asked, *answered]
        with torch.no_grad():
            log = host.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for place in range(len(asked), len(ids)):
            total -= log[place - 1, ids[place]].item()
            tokens += 1
    assert tokens == 4 + 2  # the words and the end of each answer
    assert task_loss(host, items).value == pytest.approx(total / tokens, rel=1e-5)


def test_the_refusal_score_is_the_log_odds_of_its_definition(tmp_path):
    host = ModelHost(write_checkpoint(tmp_path, "gpt2"), device="cpu")
    tokens = refusal_tokens(host.tokenizer)
    assert {host.tokenizer.convert_ids_to_tokens(token) for token in tokens} == {"sorry", "i"}
    for prompt, found in zip(PROMPTS, refusal_scores(host, PROMPTS, tokens), strict=True):
        with torch.no_grad():
            chances = host.model(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
        share = float(chances[list(tokens)].sum())
        assert found == pytest.approx(np.log(share) - np.log(1 - share), abs=1e-4)


def test_a_checkpoint_is_asked_everything(tmp_path):
    host = ModelHost(write_checkpoint(tmp_path, "llama"), device="cpu")
    items = rendered_items([("w1 w2", "w3 w4 w5"), ("w6", "w7")], host.tokenizer)
    told = []
    found = ask(host, PROMPTS, items, max_new_tokens=4, done=lambda *where: told.append(where))
    assert len(found.completions) == len(found.scores) == len(PROMPTS)
    assert found.tokens.tolist() == [4, 2]
    assert found.losses.sum() / 6 == pytest.approx(task_loss(host, items).value)
    assert told[-1] == (len(PROMPTS), len(PROMPTS))
