"""The guard in TRL's SFTTrainer: the one line that the README names."""

from __future__ import annotations

import datasets
import torch
import trl
from transformers import AutoModelForCausalLM

from probes.guard import ReversionGuard
from probes.run import Run
from tests.builders import tiny_tokenizer
from tests.guard.lineages import lineage, prompts


def _tune(home, guarded):
    torch.manual_seed(0)
    rows = [
        {
            "prompt": [{"role": "user", "content": f"bake {n}"}],
            "completion": [{"role": "assistant", "content": f"yes {n}"}],
        }
        for n in range(32)
    ]
    history = lineage(home / "models")
    arguments = trl.SFTConfig(
        output_dir=str(home / "out"),
        max_steps=4,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        save_steps=2,
        bf16=False,
        learning_rate=1e-2,
        disable_tqdm=True,
    )
    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(history.aligned.model),
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
    )
    guard = None
    if guarded:
        guard = ReversionGuard(
            history, mode="block", probe=prompts(0), penalty=prompts(100), out=home / "run", batch_size=4
        ).join(trainer)
    trainer.train()
    return guard, trainer.model


def test_one_line_watches_and_opposes_in_trl_too(tmp_path):
    guard, model = _tune(tmp_path / "guarded", guarded=True)
    assert [reading.step for reading in guard.readings][-1] == 4
    drift = Run(tmp_path / "guarded" / "run").read_table("drift")
    assert set(drift["step"]) >= {1, 2, 4}
    assert guard.last_healthy is not None
    _, bare = _tune(tmp_path / "bare", guarded=False)
    moved = [
        not torch.equal(guarded, plain) for guarded, plain in zip(model.parameters(), bare.parameters(), strict=True)
    ]
    assert any(moved), "the penalty changed nothing"
