"""One model in memory, into which the checkpoints of a lineage are put one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from probes.errors import CheckpointError
from probes.lineage import CheckpointRef
from probes.models.ablation import Ablatable, Ablation, under_ablation
from probes.models.adapter import Attached, Change
from probes.models.checkpoint_folders import CheckpointFolders
from probes.models.devices import input_device
from probes.models.kinship import (
    Kinship,
    WeightSample,
    added_tokens,
    check_config,
    check_related,
    check_tokenizer,
)
from probes.models.layout import Layout
from probes.models.loading import check_all_placed, load_config, load_tokenizer, move_parameters
from probes.models.placement import Placement, describe_hold, describe_placement, is_whole, let_go, placement_notices
from probes.models.precision import precision_notice
from probes.models.prefix import try_prefix
from probes.models.pristine import Marks, checksums, marks
from probes.models.structure import check_structure
from probes.models.vocabulary import (
    check_same_vocabulary,
    check_vocabulary,
    describe_vocabulary,
    pair_rows,
    resize_vocabulary,
    vocabulary_of,
    vocabulary_size,
)
from probes.models.weights import Pairs, Shapes, WeightFiles


class ModelHost(CheckpointFolders, Ablatable):
    """Holds the aligned model, and puts any other checkpoint of its lineage in its place.

    Weights are copied from their file straight into the module's parameters: there is no second copy of the model. The
    host stays usable after an error: the next `put` loads afresh.

    Attributes:
        config: the aligned model's Hugging Face configuration.
        model: the Hugging Face causal language model, in evaluation mode and without gradients.
        notices: sentences on what was read in another way than one might think, for a run's manifest.
        placement: where and in which form the weights are held.
        is_whole: whether their numbers are there to be copied, and written over.
        Others as of `CheckpointFolders`.
    """

    def __init__(
        self,
        aligned: CheckpointRef,
        *,
        device: str | Placement = "auto",
        dtype: str = "auto",
        allow_pickle: bool = False,
        allow_unrelated: bool = False,
    ) -> None:
        """Load the aligned model and check that its structure is one we can measure.

        Args:
            aligned: where it lives.
            device: `auto` (CUDA if there, else MPS, else CPU), a torch device, or a placement of another kind.
            dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
            allow_pickle: take pickled weights, with torch's `weights_only`.
            allow_unrelated: take checkpoints whose weights are unrelated to the aligned ones.

        Raises:
            CheckpointError: it cannot be found, read, or is of an unsupported architecture.
            UsageError: there is no such device here.
        """
        self.aligned = aligned
        self.placement = device if isinstance(device, Placement) else Placement(device)
        self._allow_pickle, self._allow_unrelated = allow_pickle, allow_unrelated
        self.folders: dict[tuple[str, str | None], Path] = {}
        self._attached: Attached | None = None
        self.ablation, self.starts = Ablation(), dict[str, CheckpointRef]()
        self.notices: list[str] = []
        folder = self._folder(aligned.model, aligned.revision)
        files = WeightFiles.of_model(folder, allow_pickle=allow_pickle)
        self.config = load_config(folder)
        self.tokenizer = load_tokenizer(folder)
        self.model: Any
        self.model, self._stored = self.placement.load(folder, dtype, pickled=files.pickled)
        self.device, self.is_whole, self._hollow = input_device(self.model), is_whole(self.model), False
        self.device_name = self.placement.device_name
        self._locate()
        self._notice(precision_notice(self._stored, self.model.dtype))
        for sentence in (*placement_notices(self.model, self.placement.quantize), try_prefix(self)):
            self._notice(sentence)
        self._tried_without_adapter = list(self.prefix_tried)
        self._targets = self._own_tensors()
        self._layout = Layout.learned(files, self._targets) if self.is_whole else None
        self._sample = self._sample_weights(files)
        self.kinship = Kinship(1.0, 0.0, len(self._sample.matrices))
        self._base: tuple[str, str | None] | None = (aligned.model, aligned.revision)
        self._adapter: str | None = None
        self._shared = vocabulary_size(self.config)
        self._marks: Marks = marks(self.model)
        self._sums: dict[str, int] | None = None
        self._of_base: str | None = None  # what there is to say of the base that is on the module
        self.put(aligned)

    @under_ablation
    def put(self, ref: CheckpointRef) -> None:
        """Make the module hold the weights of `ref`, its adapter attached if it has one.

        Weights that were changed in memory since they were put there, by whomever, are read again. Of an ablated
        witness, the aligned model's weights, with hooks that take its direction out until the next `put`.

        Raises:
            CheckpointError: it cannot be found or read, or does not belong to the aligned model's lineage.
        """
        base = self.base_of(ref)
        untouched = marks(self.model) == self._marks
        if untouched and base == self._base and ref.adapter == self._adapter:
            return
        adapter = self._adapter_folder(ref.adapter) if ref.adapter else None
        folder = self._folder(*base)
        self._detach()
        if not untouched:
            self.forget()
            self._targets = self._own_tensors()
        if base != self._base:
            self._load_base(folder, str(ref))
            self._base = base
            self._sums = None
        self._notice(self._of_base)
        if adapter is not None:
            self._attach(adapter)
            self._adapter = ref.adapter
            self._notice(self.describe_base(ref, self.kinship))
        self._marks = marks(self.model)

    def put_merged(self, ref: CheckpointRef) -> None:
        """As `put`, with the factors of a LoRA added into the weights where these are in float32 on a CPU.

        Read beside the weights they take a sixth of the time; a lower precision would round them. The next `put` reads
        the weights anew. What is no product of two factors, or changes the vocabulary, stays attached.

        Raises:
            CheckpointError: as `put`.
        """
        self.put(ref)
        in_place = self.is_whole and (self.device.type, self.model.dtype) == ("cpu", torch.float32)
        factors = self._attached.factors() if self._attached and in_place else None
        ends = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        vocabulary = {end.weight.data_ptr() for end in ends if end is not None}  # one tensor may be both
        if not factors or any(self._targets[name].data_ptr() in vocabulary for name in factors):
            return
        self._detach()
        if self._base is None:  # it was not the very base that was beside them
            self.put(ref)
            return
        with torch.no_grad():
            for name, (left, right) in factors.items():
                self._targets[name].addmm_(left, right)
        self.forget()

    @property
    def opened(self) -> ModelHost:
        """Itself."""
        return self

    @property
    def about(self) -> dict[str, Any]:
        """As any model says of itself, and the precision its files are in where it computes in another."""
        about = {**super().about, **describe_placement(self.model, self.placement.quantize)}
        stored = str(self._stored).removeprefix("torch.")
        return about if stored == about["dtype"] else {**about, "stored_dtype": stored}

    @property
    def precision(self) -> float:
        """Relative rounding of the weights as they are held and written."""
        return float(torch.finfo(self.model.dtype).eps)

    @property
    def attached(self) -> Attached | None:
        """The adapter on the module."""
        return self._attached

    def forget(self) -> None:
        """What the module holds is no checkpoint any more: the next `put` loads afresh."""
        self._base = None

    def bare(self) -> dict[str, torch.Tensor]:
        """The module's tensors by name, its adapter taken off, to be written over.

        Raises:
            CheckpointError: their numbers are not there.
        """
        self._need_whole()
        self._detach()
        self.forget()
        return self._targets

    def parameters(self) -> dict[str, torch.Tensor]:
        """The base model's parameters by name, each once, whether or not an adapter is attached.

        Raises:
            CheckpointError: their numbers are not there.
        """
        self._need_whole()
        seen: dict[int, str] = {}
        for name, tensor in self._targets.items():
            seen.setdefault(tensor.data_ptr(), name)
        return {name: self._targets[name] for name in seen.values()}

    def _need_whole(self) -> None:
        if not self.is_whole:
            raise CheckpointError(
                "The weights of this model cannot be read or written in place",
                got=f"weights {describe_hold(self.model, self.placement.quantize)}",
                next_step="Measure unquantised weights, all of them on accelerators.",
            )

    def take_off(self) -> Iterator[Change]:
        """What the adapter on the module adds to each parameter; it is off the module afterwards.

        Raises:
            CheckpointError: it cannot be merged into the weights.
        """
        try:
            if self._attached is not None:
                yield from self._attached.changes()
        finally:
            self._detach()

    def _attach(self, adapter: Path) -> None:
        if any(parameter.is_meta for parameter in self.model.parameters()):
            raise CheckpointError(
                "peft does not put an adapter on weights that are held in host memory or on disk",
                got=f"the device map {self.placement.device_map}",
                next_step="Give the model more accelerators, read it with --quantize 4bit, or merge the adapter.",
            )
        if self._sums is None:
            self._sums = checksums(self.model)
        try:
            self._attached = Attached(self.model, adapter, self.device, allow_pickle=self._allow_pickle)
            if self._attached.notice:  # no change of weights: it may look ahead, and padding would change the numbers
                check_structure(self.body, self.blocks, self.n_layers, self.d_model)
        except CheckpointError:
            self._detach()
            self._check_base()
            raise
        if self._attached.notice:  # a change of weights leaves the model as it is built, and as it was tried
            self._notice(self._attached.notice)
            self._notice(try_prefix(self))

    def _detach(self) -> None:
        if self._attached is not None:
            self._attached.detach()
            self._attached = self._adapter = None
            self.prefix_tried = list(self._tried_without_adapter)
            self._check_base()

    def _check_base(self) -> None:
        """Where the base is not the very base after an adapter, it is read again at the next `put`."""
        if checksums(self.model) != self._sums:
            self.forget()
        self._marks = marks(self.model)

    def _notice(self, sentence: str | None) -> None:
        if sentence and sentence not in self.notices:
            self.notices.append(sentence)

    def _load_base(self, folder: Path, name: str) -> None:
        config = load_config(folder)
        check_config(self.config, config, name)
        check_tokenizer(self.tokenizer, self._folder(self.aligned.model, self.aligned.revision), folder, name)
        files = WeightFiles.of_model(folder, allow_pickle=self._allow_pickle)
        shapes: Shapes = {} if self._hollow else files.shapes()
        pairs = None if self._hollow else self.stream_tensors(files, shapes)
        if pairs is not None:
            unplaced = [name for name in shapes if self._layout_target(name) is None]
            check_all_placed(folder, unplaced, self.model)
        if not self.is_whole:
            check_same_vocabulary(vocabulary_size(config), vocabulary_size(self.config), name)
        self._base = None
        self._clear_vocabulary(config)
        if pairs is not None:
            with torch.no_grad():
                for held, tensor in pairs:
                    held.copy_(tensor)
        else:
            self._rebuild(folder, pickled=files.pickled)
        rows, own = vocabulary_size(config), vocabulary_size(self.config)
        self._shared, self._of_base = min(rows, own), None
        if rows != own:
            check_vocabulary(rows, self.tokenizer, name)
            self._of_base = describe_vocabulary(rows, own, added_tokens(folder, self._shared), name)
        self.kinship = self._sample.kinship(self._sample_weights(files))
        if not self._allow_unrelated:
            check_related(self.kinship, name)

    def stream_tensors(self, files: WeightFiles, shapes: Shapes) -> Pairs | None:
        """The module's tensors with the files' (of these shapes), or None where transformers must convert them.

        Of a vocabulary of another size, the rows that both have.
        """
        layout = self._layout
        if layout is None or not layout.fits(shapes, self._targets, vocabulary_of(self.model)):
            return None
        named = ((self._layout_target(name), tensor) for name, tensor in files.tensors())
        pairs = ((self._targets[target], tensor) for target, tensor in named if target is not None)
        return (pair_rows(held, tensor) for held, tensor in pairs)

    def _layout_target(self, name: str) -> str | None:
        return None if self._layout is None else self._layout.target(name, self._targets)

    def shared_rows(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Of the parameter `name`, the rows that the checkpoint on the module has of its own."""
        return tensor[: self._shared] if name in vocabulary_of(self.model) else tensor

    def _clear_vocabulary(self, config: Any) -> None:
        """Rows that the next checkpoint does not have must not stay behind from the last one."""
        rows = vocabulary_size(config)
        if rows < vocabulary_size(self.config) and not self._hollow:
            for name in vocabulary_of(self.model):
                self._targets[name][rows:].zero_()

    def _rebuild(self, folder: Path, *, pickled: bool) -> None:
        """Load through transformers, which knows every layout; the module's memory is given up before."""
        let_go(self.model)
        self._targets, self._hollow = {}, True
        fresh, _ = self.placement.load(folder, self.model.dtype, pickled=pickled)
        if self.is_whole:
            resize_vocabulary(fresh, vocabulary_size(self.config))
            move_parameters(fresh.requires_grad_(False), self.model)
        else:
            self.model = fresh
        self._targets, self._hollow = self._own_tensors(), False

    def _own_tensors(self) -> dict[str, torch.Tensor]:
        """The module's tensors by name; none where their numbers are not there."""
        return self.model.state_dict() if self.is_whole else {}

    def _sample_weights(self, files: WeightFiles) -> WeightSample:
        """Of the checkpoint on the module; from its files where the module does not hold their numbers."""
        return WeightSample.of(self.model) if self.is_whole else WeightSample.of_files(files)
