"""Where a model's weights lie, and in which form: on one device, spread over several, or in 4 or 8 bits.

Spreading is accelerate's (`device_map`): each block computes on its own device, and what does not fit onto accelerators
stays in host memory or on disk and comes in as it is needed. Fewer bits are bitsandbytes'. Both are for reading and
answering: the numbers that a model of either kind computes with are not there to be written over.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import nn

from probes.errors import CheckpointError, UsageError
from probes.models.devices import accelerate_hooks, find_device
from probes.models.loading import load_config, load_model
from probes.models.precision import in_fitting_precision, is_native
from probes.models.weights import WeightFiles

Quantisation = Literal["4bit", "8bit"]
DeviceMap = str | Mapping[str, str | int]
STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
_HELD = ("cpu", "disk")  # in a device map: held there, and computed elsewhere where there is an accelerator
_FORMS = {"4bit": "4 bits (NF4)", "8bit": "8 bits (LLM.int8)"}
_OLDEST = (0, 46)  # bitsandbytes, which from there on computes on other devices than CUDA's


@dataclass(frozen=True)
class Placement:
    """Where and in which form the weights are to be held.

    Attributes:
        device: `auto` (CUDA if there, else MPS, else CPU) or a torch device.
        device_map: spread over devices: `auto`, `balanced`, `balanced_low_0` or `sequential` as of transformers, or a
            device (a number, `cpu`, `disk`) by module name; None is all on `device`.
        quantize: hold the blocks' matrices in 4 or 8 bits; None is as stored.
    """

    device: str = "auto"
    device_map: DeviceMap | None = None
    quantize: Quantisation | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing is asked for but one device."""
        return self.device_map is None and self.quantize is None

    @property
    def device_name(self) -> str | None:
        """The device that holds it whole, where it is to be opened in another process too; None where it is spread.

        Raises:
            UsageError: there is no such device here.
        """
        return str(find_device(self.device)) if self.device_map is None else None

    def load(self, folder: Path, dtype: str | torch.dtype, *, pickled: bool) -> tuple[Any, torch.dtype]:
        """The model in its place, and the precision that its files are in.

        Args:
            folder: a Hugging Face folder, or a GGUF file.
            dtype: `auto` for as stored, or what fits the processor; else a precision.
            pickled: whether its weights are pickled.

        Raises:
            CheckpointError: it cannot be read.
            UsageError: there is no such device here, or a package that this needs is not there.
        """
        if self.is_plain:
            device = find_device(self.device)
            model = load_model(folder, dtype, pickled=pickled)
            stored = model.dtype
            return (in_fitting_precision(model, device) if dtype == "auto" else model).to(device), stored
        return self._load_specially(folder, dtype, pickled=pickled)

    def _load_specially(self, folder: Path, dtype: str | torch.dtype, *, pickled: bool) -> tuple[Any, torch.dtype]:
        main = self._check()
        files = WeightFiles.of_model(folder, allow_pickle=pickled)
        if files.is_gguf or files.wrapped:
            raise CheckpointError(
                f"{folder} can only be read whole, on one device",
                got="a GGUF file" if files.is_gguf else "names of data parallelism or torch.compile",
                next_step="Save it with save_pretrained first, or leave --device-map and --quantize out.",
            )
        stored = _stored_precision(folder, files)
        fitting = stored if main.type != "cpu" or is_native(stored) else torch.float32
        chosen = fitting if dtype == "auto" else dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
        aside = TemporaryDirectory(prefix="gravity-probe-", ignore_cleanup_errors=True)
        model = load_model(folder, chosen, pickled=pickled, **self._options(main, chosen), offload_folder=aside.name)
        model.set_aside = aside  # lives as long as the model, which reads what is on disk from there
        return model, stored

    def _options(self, main: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        options: dict[str, Any] = {"device_map": {"": str(main)} if self.device_map is None else self.device_map}
        if not isinstance(options["device_map"], str):
            options["device_map"] = dict(options["device_map"])
        if self.quantize is not None:
            options["quantization_config"] = _bits(self.quantize, dtype)
        return options

    def _check(self) -> torch.device:
        """The device that computes, or that computes first."""
        if importlib.util.find_spec("accelerate") is None:
            raise UsageError(
                "A model in several places or in fewer bits needs accelerate",
                next_step="pip install 'gravity-probe[train]'",
            )
        main = find_device(self.device)
        if isinstance(self.device_map, str) and self.device_map not in STRATEGIES:
            raise UsageError(
                "There is no such device map",
                got=self.device_map,
                expected=f"{', '.join(STRATEGIES)}, or a JSON file that gives modules their devices",
            )
        if self.device_map is not None and self.device != "auto":
            raise UsageError("Give a device or a device map, not both", got=f"{self.device} and a device map")
        if isinstance(self.device_map, Mapping):
            named = [find_device(_device_name(place)) for place in self.device_map.values() if place != "disk"]
            main = next((device for device in named if device.type != "cpu"), torch.device("cpu"))
        if self.quantize is not None:
            _check_bitsandbytes(main)
        return main


def is_whole(model: nn.Module) -> bool:
    """Whether a model's numbers are there to be copied and written over: none in fewer bits, none held elsewhere."""
    return not is_quantised_model(model) and not any(tensor.is_meta for tensor in model.parameters())


def is_quantised_model(model: nn.Module) -> bool:
    """Whether transformers holds this model in fewer bits; a GGUF file's numbers it has turned into ordinary ones."""
    quantizer = getattr(model, "hf_quantizer", None)
    return quantizer is not None and quantizer.quantization_config.quant_method != "gguf"


def describe_placement(model: nn.Module, quantize: Quantisation | None) -> dict[str, Any]:
    """For a run's manifest: on how many modules each device has, and in how many bits, where not plainly."""
    about: dict[str, Any] = {}
    spread = getattr(model, "hf_device_map", None) or {}
    if len(spread) > 1 or "disk" in spread.values():
        about["devices"] = dict(Counter(str(place) for place in spread.values()))
    if quantize is not None:
        about["quantized"] = quantize
        about["bitsandbytes"] = importlib.metadata.version("bitsandbytes")
    return about


def placement_notices(model: nn.Module, quantize: Quantisation | None) -> Iterator[str]:
    """Sentences on what a reader would not expect of a model that is held so."""
    if quantize is not None:
        yield (
            f"The models are read in {_FORMS[quantize]}, by bitsandbytes: activations and answers are those of the "
            "quantised models."
        )
    if not is_whole(model):
        held = describe_hold(model, None)
        yield f"Weight noise cannot be laid over weights held {held}, so the sham tests are not run."


def describe_hold(model: nn.Module, quantize: Quantisation | None) -> str:
    """How a model that is not whole holds its weights, in words."""
    if quantize is not None:
        return f"in {quantize}"
    return "in fewer bits" if is_quantised_model(model) else "partly in host memory or on disk"


def let_go(model: nn.Module) -> None:
    """Give up a model's memory, wherever it is; its modules stay."""
    for hook in accelerate_hooks(model):
        hook.weights_map = None
    for parameter in model.parameters():
        if not parameter.is_meta:
            parameter.data = parameter.data.new_empty(0)


def _device_name(place: str | int) -> str:
    return f"cuda:{place}" if isinstance(place, int) else place


def _check_bitsandbytes(main: torch.device) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            "Reading in 4 or 8 bits needs bitsandbytes", next_step="pip install 'gravity-probe[quantized]'"
        )
    version = importlib.metadata.version("bitsandbytes")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise UsageError(
            "This bitsandbytes is too old",
            got=version,
            expected=f"{'.'.join(map(str, _OLDEST))} or later",
            next_step="pip install --upgrade bitsandbytes",
        )
    import bitsandbytes

    if main.type not in bitsandbytes.supported_torch_devices:
        raise UsageError(
            "bitsandbytes does not compute on this device",
            got=main.type,
            expected=", ".join(sorted(bitsandbytes.supported_torch_devices)),
        )


def _bits(quantize: Quantisation, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if quantize == "8bit":
        # It says of each matrix that its products are made in half precision, which is what was asked for.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _stored_precision(folder: Path, files: WeightFiles) -> torch.dtype:
    stored = getattr(load_config(folder).get_text_config(), "dtype", None) or next(files.heads())[1].dtype
    return getattr(torch, stored) if isinstance(stored, str) else stored
