"""In which precision a model computes here, where nobody has asked for one."""

from __future__ import annotations

from typing import Any

import torch

_NATIVE = {
    torch.bfloat16: ("_is_amx_tile_supported", "_is_avx512_bf16_supported"),
    torch.float16: ("_is_amx_fp16_supported",),
}


def is_native(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies numbers of this precision itself; otherwise each is converted every time."""
    if dtype not in _NATIVE:
        return True
    # Torch has had these questions since different versions; one that it does not know it does not use either.
    return any(getattr(torch.cpu, name, bool)() for name in _NATIVE[dtype])


def in_fitting_precision(model: Any, device: torch.device) -> Any:
    """The model in float32 where it is stored in a half precision that the processor does not multiply; else as is."""
    return model.float() if device.type == "cpu" and not is_native(model.dtype) else model


def trains_in_half() -> bool:
    """Whether training in mixed bfloat16 is faster here than in float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return is_native(torch.bfloat16)


def precision_notice(stored: torch.dtype, computed: torch.dtype) -> str | None:
    """A sentence where a model computes in another precision than its weights are stored in; else None."""
    if stored == computed:
        return None
    names = [str(dtype).removeprefix("torch.") for dtype in (stored, computed)]
    return f"The weights are stored in {names[0]}, and the model computes in {names[1]}."
