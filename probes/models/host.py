"""One model in memory, into which the checkpoints of a lineage are put one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from probes.errors import CheckpointError, UsageError
from probes.lineage import ADAPTER_CONFIG, CheckpointRef
from probes.models.adapter import Attached
from probes.models.identity import checkpoint_sha256
from probes.models.kinship import (
    Kinship,
    WeightSample,
    check_config,
    check_related,
    check_tokenizer,
)
from probes.models.layout import Layout
from probes.models.loading import load_config, load_model, load_tokenizer
from probes.models.source import folder_of, read_json
from probes.models.view import ModelView
from probes.models.weights import WeightFiles


class ModelHost(ModelView):
    """Holds the aligned model, and puts any other checkpoint of its lineage in its place.

    Weights are copied from their file straight into the module's parameters, so the module is built once and there
    is no second copy of the model. The host stays usable after an error: the next `put` loads afresh.

    Attributes:
        aligned: the reference of the model that all others are held against.
        tokenizer: the aligned model's.
        config: the aligned model's Hugging Face configuration.
        model: the Hugging Face causal language model, in evaluation mode and without gradients.
    """

    def __init__(
        self,
        aligned: CheckpointRef,
        *,
        device: str = "auto",
        dtype: str = "auto",
        allow_pickle: bool = False,
        allow_unrelated: bool = False,
    ) -> None:
        """Load the aligned model and check that its structure is one we can measure.

        Args:
            aligned: where it lives.
            device: `auto` (CUDA if there, else MPS, else CPU) or a torch device.
            dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
            allow_pickle: take pickled weights, with torch's `weights_only`.
            allow_unrelated: take checkpoints whose weights are unrelated to the aligned ones.

        Raises:
            CheckpointError: it cannot be found, read, or is of an unsupported architecture.
            UsageError: there is no such device here.
        """
        self.aligned = aligned
        self.device = _device(device)
        self._allow_pickle, self._allow_unrelated = allow_pickle, allow_unrelated
        self._folders: dict[tuple[str, str | None], Path] = {}
        self._attached: Attached | None = None
        folder = self._folder(aligned.model, aligned.revision)
        files = WeightFiles.of_model(folder, allow_pickle=allow_pickle)
        self.config = load_config(folder)
        self.tokenizer = load_tokenizer(folder)
        self.model: Any = load_model(folder, dtype, pickled=files.pickled).to(self.device)
        self._hollow = False
        self._locate()
        self._targets = self.model.state_dict()
        self._layout = Layout.learned(files, self._targets)
        self._sample = WeightSample.of(self.model)
        self.kinship = Kinship(1.0, 0.0)
        self._base: tuple[str, str | None] | None = (aligned.model, aligned.revision)
        self._adapter: str | None = None
        self.put(aligned)

    def put(self, ref: CheckpointRef) -> None:
        """Make the module hold the weights of `ref`, its adapter attached if it has one.

        Raises:
            CheckpointError: it cannot be found or read, or does not belong to the aligned model's lineage.
        """
        base = (ref.model, ref.revision)
        if base == self._base and ref.adapter == self._adapter:
            return
        folder = self._folder(*base)
        adapter = self._adapter_folder(ref.adapter) if ref.adapter else None
        self._detach()
        if base != self._base:
            self._load_base(folder, str(ref))
            self._base = base
        if adapter is not None:
            self._attached = Attached(self.model, adapter, self.device)
            self._adapter = ref.adapter

    def find(self, ref: CheckpointRef) -> None:
        """Look up where `ref` lies, without loading it.

        Raises:
            CheckpointError: it is not there.
        """
        self._folder(ref.model, ref.revision)
        if ref.adapter:
            self._adapter_folder(ref.adapter)

    def weights_sha256(self, ref: CheckpointRef) -> str:
        """Hash of what `ref` computes with: weights, configuration and adapter; not its name or its place.

        Raises:
            CheckpointError: it cannot be found or read.
        """
        adapter = self._adapter_folder(ref.adapter) if ref.adapter else None
        return checkpoint_sha256(self._folder(ref.model, ref.revision), adapter, allow_pickle=self._allow_pickle)

    @property
    def precision(self) -> float:
        """Relative rounding of the weights as they are held and written."""
        return float(torch.finfo(self.model.dtype).eps)

    @property
    def attached(self) -> Attached | None:
        """The adapter on the module."""
        return self._attached

    def files(self, ref: CheckpointRef) -> WeightFiles:
        """The weight files of `ref` without its adapter.

        Raises:
            CheckpointError: they are not there.
        """
        return WeightFiles.of_model(self._folder(ref.model, ref.revision), allow_pickle=self._allow_pickle)

    def forget(self) -> None:
        """What the module holds is no checkpoint any more: the next `put` loads afresh."""
        self._base = None

    def bare(self) -> dict[str, torch.Tensor]:
        """The module's tensors by name, its adapter taken off, to be written over."""
        self._detach()
        self.forget()
        return self._targets

    def parameters(self) -> dict[str, torch.Tensor]:
        """The base model's parameters by name, each once, whether or not an adapter is attached."""
        seen: dict[int, str] = {}
        for name, tensor in self._targets.items():
            seen.setdefault(tensor.data_ptr(), name)
        return {name: self._targets[name] for name in seen.values()}

    def _folder(self, place: str, revision: str | None) -> Path:
        """The folder of a place, looked up once: a branch that moves on the hub must not move under a run."""
        key = (place, revision)
        if key not in self._folders:
            self._folders[key] = folder_of(place, revision, allow_pickle=self._allow_pickle)
        return self._folders[key]

    def _adapter_folder(self, place: str) -> Path:
        folder = self._folder(place, None)
        read_json(folder / ADAPTER_CONFIG)
        files = WeightFiles.of_adapter(folder, allow_pickle=self._allow_pickle)
        if not files.pickled:
            files.shapes()
        return folder

    def _detach(self) -> None:
        if self._attached is not None:
            self._attached.detach()
        self._attached = self._adapter = None

    def _load_base(self, folder: Path, name: str) -> None:
        config = load_config(folder)
        check_config(self.config, config, name)
        aligned = self._folder(self.aligned.model, self.aligned.revision)
        check_tokenizer(self.tokenizer, aligned, folder, name)
        files = WeightFiles.of_model(folder, allow_pickle=self._allow_pickle)
        pairs = None if self._hollow else self.streamed(files)
        self._base = None
        if pairs is not None:
            with torch.no_grad():
                for held, tensor in pairs:
                    held.copy_(tensor)
        else:
            self._rebuild(folder, pickled=files.pickled)
        self.kinship = self._sample.kinship(WeightSample.of(self.model))
        if not self._allow_unrelated:
            check_related(self.kinship, name)

    def streamed(self, files: WeightFiles) -> Iterator[tuple[torch.Tensor, torch.Tensor]] | None:
        """The module's tensors with the files', or None where transformers must convert them."""
        layout = self._layout
        if layout is None or not layout.fits(files.shapes(), self._targets):
            return None
        named = ((layout.target(name, self._targets), tensor) for name, tensor in files.tensors())
        return ((self._targets[target], tensor) for target, tensor in named if target is not None)

    def _rebuild(self, folder: Path, *, pickled: bool) -> None:
        """Load through transformers, which knows every layout; the module's memory is given up before."""
        for parameter in self.model.parameters():
            parameter.data = parameter.data.new_empty(0)
        self._targets, self._hollow = {}, True
        fresh = load_model(folder, self.model.dtype, pickled=pickled).to(self.device)
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            parameter.data = fresh.get_parameter(name).data
        for name, buffer in self.model.named_buffers():
            buffer.copy_(fresh.get_buffer(name))
        wanted = {name: tensor.data_ptr() for name, tensor in fresh.state_dict(keep_vars=True).items()}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if parameter.data_ptr() != wanted[name]:
                raise CheckpointError(f"{folder} does not tie its embeddings as the aligned model does", got=name)
        self._targets, self._hollow = self.model.state_dict(), False


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            found = torch.device(name)
            torch.empty(0, device=found)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise UsageError(
                f"There is no device {name} here", got=str(error).splitlines()[0], expected="auto, cpu, cuda or mps"
            ) from error
        return found
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
