"""What a measurement will take in memory, disk and time, before anything is loaded: from configurations alone.

Times are floating-point operations over a share of the speed that a short matrix product reaches here, or of a GPU's
peak, with what is read from disk and from the memory of the device beside them; good to about a factor of two.
`probes.models.size` counts the operations; every other assumption is a named number below.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from probes.errors import UsageError
from probes.lineage import CheckpointRef, Lineage
from probes.models.machines import GPUS, Machine, this_machine
from probes.models.size import ModelSize
from probes.prompts import default_prompts, look_alikes
from probes.store.remote import download_folder, is_url
from probes.store.settings import Settings

_RUNTIME = 0.7e9  # Python, torch and transformers themselves
_TOKENS = 48  # of a rendered prompt; ours have 46 on SmolLM2
_SHARED = 24  # of them, which all prompts begin with and which are read once
_NEW_TOKENS = 128  # of an answer
_ANSWERING_BATCH = 128  # prompts
_DECODING = 0.25  # share of the speed of reading that generation reaches here, token by token
_SEARCH_PROMPTS, _SEARCHES = 32, 3  # behind one sham draw: prompts that the search of its scale reads, and how often
_DEPTH = 0.6  # of the network: where the headline's layer lies, at which a sham's reading ends
_NOISE = 1e8  # Gaussian numbers a second that one core draws, scales and adds
_SHARD = 5e9  # bytes of a file of weights
_WORK_TABLES = 1.15  # tables, maps and directions beside the activations


class Scope(BaseModel):
    """What is planned for, where it is not the lineage as it is, with our own prompts, beside one common GPU."""

    model_config = ConfigDict(frozen=True)

    checkpoints: int | None = Field(None, ge=1, description="Fine-tuned checkpoints; default: those of the lineage.")
    prompts: int | None = Field(None, ge=2, description="Probe prompts; default: our own.")
    shams: int | None = Field(None, ge=0, description="Sham draws; default: the settings', where there is a witness.")
    gpu: str = Field("a100", description="A GPU: a100, h100, h200 or l40s.")
    gpus: int = Field(1, ge=1, description="How many of them, each with a worker where a model fits on one.")


class Place(BaseModel):
    """What a measurement takes on one kind of machine.

    Attributes:
        name: the machine.
        precision: in which the model computes there.
        memory_bytes: of one model, at most in use at one time.
        available_bytes: of the devices' memory, on this machine those not in use now; None where it is not known.
        fits: whether the one is within the other; None where it is not known.
        devices: over how many of them a model is spread.
        workers: models that are at work at the same time.
        host_bytes: of the machine's own memory: open files, one shard a worker, and the noise of one tensor.
        measure_seconds: reading every checkpoint, with the shams of a witness.
        evaluate_seconds: letting every checkpoint answer our own evaluation prompts.
        device_hours: of all devices together, both of it.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    precision: str
    memory_bytes: int
    available_bytes: int | None
    fits: bool | None
    devices: int
    workers: int
    host_bytes: int
    measure_seconds: float
    evaluate_seconds: float
    device_hours: float


class Plan(BaseModel):
    """What `gravity-probe plan LINEAGE --json` prints.

    Attributes:
        lineage: its name.
        parameters: of the aligned model.
        layers: its blocks.
        d_model: its width.
        checkpoints: how many are read.
        shams: how many are drawn.
        prompts: probe prompts, and evaluation prompts.
        download_bytes: weights that are not on this machine, as they are stored.
        checkpoint_bytes: all checkpoints' weights, where each is a whole model.
        run_bytes: the run folder.
        path_step_bytes: what `--record-path` adds for each optimiser step when every weight is trained.
        path_step_bytes_lora: likewise for LoRA of rank 16 on every linear layer.
        free_bytes: room on this disk.
        this_machine: as it is now.
        gpu: a common GPU, or several.
    """

    model_config = ConfigDict(frozen=True)

    lineage: str
    parameters: int
    layers: int
    d_model: int
    checkpoints: int
    shams: int
    prompts: tuple[int, int]
    download_bytes: int
    checkpoint_bytes: int
    run_bytes: int
    path_step_bytes: int
    path_step_bytes_lora: int
    free_bytes: int
    this_machine: Place
    gpu: Place


def plan(
    lineage: Lineage, out: Path | str = "runs", settings: Settings | None = None, scope: Scope | None = None
) -> Plan:
    """Say what measuring a lineage takes; nothing but configurations is read, from folders or the hub.

    Args:
        lineage: what would be measured.
        out: where the run would be written.
        settings: of the measurement; None is every default.
        scope: other numbers of checkpoints, prompts, shams and GPUs.

    Raises:
        CheckpointError: the aligned model's configuration cannot be reached or read.
        UsageError: no GPU of that name is known.
    """
    from probes.guard.recorded_path import path_bytes  # loads torch

    settings, scope = settings or Settings(), scope or Scope()
    if scope.gpu not in GPUS:
        raise UsageError("This GPU is not known", got=scope.gpu, expected=", ".join(GPUS))
    work = _Work.of(lineage, settings, scope)
    size = work.size
    stored = sum(_weights_to_fetch(ref, size) for ref in dict.fromkeys(member.ref for member in lineage.members()))
    itemsize = 2 if settings.store_dtype == "float16" else 4
    activations = work.checkpoints * (size.layers + 1) * work.probe * size.d_model * itemsize
    gpus = GPUS[scope.gpu].model_copy(update={"devices": scope.gpus})
    return Plan(
        lineage=lineage.name,
        parameters=size.parameters,
        layers=size.layers,
        d_model=size.d_model,
        checkpoints=work.checkpoints,
        shams=work.shams,
        prompts=(work.probe, work.questions),
        download_bytes=stored,
        checkpoint_bytes=work.checkpoints * size.parameters * size.itemsize,
        run_bytes=int(activations * _WORK_TABLES),
        path_step_bytes=path_bytes(size.parameters),
        path_step_bytes_lora=path_bytes(size.adapter),
        free_bytes=shutil.disk_usage(_existing(Path(out))).free,
        this_machine=work.on(*this_machine(work.size.dtype)),
        gpu=work.on(gpus, "bfloat16"),
    )


class _Work(BaseModel):
    """Everything that has to be read and answered."""

    size: ModelSize
    checkpoints: int
    tuned: int
    probe: int
    questions: int
    shams: int

    @classmethod
    def of(cls, lineage: Lineage, settings: Settings, scope: Scope) -> _Work:
        """Of a lineage, but for what the scope says."""
        members = list(lineage.members())
        roles = sum(member.is_role for member in members)
        tuned = len(members) - roles if scope.checkpoints is None else scope.checkpoints
        drawn = settings.shams if lineage.witness and settings.nulls else 0
        return cls(
            size=ModelSize.of(lineage.aligned),
            checkpoints=roles + tuned,
            tuned=tuned,
            probe=scope.prompts or len(default_prompts("probe").prompts),
            questions=_evaluation_prompts(),
            shams=drawn if scope.shams is None else scope.shams,
        )

    def on(self, machine: Machine, precision: str) -> Place:
        """What it takes on a machine."""
        itemsize = 4 if precision == "float32" else 2
        weights = self.size.parameters * itemsize
        batch = 64 * self.size.vocabulary * 4 + 256 * self.size.d_model * 24 * itemsize
        needed = int(weights + batch + _RUNTIME)
        memory = machine.memory
        devices = 1 if memory is None else max(1, math.ceil(needed / memory)) if machine.bandwidth else 1
        workers = max(1, machine.devices // devices)
        loading = self.size.parameters * self.size.itemsize / machine.read
        jobs, answers = self._reading(machine, loading), self.checkpoints * self._answering(machine, loading, itemsize)
        hashing = self.checkpoints * loading  # of all files, before anything is read
        return Place(
            name=machine.name if machine.devices == 1 else f"{machine.devices} × {machine.name}",
            precision=precision,
            memory_bytes=needed,
            available_bytes=None if memory is None else int(memory * machine.devices),
            fits=None if memory is None else needed <= memory * machine.devices,
            devices=devices,
            workers=workers,
            host_bytes=self._host_bytes(workers),
            measure_seconds=hashing + jobs / workers,
            evaluate_seconds=answers / workers,
            device_hours=devices * (jobs + answers) / 3600,
        )

    def _reading(self, machine: Machine, loading: float) -> float:
        """Seconds of one device for all that `measure` reads; of every checkpoint, its weights are compared too."""
        reading = self._prompts_flops(self.probe) / machine.speed
        searched = _SEARCHES * self._prompts_flops(_SEARCH_PROMPTS) + self._prompts_flops(self.probe / 2)
        below = _DEPTH * self.size.body + self.size.head  # what the headline's layer depends on, the embedding with it
        drawn = (_SEARCHES * below + self.size.parameters) / _NOISE
        noising = drawn + (_SEARCHES + 1) * loading  # the aligned weights are read again each time
        sham = noising + (_DEPTH * searched + self._prompts_flops(_SEARCH_PROMPTS)) / machine.speed
        return (self.checkpoints + 1) * (loading + reading) + 2 * self.tuned * loading + self.shams * sham

    def _prompts_flops(self, prompts: int | float) -> float:
        """Operations of so many prompts through the body, their shared beginning once."""
        own = _TOKENS - _SHARED
        return self.size.body_flops(prompts * own, _SHARED + own / 2) + self.size.body_flops(_SHARED, _SHARED / 2)

    def _answering(self, machine: Machine, loading: float, itemsize: int) -> float:
        """Seconds of one device until one checkpoint has answered."""
        context = _TOKENS + _NEW_TOKENS / 2
        tokens = self.questions * _NEW_TOKENS
        computing = self.size.answer_flops(tokens, context) / machine.speed
        if machine.bandwidth is None:
            decoding = computing / _DECODING
        else:  # every token reads all weights and the caches of its batch once
            rounds = math.ceil(self.questions / _ANSWERING_BATCH) * _NEW_TOKENS
            moved = rounds * self.size.parameters + tokens * context * self.size.cache
            decoding = max(computing, moved * itemsize / machine.bandwidth)
        return loading + self._prompts_flops(self.questions) / machine.speed + decoding

    def _host_bytes(self, workers: int) -> int:
        """The files of one checkpoint, which workers share, and each worker's own: a shard, and one tensor's noise."""
        stored = self.size.parameters * self.size.itemsize
        noise = 2 * 4 * self.size.largest if self.shams else 0
        return int(stored + workers * (_RUNTIME + min(1.2 * _SHARD, stored) + noise))


def _evaluation_prompts() -> int:
    return len(default_prompts("evaluation").prompts) + len(look_alikes().prompts)


def _weights_to_fetch(ref: CheckpointRef, size: ModelSize) -> int:
    """Bytes of a checkpoint's weights that are not on this machine yet; of an adapter that is here, nothing."""
    if Path(ref.model).exists() or any(_cached_weights(ref.model)):
        return 0
    return size.parameters * size.itemsize


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
