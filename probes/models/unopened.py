"""A run's model as far as its files say: whoever needs no more than texts, hashes and places need not load it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.lineage import CheckpointRef
from probes.models.ablation import Ablation
from probes.models.checkpoint_folders import CheckpointFolders
from probes.models.loading import context_length, load_config, load_tokenizer
from probes.models.placement import Placement

if TYPE_CHECKING:
    from probes.models.host import ModelHost


class UnopenedModel(CheckpointFolders):
    """Opens the aligned model once its weights are asked for (`opened`), and not before."""

    def __init__(
        self,
        aligned: CheckpointRef,
        open_model: Callable[[], ModelHost],
        *,
        placement: Placement,
        allow_pickle: bool,
    ) -> None:
        """Find its folder.

        Args:
            aligned: where it lives.
            open_model: opens it.
            placement: where its weights will lie.
            allow_pickle: take pickled weights, with torch's `weights_only`.

        Raises:
            CheckpointError: it cannot be found.
            UsageError: there is no such device here.
        """
        self.aligned, self._allow_pickle, self._open_model = aligned, allow_pickle, open_model
        self.folders: dict[tuple[str, str | None], Path] = {}
        self.ablation, self.starts, self.device_name = Ablation(), {}, placement.device_name
        self._aligned_folder = self._folder(aligned.model, aligned.revision)

    @functools.cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer. Raises CheckpointError where it cannot be read."""
        return load_tokenizer(self._aligned_folder)

    @functools.cached_property
    def context_length(self) -> int | None:  # type: ignore[override]
        """Tokens that it can read. Raises CheckpointError where its configuration cannot be read."""
        return context_length(load_config(self._aligned_folder))

    @functools.cached_property
    def opened(self) -> ModelHost:
        """The model."""
        return self._open_model()
