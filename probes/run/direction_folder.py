"""The directions of a run: those that are kept for each checkpoint, and why one is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from probes.errors import RunFolderError
from probes.lineage import NO_WITNESS
from probes.run.table_folder import TableFolder
from probes.store import ALIGNED, RENAMED, current_name, files_of

if TYPE_CHECKING:
    from probes.directions.vectors import Owner, Vectors

REVERSIONS = ("reversion", "reversion_did")  # directions that every run with a witness has
ABLATION = "ablated"  # the direction that is taken out of an ablated witness


class DirectionFolder(TableFolder):
    """A run folder whose directions are read by name and checkpoint."""

    @property
    def directions(self) -> list[str]:
        """Names of the directions at the aligned model: fitted, and brought from elsewhere."""
        return self.directions_at(ALIGNED)

    def directions_at(self, checkpoint: str) -> list[str]:
        """Names of the directions that are kept for a checkpoint."""
        from probes.directions import METHODS

        folder = self.direction_path("any", checkpoint).parent
        stems = {path.stem for path in folder.glob("*.safetensors")}
        methods = [name for name in METHODS if stems & files_of(name)]
        return methods + sorted(stems.difference(*map(files_of, methods)))

    def direction(self, name: str, checkpoint: str = ALIGNED) -> Vectors:
        """A direction as it is at a checkpoint.

        Raises:
            LineageError: the run has no such checkpoint.
            RunFolderError: it is not there (those that are, are named), is damaged or has changed.
        """
        from probes.directions.vectors import Vectors

        name = current_name(name)
        path = self.direction_path(name, checkpoint)
        self.check(path)
        if not path.is_file():
            if self.manifest.lineage:
                self.lineage.ref(checkpoint)
            reason = self._why_undefined(name, checkpoint)
            raise RunFolderError(
                f"{self.path} has no direction {name!r} at {checkpoint}",
                got=reason,
                expected=", ".join(self.directions_at(checkpoint)) or "none is fitted there",
                next_step=None if reason else f"Fit them: gravity-probe directions fit {self.path}.",
            )
        vectors = Vectors.read(path)
        return replace(vectors, name=RENAMED.get(vectors.name, vectors.name))

    def _why_undefined(self, name: str, checkpoint: str) -> str | None:
        """Why a direction that was looked for is not defined at a checkpoint; None where it was not looked for."""
        if name in REVERSIONS and not self.has_witness:
            return f"not defined: {NO_WITNESS}"
        if not self.has_table("direction_tracks"):
            return None
        filters = [("direction", "==", name), ("checkpoint", "==", checkpoint)]
        reasons = self.read_table("direction_tracks", columns=["reason"], filters=filters)["reason"].dropna()
        return str(reasons.iloc[0]) if len(reasons) else None

    def layer_of(self, vectors: Vectors) -> int:
        """The layer that a direction is meant for: its selection's, else its only one, else the headline layer."""
        if vectors.declared_layer is not None:
            return vectors.declared_layer
        return vectors.layers[0] if len(vectors.layers) == 1 else self.headline_layer

    @property
    def ablated_direction(self) -> Float[np.ndarray, " d_model"]:
        """The refusal direction that is taken out of the aligned model where it stands in for the witness.

        Raises:
            RunFolderError: none is selected.
        """
        vectors = self.direction(ABLATION)
        return vectors.at(self.layer_of(vectors))[0]

    @property
    def owner(self) -> Owner:
        """The model that the run's directions belong to: any checkpoint of its lineage, which shares one basis."""
        from probes.directions.vectors import Owner

        model, checkpoints = self.manifest.model, self.manifest.checkpoints
        return Owner(
            int(model["d_model"]),
            int(model["n_layers"]),
            frozenset(filter(None, (str(about.get("weights_sha256", "")) for about in checkpoints.values()))),
            str(checkpoints.get(ALIGNED, {}).get("place", "the run's model")),
        )
