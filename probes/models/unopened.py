"""A run's model as far as its files say: whoever needs no more than texts and hashes need not load it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from probes.lineage import CheckpointRef
from probes.models.ablation import Ablation
from probes.models.checkpoint_folders import CheckpointFolders
from probes.models.loading import context_length, load_config, load_tokenizer

if TYPE_CHECKING:
    from probes.models.host import ModelHost


class UnopenedModel(CheckpointFolders):
    """Opens the aligned model once its weights are asked for (`opened`), and not before."""

    def __init__(self, aligned: CheckpointRef, open_model: Callable[[], ModelHost], *, allow_pickle: bool) -> None:
        """Read its tokenizer and its configuration.

        Args:
            aligned: where it lives.
            open_model: opens it.
            allow_pickle: take pickled weights, with torch's `weights_only`.

        Raises:
            CheckpointError: it cannot be found or read.
        """
        self.aligned, self._allow_pickle, self._open_model = aligned, allow_pickle, open_model
        self.folders: dict[tuple[str, str | None], Path] = {}
        self.ablation, self.starts = Ablation(), {}
        folder = self._folder(aligned.model, aligned.revision)
        self.tokenizer = load_tokenizer(folder)
        self.context_length = context_length(load_config(folder))

    @functools.cached_property
    def opened(self) -> ModelHost:
        """The model."""
        return self._open_model()
