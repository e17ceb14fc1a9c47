"""A run: the folder with its tables and directions, the model that it was measured on, and what stages need of it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from probes.errors import RunFolderError, UsageError
from probes.lineage import NO_WITNESS, Member
from probes.run.direction_folder import ABLATION, DirectionFolder
from probes.run.inputs import WITNESS
from probes.store import ACTIVATIONS, activations_stage

if TYPE_CHECKING:
    from probes.models import ModelHost, Placement, UnopenedModel
    from probes.models.checkpoint_folders import CheckpointFolders


class Run(DirectionFolder):
    """One run: open it to read with `Run(path)`, to write with `Run.writing(path)`."""

    def __repr__(self) -> str:
        model, config = self.manifest.model, self.manifest.config
        depth = f"{model.get('n_layers', '?')} layers × {model.get('d_model', '?')}"
        count = len(self.manifest.checkpoints)
        return (
            f"Run({self.manifest.name!r}, {self.manifest.status}, {count} checkpoints, {depth}, "
            f"headline layer {config.get('headline_layer', '?')})"
        )

    @classmethod
    @contextmanager
    def writing(cls, path: Path | str, *, name: str | None = None) -> Iterator[Self]:
        """As `RunFolder.writing`.

        Raises:
            RunFolderError: another process writes to it, it is packed, or the folder holds something that is no run.
        """
        with super().writing(path, name=name) as run:
            if run.manifest.omitted:
                raise RunFolderError(
                    f"{path} is a packed run, which is only read",
                    got=f"{len(run.manifest.omitted)} files left out",
                    next_step="Make the whole run: the commands are in its report.",
                )
            yield run

    # Its model -----------------------------------------------------------------------------------------------

    def model(self, device: str | None = None) -> ModelHost:
        """The aligned model, opened as the run's settings say; any checkpoint of the lineage can be put in its place.

        Args:
            device: where it runs, whole; None is as the run was measured, spread over several where it was.

        Raises:
            CheckpointError: it is no longer where it was, or cannot be read.
        """
        from probes.models import ModelHost

        settings = self.settings
        host = ModelHost(
            self.lineage.aligned,
            device=self._placement(device),
            dtype=settings.dtype,
            allow_pickle=settings.allow_pickle,
            allow_unrelated=settings.allow_unrelated,
        )
        self.equip(host)
        return host

    def unopened_model(self, device: str | None = None) -> UnopenedModel:
        """The aligned model's tokenizer, context and hashes; its weights are loaded once they are needed.

        Args:
            device: as of `model`.

        Raises:
            CheckpointError: it is no longer where it was, or cannot be read.
            UsageError: there is no such device here.
        """
        from probes.models import UnopenedModel

        unopened = UnopenedModel(
            self.lineage.aligned,
            functools.partial(self.model, device),
            placement=self._placement(device),
            allow_pickle=self.settings.allow_pickle,
        )
        self.equip(unopened)
        return unopened

    def _placement(self, device: str | None) -> Placement:
        from probes.models import Placement

        device_map = self.settings.device_map if device in (None, "auto") else None
        return Placement(device or self.settings.device, device_map, self.settings.quantize)

    def equip(self, host: CheckpointFolders) -> None:
        """Tell a model that was opened for this lineage what the run knows of its witness by now."""
        witness = self.lineage.witness
        if witness is not None and not witness.is_estimate:
            mirrors = [str(member.ref.adapter) for member in self.members if member.reference == WITNESS]
            host.starts = dict.fromkeys(mirrors, witness)
        elif witness is not None and ABLATION in self.manifest.stages:
            host.ablation.direction = self.ablated_direction

    def tuned_member(self, checkpoint: str | None) -> Member:
        """A fine-tuned checkpoint by its name; None is the last step of the first trajectory.

        Raises:
            RunFolderError: the run has none.
            UsageError: it has, and this is none of them.
        """
        if not self.tuned:
            raise RunFolderError(f"{self.path} has no fine-tuned checkpoint")
        if checkpoint is None:
            first = self.lineage.trajectories[0]
            checkpoint = first.checkpoint_id(first.checkpoints[-1].step)
        by_name = {member.id: member for member in self.tuned}
        if checkpoint not in by_name:
            raise UsageError(
                "This is no fine-tuned checkpoint of the run", got=checkpoint, expected=", ".join(list(by_name)[-6:])
            )
        return by_name[checkpoint]

    # Stages --------------------------------------------------------------------------------------------------

    def input_of(self, need: str) -> Any:
        """The fingerprint of what a stage needs: a finished stage's, `activations`, those of every member, or
        `witness`, the witness's activations where there is one.

        Raises:
            RunFolderError: that stage is not finished.
        """
        if need == ACTIVATIONS:
            return sorted(self.keys.items())
        if need == WITNESS:
            return self.input_of(activations_stage(WITNESS)) if self.has_witness else NO_WITNESS
        if need == "measured":
            return sorted((member.id, self.keys[member.id]) for member in self.measured)
        made_from = self.made_from(need)
        if made_from is None:
            raise RunFolderError(f"{self.path} has no {need} yet", next_step="Run gravity-probe measure first.")
        return made_from
