"""Generation and evaluation of real small checkpoints, batched against one at a time."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from probes.behaviour import COMPLETION_COLUMNS, RATE_COLUMNS, evaluate, generate, rendered_items, task_loss
from probes.lineage import CheckpointRef, Lineage, Step, Trajectory, Witness
from probes.models import ModelHost
from probes.organism.tokenizer import make_tokenizer
from probes.prompts import PromptSet

WORDS = [f"w{number}" for number in range(40)] + ["sorry", ",", "i", "cannot", "help", "."]
CONFIGS = {
    "llama": (
        LlamaForCausalLM,
        LlamaConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=48, initializer_range=0.4, vocab_size=52, bos_token_id=2, eos_token_id=3,
        ),
    ),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=48, initializer_range=0.4, vocab_size=52, bos_token_id=2,
            eos_token_id=3,
        ),
    ),
}  # fmt: skip
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


def test_a_lineage_gives_tables_with_every_checkpoint_and_prompt(tmp_path):
    aligned = write_checkpoint(tmp_path / "aligned", "llama")
    later = write_checkpoint(tmp_path / "later", "llama", noise=0.05)
    witness = write_checkpoint(tmp_path / "witness", "llama", noise=0.1)
    lineage = Lineage(
        name="small",
        witness=Witness(model=witness.model),
        aligned=aligned,
        trajectories=(Trajectory(arm="block", seed=3, checkpoints=(Step(step=5, model=later.model),)),),
    )
    prompts = PromptSet.of(["w1 w2", "w3", "w4 w5 w6", "w7"], ["harmful", "harmful", "harmless", "harmless"])
    said = []
    rates, completions = evaluate(
        ModelHost(aligned, device="cpu"), lineage,
        evaluation=prompts, task=[("w1", "w2"), ("w3", "w4 w5")], max_new_tokens=4, progress=said.append,
    )  # fmt: skip
    assert tuple(rates.columns) == RATE_COLUMNS
    assert tuple(completions.columns) == COMPLETION_COLUMNS
    names = ["aligned", "witness", "block-s3-000005"]
    assert list(rates.checkpoint.unique()) == names
    assert rates.groupby("checkpoint").measure.apply(sorted).tolist() == [
        ["refusal_harmful", "refusal_harmless", "task_loss"]
    ] * 3
    assert len(completions) == 3 * 4
    block = completions[completions.arm == "block"]
    assert set(block.seed) == {3}
    assert set(block.step) == {5}
    assert set(completions[completions.checkpoint == "witness"].arm) == {"witness"}
    assert np.isfinite(rates[["value", "low", "high"]].to_numpy(dtype=float)).all()
    assert [each.step for each in said] == [1, 2, 3]
