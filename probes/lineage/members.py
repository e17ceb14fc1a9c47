"""One model's history by role, and the trajectories that leave from its aligned member."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError, model_validator

from probes.errors import LineageError, UsageError
from probes.lineage.faults import first_fault
from probes.lineage.raw_form import from_home, make_absolute, rewrite_places
from probes.lineage.references import CheckpointRef, Name, Place, Record
from probes.lineage.trajectories import (
    Trajectory,
    expand_folder,
    is_one_direction,
    is_trainer_folder,
    name_trainings,
    single_trajectory,
)
from probes.lineage.witness import ABLATED, NO_WITNESS, Witness, WitnessKind, witness_of
from probes.store.documents import read_toml
from probes.store.remote import place_elsewhere

ROLES = ("aligned", "witness", "pretrained")  # members that are no fine-tuned checkpoints
EARLIER = tuple(reversed(ROLES[1:]))  # what the aligned model came from, the earliest first
MIRROR = "mirror"  # the arm that trains the witness on the baseline's data


class Member(NamedTuple):
    """One checkpoint in its place: the columns that every table of a run folder begins with.

    Attributes:
        id: its name in the run folder.
        arm: the trajectory's arm, or the role's name.
        seed: the trajectory's seed; 0 for a role.
        step: optimiser steps after the aligned model; 0 for a role.
        ref: where it lives.
    """

    id: str
    arm: str
    seed: int
    step: int
    ref: CheckpointRef

    @property
    def is_role(self) -> bool:
        """Whether it is the aligned model, the witness or the pretrained model, and no fine-tuned checkpoint."""
        return self.arm in ROLES and self.arm == self.id

    @property
    def reference(self) -> str:
        """The role that its displacement is measured from: the witness for the arm `mirror`, else the aligned model."""
        return "witness" if self.arm == MIRROR else "aligned"

    @property
    def labels(self) -> dict[str, str | int]:
        """The table columns `checkpoint, arm, seed, step`."""
        return {"checkpoint": self.id, "arm": self.arm, "seed": self.seed, "step": self.step}


class Lineage(Record):
    """One model's history by role, and the trajectories that leave from its aligned member."""

    name: Name
    description: str = ""
    pretrained: CheckpointRef | None = None
    witness: Witness | None = None
    aligned: CheckpointRef
    trajectories: tuple[Trajectory, ...] = ()

    @classmethod
    def load(cls, path: Path | str, base: str | None = None) -> Lineage:
        """Read a lineage file (TOML). Relative folders are taken from the file's own folder.

        Args:
            path: the file.
            base: where the base of adapters is now; the file's key `base` says the same, for all of it or for one
                trajectory given by its folder.

        Raises:
            LineageError: no such file, not TOML, an unknown key (the nearest known one is named),
                a missing role, or a trajectory whose folder holds no checkpoints.
        """
        path = Path(path)
        if not path.exists():
            raise LineageError(f"There is no lineage file {path}")
        raw = read_toml(path, kind="lineage file", error=LineageError)
        raw.setdefault("name", path.stem)
        raw = make_absolute(raw, path.resolve().parent)
        named_base = raw.pop("base", None)
        if not isinstance(named_base, str | None):
            raise LineageError(f"{path}: base is no text", got=repr(named_base))
        listed = raw.get("trajectories", [])
        if not isinstance(listed, list):
            raise LineageError(f"{path}: trajectories is no list", got=repr(listed), expected="[[trajectories]]")
        raw["trajectories"] = [expand_folder(entry, base or named_base) for entry in listed]
        if raw.get("witness") in (ABLATED, {"kind": ABLATED}) and isinstance(raw.get("aligned"), dict):
            raw["witness"] = {**raw["aligned"], "kind": ABLATED}
        try:
            lineage = cls.model_validate(raw)
        except ValidationError as error:
            raise LineageError(f"{path}: {first_fault(error)}") from None
        return lineage

    @classmethod
    def of(
        cls,
        aligned: Place,
        witness: Place | None = None,
        checkpoints: Place | Sequence[Place] = (),
        *,
        trajectories: Sequence[str | Path] = (),
        pretrained: Place | None = None,
        witness_kind: str = "helpful-only",
        base: str | None = None,
    ) -> Lineage:
        """A lineage from references, as a command line or a notebook gives them.

        Args:
            aligned: a folder, a hub id (`org/name@revision`), or a reference.
            witness: likewise; `ablated` for the aligned model with its refusal direction ablated; None for no witness.
            checkpoints: fine-tuned checkpoints, `REF` or `STEP=REF`; without steps they are numbered in their order.
                A Trainer output folder among them is a trajectory of its own.
            trajectories: Trainer output folders, `FOLDER` or `ARM=FOLDER` or `ARM@SEED=FOLDER`.
            pretrained: the raw base model.
            witness_kind: `helpful-only`, or what stands in for it.
            base: where the base of adapters among them is now, in place of what they say.

        Raises:
            UsageError: there is no such kind of witness.
            LineageError: a reference is none, a folder holds no checkpoint, or an arm and seed is there twice.
        """
        kinds = get_args(WitnessKind)
        if witness_kind not in kinds:
            raise UsageError("There is no such --witness-kind", got=repr(witness_kind), expected=", ".join(kinds))
        listed = [checkpoints] if isinstance(checkpoints, str | Path | CheckpointRef) else list(checkpoints)
        folders = [place for place in listed if is_trainer_folder(place)]
        single = single_trajectory([place for place in listed if not is_trainer_folder(place)], base)
        lineage = cls(
            name=_name_of(Path(str(aligned))),
            pretrained=None if pretrained is None else CheckpointRef.of(pretrained, base),
            witness=witness_of(aligned, witness, witness_kind, base),
            aligned=CheckpointRef.of(aligned, base),
        )
        return lineage.with_trajectories(
            (*single, *(Trajectory.parse(str(text), base) for text in (*folders, *trajectories)))
        )

    @model_validator(mode="after")
    def _trajectories_differ(self) -> Lineage:
        names = [trajectory.slug for trajectory in self.trajectories]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two trajectories are called {twice[0]}; give each arm and seed once")
        if self.witness is None and any(trajectory.arm == MIRROR for trajectory in self.trajectories):
            raise ValueError(f"the arm {MIRROR} is a trained witness, and there is {NO_WITNESS}")
        return self

    def with_trajectories(self, more: tuple[Trajectory, ...]) -> Lineage:
        """The same lineage with `more` trajectories behind its own.

        Raises:
            LineageError: an arm and seed would be there twice.
        """
        try:
            return type(self)(**{**dict(self), "trajectories": (*self.trajectories, *more)})
        except ValidationError as error:
            raise LineageError(first_fault(error)) from None

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences on what was left out of the trajectories' folders, and on arms of several directions."""
        left_out = (sentence for run in self.trajectories for sentence in run.notices)
        return (*left_out, *self._several_directions())

    def _several_directions(self) -> Iterator[str]:
        """A sentence on each arm whose seeds were not guarded along one direction, as they should have been."""
        for arm in dict.fromkeys(run.arm for run in self.trajectories if is_one_direction(run.arm)):
            seeds: dict[str | None, list[tuple[str, int]]] = {}
            for run in self.trajectories:
                if run.arm == arm:
                    seeds.setdefault(run.direction_sha256, []).append((arm, run.seed))
            if len(seeds) > 1:
                along = (
                    f"{name_trainings(trainings)}, along {direction[:8] if direction else 'one that is not recorded'}"
                    for direction, trainings in seeds.items()
                )
                yield f"The seeds of one arm were guarded along several directions: {'; '.join(along)}."

    def need_witness(self, purpose: str, *, weights: bool = False) -> Witness:
        """The witness.

        Args:
            purpose: what needs one, as a sentence begins with it.
            weights: whether it must have weights of its own, which an ablated one has not.

        Raises:
            LineageError: there is none, or it has no weights of its own.
        """
        if self.witness is None or (weights and self.witness.is_estimate):
            raise LineageError(
                f"{purpose} needs a witness" + (" with weights of its own" if weights else ""),
                got=self.witness_label,
                next_step="Give an earlier, more permissive checkpoint as the witness.",
            )
        return self.witness

    @property
    def witness_label(self) -> str:
        """What the witness is called, or that there is none."""
        return NO_WITNESS if self.witness is None else self.witness.label

    def members(self) -> Iterator[Member]:
        """Every checkpoint once: aligned first, it is what the others are held against."""
        yield Member("aligned", "aligned", 0, 0, self.aligned)
        if self.witness is not None:
            yield Member("witness", "witness", 0, 0, self.witness)
        if self.pretrained is not None:
            yield Member("pretrained", "pretrained", 0, 0, self.pretrained)
        for run in self.trajectories:
            for checkpoint in run.checkpoints:
                yield Member(run.checkpoint_id(checkpoint.step), run.arm, run.seed, checkpoint.step, checkpoint)

    def portable(self, home: Path) -> Lineage:
        """The same lineage with every folder inside `home` written from there, so that `home` can be moved or sent.

        `Lineage.opened` turns it back.
        """
        return Lineage.model_validate(rewrite_places(self.model_dump(), lambda place: from_home(place, home.resolve())))

    def named_by_urls(self) -> Lineage:
        """The same lineage with folders in the mirror of a URL named by that URL, as other machines open them."""
        return Lineage.model_validate(rewrite_places(self.model_dump(), place_elsewhere))

    @classmethod
    def opened(cls, raw: Mapping[str, Any], home: Path) -> Lineage:
        """A lineage as kept in the run folder `home`, its relative folders taken from there.

        Raises:
            LineageError: it is damaged.
        """
        try:
            return cls.model_validate(make_absolute(dict(raw), home.resolve()))
        except ValidationError as error:
            raise LineageError(f"The lineage of {home} is damaged: {first_fault(error)}") from None

    def ref(self, name: str) -> CheckpointRef:
        """The place of the member with this name.

        Raises:
            LineageError: there is none.
        """
        known = dict(self.checkpoints())
        if name not in known:
            raise LineageError("The run has no such checkpoint", got=name, expected=", ".join(list(known)[:8]))
        return known[name]

    def checkpoints(self) -> Iterator[tuple[str, CheckpointRef]]:
        """The name and the place of every member."""
        for member in self.members():
            yield member.id, member.ref


def _name_of(place: Path) -> str:
    return (place.name or place.resolve().name).partition("@")[0].lstrip(".") or "lineage"
