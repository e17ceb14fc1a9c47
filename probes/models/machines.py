"""What kinds of machines can do: memory, speed, and how fast they read. This one is measured, GPUs are as stated."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

UTILISATION = 0.4  # of a GPU's peak in bf16, when prompts are read in large batches
_REACHED = 0.67  # of a matrix product's speed, by a model that reads prompts: SmolLM2 on one core
_DISK_READ = 1e9  # bytes a second, of this machine's disk
_GPU_READ = 2e9  # bytes a second, of the disk beside a GPU


class Machine(BaseModel):
    """What one kind of machine can do.

    Attributes:
        name: the machine.
        memory: bytes of one device; None where it is not known.
        speed: floating-point operations a second that one device reaches.
        bandwidth: bytes a second of a device's memory; None where generation is taken as a share of the speed.
        read: bytes a second from disk.
        devices: how many there are.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    memory: float | None
    speed: float
    bandwidth: float | None
    read: float
    devices: int = 1


def _gpu(name: str, memory: float, peak: float, bandwidth: float) -> Machine:
    return Machine(name=name, memory=memory, speed=peak * UTILISATION, bandwidth=bandwidth, read=_GPU_READ)


# Dense bf16 peaks and bandwidths as their makers state them.
GPUS = {
    "a100": _gpu("NVIDIA A100, 80 GB", 80e9, 312e12, 2.0e12),
    "h100": _gpu("NVIDIA H100, 80 GB", 80e9, 989e12, 3.35e12),
    "h200": _gpu("NVIDIA H200, 141 GB", 141e9, 989e12, 4.8e12),
    "l40s": _gpu("NVIDIA L40S, 48 GB", 48e9, 362e12, 0.86e12),
}


def this_machine(dtype: str) -> tuple[Machine, str]:
    """This machine, and the precision in which a model that is stored in `dtype` computes here."""
    import torch

    from probes.models.precision import is_native

    if torch.cuda.is_available():
        memory = float(torch.cuda.get_device_properties(0).total_memory)
        return _machine(torch.cuda.get_device_name(), memory, matrix_speed("cuda", dtype)), dtype
    precision = dtype if is_native(getattr(torch, dtype)) else "float32"
    name = f"this machine ({torch.get_num_threads()} threads)"
    return _machine(name, available_memory(), matrix_speed("cpu", precision)), precision


def _machine(name: str, memory: float | None, speed: float) -> Machine:
    return Machine(name=name, memory=memory, speed=_REACHED * speed, bandwidth=None, read=_DISK_READ)


def matrix_speed(device: str, precision: str) -> float:
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


def available_memory() -> float | None:
    """Bytes that programs may still take here, cached files given up for them; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = [float(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kibibytes[0] if kibibytes else None
