"""What a study of a large model takes on GPUs, as `gravity-probe plan` has it, and how far its formula is from here.

python data/docs/scaling.py                      the table: 8B and 70B on one H100 and on eight
python data/docs/scaling.py --calibrate FOLDER   a model in a folder: seconds of the processor against the formula
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CHECKPOINTS, SHAMS, PROMPTS = 40, 39, 256
# The shapes of Llama 3.1, from their public configurations.
SHAPES: dict[str, dict[str, Any]] = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
}
COMMON = {"vocab_size": 128_256, "num_key_value_heads": 8, "dtype": "bfloat16", "tie_word_embeddings": False}
HEADER = (
    "model",
    "on",
    "models at a time × GPUs of each",
    "GPU memory of a model",
    "host memory",
    "measure",
    "evaluate",
    "GPU hours",
    "run folder",
    "checkpoints on disk",
)
READ, ANSWERED, NEW_TOKENS, ROUNDS = 32, 8, 16, 2


def rows() -> Iterator[tuple[str, ...]]:
    """A row for each shape and number of GPUs."""
    from transformers import LlamaConfig

    from probes.lineage import Lineage
    from probes.tasks.plan import Scope, plan

    with TemporaryDirectory() as home:
        for name, shape in SHAPES.items():
            LlamaConfig(**COMMON, **shape).save_pretrained(Path(home) / name)
            for gpus in (1, 8):
                scope = Scope(checkpoints=CHECKPOINTS, shams=SHAMS, prompts=PROMPTS, gpu="h100", gpus=gpus)
                planned = plan(Lineage.of(Path(home) / name, None, [Path(home) / name]), scope=scope)
                yield _cells(name, planned)


def _cells(name: str, planned: Any) -> tuple[str, ...]:
    place = planned.gpu
    if not place.fits:
        return (name, place.name, "does not fit", f"{place.memory_bytes / 1e9:.0f} GB", *["—"] * 4, *_disk(planned))
    hours = [place.measure_seconds / 3600, place.evaluate_seconds / 3600]
    return (
        name,
        place.name,
        f"{place.workers} × {place.devices}",
        f"{place.memory_bytes / 1e9:.0f} GB",
        f"{place.host_bytes / 1e9:.0f} GB",
        *(f"{number:.1f} h" for number in hours),
        f"{place.device_hours:.0f}",
        *_disk(planned),
    )


def _disk(planned: Any) -> tuple[str, str]:
    return f"{planned.run_bytes / 1e9:.1f} GB", f"{planned.checkpoint_bytes / 1e12:.1f} TB"


def calibrate(folder: Path) -> dict[str, float]:
    """Operations a second that reading, answering and noise reach here, beside a matrix product; one thread."""
    import torch

    from probes.activations import extract
    from probes.behaviour.generate import continue_prompts
    from probes.lineage import CheckpointRef
    from probes.models import ModelHost
    from probes.models.prefix import prefix_length
    from probes.models.size import ModelSize
    from probes.prompts import default_prompts, render

    torch.set_num_threads(1)
    ref = CheckpointRef(model=str(folder))
    host, size = ModelHost(ref, device="cpu", dtype="float32"), ModelSize.of(ref)
    prompts = render(default_prompts("probe"), host.tokenizer, host.context_length).token_ids
    chosen, asked = prompts[:READ], prompts[:ANSWERED]
    shared = prefix_length(host, chosen, before=min(map(len, chosen)) - 1)
    own = [len(ids) - shared for ids in chosen]
    mean = statistics.mean(own)
    reading = size.body_flops(sum(own), shared + mean / 2) + size.body_flops(shared, shared / 2)
    context = shared + mean + NEW_TOKENS / 2

    def answer() -> int:
        generations = continue_prompts(host, asked, max_new_tokens=NEW_TOKENS)
        return sum(len(generation.ids) + (not generation.cut_off) for generation in generations)

    product = torch.ones(1024, 1024)
    speeds = {
        "product": 2 * 1024**3 / _seconds(lambda: product @ product),
        "reading": reading / _seconds(lambda: extract(host, chosen, lambda *_: None)),
    }
    started = time.process_time()
    tokens = answer()
    speeds["answering"] = size.answer_flops(tokens, context) / (time.process_time() - started)
    speeds["noise"] = 1e7 / _seconds(lambda: _noise(10_000_000))
    return {
        **speeds,
        "tokens_read": sum(own) + shared,
        "shared_tokens": shared,
        "reading_share": speeds["reading"] / speeds["product"],
        "answering_share": speeds["answering"] / speeds["product"],
    }


def _noise(numbers: int) -> None:
    import torch

    from probes.models.noise import add_noise

    with torch.no_grad():
        add_noise({"weight": torch.zeros(numbers // 1000, 1000)}, {"weight": 1.0}, 0)


def _seconds(work: Callable[[], object]) -> float:
    """Of the processor, the shortest of a few."""
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def main() -> None:
    """Print the table, or the calibration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", type=Path, metavar="FOLDER", help="A model that this machine can hold.")
    folder = parser.parse_args().calibrate
    if folder is not None:
        sys.stdout.write(json.dumps(calibrate(folder), indent=1) + "\n")
        return
    table = [HEADER, tuple("---" for _ in HEADER), *rows()]
    sys.stdout.writelines(f"| {' | '.join(row)} |\n" for row in table)


if __name__ == "__main__":
    main()
