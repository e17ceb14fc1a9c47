"""The aligned model as an ablated witness: its direction is taken out by hooks while the witness is on the module."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from probes.errors import CheckpointError
from probes.lineage import CheckpointRef, is_ablated
from probes.models.hooks import ablate
from probes.models.view import ModelView


class Ablation:
    """What an ablated witness is read without. No weight is changed, and no other checkpoint is touched.

    Attributes:
        direction: taken out wherever a block reads or writes the stream; None where none is selected yet.
    """

    def __init__(self) -> None:
        self.direction: Float[np.ndarray, " d_model"] | None = None
        self._hooks = contextlib.ExitStack()

    def leave(self) -> None:
        """Take the hooks off the module."""
        self._hooks.close()

    def enter(self, view: ModelView, ref: CheckpointRef) -> None:
        """Put the hooks on the module where `ref` is an ablated witness, until `leave`.

        Raises:
            CheckpointError: its direction is not selected yet.
        """
        if is_ablated(ref):
            self._hooks.enter_context(ablate(view, self._selected_direction()))

    def sha256(self, ref: CheckpointRef, weights: str) -> str:
        """Hash of what `ref` computes with: of an ablated witness, of the weights and the direction.

        Raises:
            CheckpointError: its direction is not selected yet.
        """
        if not is_ablated(ref):
            return weights
        return hashlib.sha256(weights.encode() + self._selected_direction().astype(np.float64).tobytes()).hexdigest()

    def _selected_direction(self) -> np.ndarray:
        if self.direction is None:
            raise CheckpointError(
                "The direction of the ablated witness is not selected yet",
                next_step="Run gravity-probe measure first.",
            )
        return self.direction


class Ablatable(ModelView):
    """A model that checkpoints are put into, an ablated witness among them."""

    ablation: Ablation


Host = TypeVar("Host", bound=Ablatable)


def under_ablation(put: Callable[[Host, CheckpointRef], None]) -> Callable[[Host, CheckpointRef], None]:
    """Let the hooks of an ablated witness stay on the module from when it is put there until the next checkpoint is."""

    @functools.wraps(put)
    def put_under(host: Host, ref: CheckpointRef) -> None:
        host.ablation.leave()
        put(host, ref)
        host.ablation.enter(host, ref)

    return put_under
