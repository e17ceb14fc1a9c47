"""Which checkpoints of a run have their activations kept: a run that was shipped may hold only some."""

from __future__ import annotations

from probes.errors import RunFolderError
from probes.lineage import Lineage, Member
from probes.store import RunFolder


def present(run: RunFolder) -> list[Member]:
    """The members of the run's lineage whose activations are there, in the lineage's order.

    Raises:
        RunFolderError: those of the aligned model or of the witness are not.
    """
    found = [
        member
        for member in Lineage.opened(run.manifest.lineage, run.path).members()
        if run.activations_path(member.id).is_file() and member.id in run.manifest.checkpoints
    ]
    if not {"aligned", "witness"} <= {member.id for member in found}:
        raise RunFolderError(
            f"{run.path} holds no activations of the aligned model and the witness",
            next_step="Measure it again: gravity-probe measure.",
        )
    return found
