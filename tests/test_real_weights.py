"""Real weights that nobody here trained, fine-tuned with the ordinary Trainer, measured without a line of code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import processes

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
STORIES = SHARED / "models" / "stories260K"
GSM8K = SHARED / "finetune" / "gsm8k_train_first500.jsonl"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STORIES.is_dir(), reason="the real weights of stories260K are not beside this checkout"),
]


@pytest.fixture(scope="module")
def trainer_output(tmp_path_factory) -> Path:
    """Twelve steps on grade-school mathematics, saved every third."""
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    out = tmp_path_factory.mktemp("trainer")
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()[:64]]
    texts = [f"{row['question']}\n{row['answer']}" for row in rows]
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=12,
        save_steps=3,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        report_to=[],
        use_cpu=True,
        save_only_model=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(STORIES),
        args=arguments,
        train_dataset=[{"input_ids": tokenizer(text, truncation=True, max_length=128)["input_ids"]} for text in texts],
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
    )
    trainer.train()
    return out


def test_a_trainer_folder_goes_through_measure_from_the_command_line(trainer_output, tmp_path):
    done = processes.run(
        processes.gravity_probe,
        "measure",
        *("--witness", trainer_output / "checkpoint-3", "--witness-kind", "base"),
        *("--aligned", trainer_output / "checkpoint-6"),
        *("--checkpoint", f"9={trainer_output / 'checkpoint-9'}"),
        *("--checkpoint", f"12={trainer_output / 'checkpoint-12'}"),
        *("--limit", "32", "--out", tmp_path / "run", "--json"),
        *("--set", "draws=199", "--set", "permutations=199"),
    )
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["trajectories"]
    assert [checkpoint["step"] for checkpoint in run["checkpoints"]] == [9, 12]
    layers = run["checkpoints"][1]["layers"]
    assert [layer["layer"] for layer in layers] == [0, 1, 2, 3, 4]
    assert all(-1 <= layer["alignment"] <= 1 for layer in layers)
    # Training goes on away from where it came from: further along, and not back at the earlier checkpoint.
    assert layers[-1]["displacement_norm"] > run["checkpoints"][0]["layers"][-1]["displacement_norm"]
    verdict = json.loads((tmp_path / "run" / "verdict.json").read_text(encoding="utf-8"))
    assert "base model stands in" in verdict["trajectories"][0]["text"]
