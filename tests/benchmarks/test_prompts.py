"""How long 256 prompts take to become token ids, in this process and in one of their own, beside transformers alone."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from probes.prompts import default_prompts, render
from tests.builders import tiny_tokenizer

PROMPTS = default_prompts("probe")
FOLDER = Path(find_spec("trl").origin).parent / "chat_templates"
# The first three are plain; the others are run in a process of their own.
TEMPLATES = ("llama3", "qwen2_5", "qwen3", "gemma3", "llama3_1")


def of_transformers(tokenizer):
    for text in PROMPTS.texts:
        chat = [{"role": "user", "content": text}]
        tokenizer(
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True), add_special_tokens=False
        )


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("who", ["transformers", "ours"])
def test_rendering(benchmark, name, who):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    if who == "ours":
        benchmark(render, PROMPTS, tokenizer, None)
    else:
        benchmark(of_transformers, tokenizer)
