"""Lineages: the checkpoints of one model's history, each with its role, and the fine-tuning runs that follow.

Nothing is loaded here. A reference says where a checkpoint lives; `probes.models` opens it.
Four kinds of place are understood: a local Hugging Face folder, a hub id with a revision,
a Trainer output folder (its `checkpoint-N` become the steps of a trajectory), and a PEFT adapter on a base.
"""

from probes.lineage.members import EARLIER, MIRROR, ROLES, Lineage, Member
from probes.lineage.references import ADAPTER_CONFIG, ADAPTER_TASKS, CheckpointRef, Place, Step
from probes.lineage.trajectories import Trajectory, is_one_direction, is_trainer_folder, name_trainings
from probes.lineage.witness import ABLATED, NO_WITNESS, Witness, WitnessKind, is_ablated

__all__ = [
    "ABLATED",
    "ADAPTER_CONFIG",
    "ADAPTER_TASKS",
    "EARLIER",
    "MIRROR",
    "NO_WITNESS",
    "ROLES",
    "CheckpointRef",
    "Lineage",
    "Member",
    "Place",
    "Step",
    "Trajectory",
    "Witness",
    "WitnessKind",
    "is_ablated",
    "is_one_direction",
    "is_trainer_folder",
    "name_trainings",
]
