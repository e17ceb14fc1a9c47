"""Where the checkpoints of a lineage lie, looked up once, and what their files say without a model in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.lineage import CheckpointRef
from probes.models.ablation import Ablation
from probes.models.adapter_folder import check_adapter
from probes.models.identity import checkpoint_sha256
from probes.models.quantised import full_precision_base
from probes.models.source import folder_of
from probes.models.weights import WeightFiles

if TYPE_CHECKING:
    from probes.models.host import ModelHost
    from probes.models.kinship import Kinship


class CheckpointFolders:
    """Finds the folders of a lineage's checkpoints.

    Attributes:
        aligned: the reference of the model that all others are held against.
        tokenizer: the aligned model's.
        context_length: tokens that it can read; None where its configuration does not say.
        ablation: what an ablated witness is read without; its direction is given once it is selected.
        folders: where each (place, revision) was found, once and for all.
        starts: of adapters whose arm does not begin at the aligned model but elsewhere, as a mirror's, that model.
        device_name: where another process opens it too, whole; None is as a run's settings spread it.
    """

    aligned: CheckpointRef
    tokenizer: Any
    context_length: int | None
    ablation: Ablation
    folders: dict[tuple[str, str | None], Path]
    starts: dict[str, CheckpointRef]
    device_name: str | None
    _allow_pickle: bool

    @property
    def opened(self) -> ModelHost:
        """The aligned model in memory, into which other checkpoints can be put."""
        raise NotImplementedError

    def find(self, ref: CheckpointRef) -> None:
        """Look up where `ref` lies, without loading it.

        Raises:
            CheckpointError: it is not there.
        """
        if ref.adapter:
            self._adapter_folder(ref.adapter)
        self._folder(*self.base_of(ref))

    def files(self, ref: CheckpointRef) -> WeightFiles:
        """The weight files of `ref` without its adapter.

        Raises:
            CheckpointError: they are not there.
        """
        return WeightFiles.of_model(self._folder(*self.base_of(ref)), allow_pickle=self._allow_pickle)

    def weights_sha256(self, ref: CheckpointRef) -> str:
        """Hash of what `ref` computes with: weights, configuration and adapter; not its name or its place.

        Raises:
            CheckpointError: it cannot be found or read.
        """
        adapter = self._adapter_folder(ref.adapter) if ref.adapter else None
        own = checkpoint_sha256(self._folder(*self.base_of(ref)), adapter, allow_pickle=self._allow_pickle)
        return self.ablation.sha256(ref, own)

    def base_of(self, ref: CheckpointRef) -> tuple[str, str | None]:
        """Place and revision of what `ref` is without its adapter, in full precision.

        Raises:
            CheckpointError: its adapter was trained on a quantised twin of another model.
        """
        base = full_precision_base(ref, self.aligned)
        return base.model, base.revision

    def describe_base(self, ref: CheckpointRef, kinship: Kinship) -> str | None:
        """What there is to say of the model that an adapter sits on; None where it is the one that is expected.

        Args:
            ref: has an adapter.
            kinship: of that model with the aligned one.

        Raises:
            CheckpointError: a model cannot be found or read.
        """
        from probes.models.kinship import describe_base

        base, start = self.base_of(ref), self.starts.get(str(ref.adapter))
        if start is None:
            return describe_base(ref, CheckpointRef(model=base[0], revision=base[1]), self.aligned, kinship)
        if self._sha256_of_base(ref) == self._sha256_of_base(start):
            return None
        return f"The adapter {ref.adapter} sits on {ref.model}, which is not {start}, where its arm begins."

    def _sha256_of_base(self, ref: CheckpointRef) -> str:
        return checkpoint_sha256(self._folder(*self.base_of(ref)), None, allow_pickle=self._allow_pickle)

    def _folder(self, place: str, revision: str | None) -> Path:
        """The folder of a place, looked up once: a branch that moves on the hub must not move under a run."""
        key = (place, revision)
        if key not in self.folders:
            self.folders[key] = folder_of(place, revision, allow_pickle=self._allow_pickle)
        return self.folders[key]

    def _adapter_folder(self, place: str) -> Path:
        folder = self._folder(place, None)
        check_adapter(folder)
        files = WeightFiles.of_adapter(folder, allow_pickle=self._allow_pickle)
        if not files.pickled:
            files.shapes()
        return folder
