"""What a measurement will take in memory, disk and time, before anything is loaded: from configurations alone.

Parameters are counted on a model without memory (torch's `meta` device). Times are floating-point operations over the
speed that a short matrix product reaches here, or that a GPU of `GPU` reaches; they are estimates, good to about a
factor of two.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from probes.lineage import CheckpointRef, Lineage
from probes.prompts import default_prompts, look_alikes
from probes.store.remote import download_folder, is_url
from probes.store.settings import Settings

GPU = "NVIDIA A100, 80 GB"
_GPU_MEMORY, _GPU_FLOPS, _GPU_READ = 80e9, 312e12 * 0.4, 2e9  # 40 % of its bf16 peak; bytes a second from disk
_DISK_READ = 1e9  # bytes a second, of this machine's disk
_RANK = 16  # of LoRA, where nothing else is said
_RUNTIME = 0.7e9  # Python, torch and transformers themselves
_TOKENS = 48  # of a rendered prompt; ours have 46 on SmolLM2
_NEW_TOKENS = 128
_DECODING = 0.25  # share of the speed of a matrix product that generation reaches, token by token
_SHAM_READS = 2.5  # readings of the harmful prompts behind one draw: the search on few, and the full one
_WORK_TABLES = 1.15  # tables, maps and directions beside the activations


class Place(BaseModel):
    """What a measurement takes on one kind of machine.

    Attributes:
        name: the machine.
        precision: in which the model computes there.
        memory_bytes: at most in use at one time.
        available_bytes: of memory, on this machine those not in use now; None where it is not known.
        fits: whether the one is within the other; None where it is not known.
        measure_seconds: reading every checkpoint, with the shams of a witness.
        evaluate_seconds: letting every checkpoint answer our own evaluation prompts.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    precision: str
    memory_bytes: int
    available_bytes: int | None
    fits: bool | None
    measure_seconds: float
    evaluate_seconds: float


class Plan(BaseModel):
    """What `gravity-probe plan LINEAGE --json` prints.

    Attributes:
        lineage: its name.
        parameters: of the aligned model.
        layers: its blocks.
        d_model: its width.
        checkpoints: how many are read.
        prompts: probe prompts, and evaluation prompts.
        download_bytes: weights that are not on this machine, as they are stored.
        run_bytes: the run folder.
        path_step_bytes: what `--record-path` adds for each optimiser step when every weight is trained.
        path_step_bytes_lora: likewise for LoRA of rank 16 on every linear layer.
        free_bytes: room on this disk.
        this_machine: as it is now.
        gpu: a common GPU.
    """

    model_config = ConfigDict(frozen=True)

    lineage: str
    parameters: int
    layers: int
    d_model: int
    checkpoints: int
    prompts: tuple[int, int]
    download_bytes: int
    run_bytes: int
    path_step_bytes: int
    path_step_bytes_lora: int
    free_bytes: int
    this_machine: Place
    gpu: Place


def plan(lineage: Lineage, out: Path | str = "runs", settings: Settings | None = None) -> Plan:
    """Say what measuring a lineage takes; nothing but configurations is read, from folders or the hub.

    Args:
        lineage: what would be measured.
        out: where the run would be written.
        settings: of the measurement; None is every default.

    Raises:
        CheckpointError: the aligned model's configuration cannot be reached or read.
    """
    from probes.guard.recorded_path import path_bytes  # loads torch

    settings = settings or Settings()
    size = _Size.of(lineage.aligned)
    members = list(lineage.members())
    probe, questions = len(default_prompts("probe").prompts), _evaluation_prompts()
    stored = sum(_weights_to_fetch(ref, size) for ref in dict.fromkeys(member.ref for member in members))
    itemsize = 2 if settings.store_dtype == "float16" else 4
    activations = len(members) * (size.layers + 1) * probe * size.d_model * itemsize
    work = _Work(size, len(members), probe, questions, settings.shams if lineage.witness and settings.nulls else 0)
    return Plan(
        lineage=lineage.name,
        parameters=size.parameters,
        layers=size.layers,
        d_model=size.d_model,
        checkpoints=len(members),
        prompts=(probe, questions),
        download_bytes=stored,
        run_bytes=int(activations * _WORK_TABLES),
        path_step_bytes=path_bytes(size.parameters),
        path_step_bytes_lora=path_bytes(size.adapter),
        free_bytes=shutil.disk_usage(_existing(Path(out))).free,
        this_machine=_here(work),
        gpu=work.on(GPU, "bfloat16", _GPU_MEMORY, _GPU_FLOPS, _GPU_READ),
    )


class _Size(BaseModel):
    """What of a model's configuration decides what it takes."""

    parameters: int
    adapter: int
    active: int
    layers: int
    d_model: int
    stored_itemsize: int
    vocabulary: int
    dtype: str

    @classmethod
    def of(cls, ref: CheckpointRef) -> _Size:
        """From a configuration: parameters counted on a model without memory."""
        import torch
        from transformers import AutoModelForCausalLM

        from probes.models.loading import load_config
        from probes.models.source import fetch_description

        config = load_config(fetch_description(ref.model, ref.revision))
        text = config.get_text_config()
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        dtype = getattr(config, "dtype", None) or torch.float32
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        embedding = model.get_input_embeddings().weight.numel()
        return cls(
            parameters=parameters,
            adapter=_RANK * sum(sum(shape) for shape in _linear_shapes(model)),
            active=max(parameters - embedding, 1),
            layers=int(text.num_hidden_layers),
            d_model=int(text.hidden_size),
            stored_itemsize=dtype.itemsize,
            vocabulary=int(text.vocab_size),
            dtype=str(dtype).removeprefix("torch."),
        )


class _Work(BaseModel):
    """Everything that has to be read and answered."""

    size: _Size
    checkpoints: int
    probe: int
    questions: int
    shams: int

    def __init__(self, size: _Size, checkpoints: int, probe: int, questions: int, shams: int) -> None:
        super().__init__(size=size, checkpoints=checkpoints, probe=probe, questions=questions, shams=shams)

    def on(self, name: str, precision: str, memory: float | None, flops: float, read: float) -> Place:
        """What it takes on a machine of this memory and speed."""
        itemsize = 4 if precision == "float32" else 2
        weights = self.size.parameters * itemsize
        batch = 64 * self.size.vocabulary * 4 + 256 * self.size.d_model * 24 * itemsize
        needed = int(weights + batch + _RUNTIME)
        reading = 2 * self.size.active * self.probe * _TOKENS / flops
        loading = self.size.parameters * self.size.stored_itemsize / read
        measuring = (self.checkpoints + 1) * reading + 2 * self.checkpoints * loading
        measuring += self.shams * _SHAM_READS * reading / 2
        answering = 2 * self.size.active * self.questions * (_TOKENS + _NEW_TOKENS / _DECODING) / flops
        return Place(
            name=name,
            precision=precision,
            memory_bytes=needed,
            available_bytes=None if memory is None else int(memory),
            fits=None if memory is None else needed <= memory,
            measure_seconds=measuring,
            evaluate_seconds=self.checkpoints * (answering + loading),
        )


def _linear_shapes(model: Any) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of what LoRA on every linear layer adapts: all of them but the unembedding."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head:
            rows, columns = module.weight.shape
            yield rows, columns


def _here(work: _Work) -> Place:
    """This machine's memory, precision and speed."""
    import torch

    from probes.models.precision import is_native

    if torch.cuda.is_available():
        name, memory = torch.cuda.get_device_name(), float(torch.cuda.get_device_properties(0).total_memory)
        return work.on(name, work.size.dtype, memory, _matrix_speed("cuda", work.size.dtype), _DISK_READ)
    stored = getattr(torch, work.size.dtype)
    precision = work.size.dtype if is_native(stored) else "float32"
    name = f"this machine ({torch.get_num_threads()} threads)"
    return work.on(name, precision, _available_memory(), _matrix_speed("cpu", precision), _DISK_READ)


def _matrix_speed(device: str, precision: str) -> float:
    """Floating-point operations a second of a matrix product on this device, in this precision."""
    import torch

    side = 1024 if device == "cpu" else 8192
    left = torch.ones(side, side, device=device, dtype=getattr(torch, precision))
    best = min(_seconds(lambda: (left @ left)[0, 0].item()) for _ in range(5))
    return 2 * side**3 / best


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _available_memory() -> float | None:
    """Bytes that programs may still take here, cached files given up for them; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = [float(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kibibytes[0] if kibibytes else None


def _evaluation_prompts() -> int:
    return len(default_prompts("evaluation").prompts) + len(look_alikes().prompts)


def _weights_to_fetch(ref: CheckpointRef, size: _Size) -> int:
    """Bytes of a checkpoint's weights that are not on this machine yet; of an adapter that is here, nothing."""
    if Path(ref.model).exists() or any(_cached_weights(ref.model)):
        return 0
    return size.parameters * size.stored_itemsize


def _cached_weights(model: str) -> Iterator[Path]:
    """Weight files of a model in the hub's cache, or downloaded from a URL."""
    if is_url(model):
        yield from download_folder(model).glob("*.safetensors")
        return
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    yield from folder.glob("snapshots/*/*.safetensors")


def _existing(path: Path) -> Path:
    """The nearest folder that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
