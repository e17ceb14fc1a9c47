"""Fine-tuning runs: the checkpoints of one, ordered by step, from a Trainer's output folder or one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from probes.errors import LineageError
from probes.lineage import trainer_folder
from probes.lineage.faults import first_fault
from probes.lineage.references import CheckpointRef, Name, Place, Record, Step
from probes.lineage.trainer_folder import TRAINER_FILES, read_direction, read_trainer_folder
from probes.store.remote import download_trainer_folder, is_url, whole_url

_NAMED = re.compile(r"^(?P<arm>[A-Za-z][\w:-]*?)(?:@(?P<seed>\d+))?=(?P<place>.+)$")
_CONTROL = "control:"
_DRAW = re.compile(rf"{_CONTROL}.+:\d+(-.+)?")  # behind the number the way in which it was trained
_STEPPED = re.compile(r"^(?P<step>\d+)=(?P<place>.+)$")


class Trajectory(Record):
    """The checkpoints of one fine-tuning run, ordered by step.

    Attributes:
        arm: what that run did: `baseline`, `block`, `push`, or a control such as `control:random`.
        seed: the run's seed; runs of one arm differ in it.
        direction_sha256: hash of what its guard acted along (`Guard.direction_sha256`); None where it had no guard, or
            an earlier version's, which did not say.
        notices: sentences on what was left out of its folder; not kept in files.
    """

    arm: Name = "baseline"
    seed: int = 0
    checkpoints: tuple[Step, ...]
    direction_sha256: str | None = None
    notices: tuple[str, ...] = Field(default=(), exclude=True, repr=False)

    @classmethod
    def from_folder(
        cls, folder: Path | str, *, arm: str = "baseline", seed: int = 0, base: str | None = None
    ) -> Trajectory:
        """Find and order the `checkpoint-N` of a Trainer output folder, the best one and the final model in its root.

        What was cut off while it was written is left out; `notices` says so.

        Args:
            folder: a Trainer's output, or its URL: the models in it are then downloaded at once.
            arm: what the run did.
            seed: the run's.
            base: where the base of its adapters is now, in place of what they say.

        Raises:
            LineageError: the folder is absent or holds no `checkpoint-N`.
        """
        url = whole_url(folder) if is_url(folder) else None
        folder = download_trainer_folder(url, TRAINER_FILES) if url else Path(folder).expanduser()
        steps, notices = read_trainer_folder(folder)
        if not steps:
            raise LineageError(
                f"No checkpoint-N in {folder}",
                got=notices[0] if notices else None,
                expected="a Trainer output folder with checkpoint-10, checkpoint-20, …",
                next_step="For a single checkpoint use --checkpoint.",
            )
        references = {step: CheckpointRef.from_folder(place, base) for step, place in steps.items()}
        if url:
            urls = {
                step: f"{url}/{place.relative_to(folder).as_posix()}".removesuffix("/.")
                for step, place in steps.items()
            }
            references = {step: reference.moved_to(urls[step]) for step, reference in references.items()}
        checkpoints = tuple(_step_at(step, reference) for step, reference in references.items())
        try:
            return cls(
                arm=arm,
                seed=seed,
                checkpoints=checkpoints,
                direction_sha256=read_direction(folder),
                notices=notices,
            )
        except ValidationError as error:
            raise LineageError(first_fault(error)) from None

    @classmethod
    def parse(cls, text: str, base: str | None = None) -> Trajectory:
        """Read `FOLDER`, `ARM=FOLDER` or `ARM@SEED=FOLDER`; arguments and errors as `from_folder`."""
        match = None if Path(text).exists() else _NAMED.match(text)
        if match is None:
            return cls.from_folder(text, base=base)
        return cls.from_folder(match["place"], arm=match["arm"], seed=int(match["seed"] or 0), base=base)

    @model_validator(mode="after")
    def _steps_rise(self) -> Trajectory:
        steps = [checkpoint.step for checkpoint in self.checkpoints]
        if not steps:
            raise ValueError(f"trajectory {self.arm!r} (seed {self.seed}) has no checkpoints")
        if steps != sorted(set(steps)):
            raise ValueError(f"steps of trajectory {self.arm!r} (seed {self.seed}) must rise: {steps}")
        return self

    @property
    def slug(self) -> str:
        """The trajectory's name in file names, e.g. `control-random-s0`."""
        return f"{re.sub(r'[^A-Za-z0-9]+', '-', self.arm)}-s{self.seed}"

    def checkpoint_id(self, step: int) -> str:
        """Name of the checkpoint at `step` in the run folder, e.g. `baseline-s0-000020`."""
        return f"{self.slug}-{step:06d}"


def is_one_direction(arm: str) -> bool:
    """Whether all seeds of an arm are guarded along one direction; a control without a number draws one a seed."""
    return not arm.startswith(_CONTROL) or _DRAW.fullmatch(arm) is not None


def name_trainings(trainings: Sequence[tuple[str, int]]) -> str:
    """`block, seeds 0 and 2; push, seed 1`."""
    seeds: dict[str, list[str]] = {}
    for arm, seed in trainings:
        seeds.setdefault(arm, []).append(str(seed))
    return "; ".join(
        f"{arm}, {'seed' if len(own) == 1 else 'seeds'} {' and '.join(filter(None, (', '.join(own[:-1]), own[-1])))}"
        for arm, own in seeds.items()
    )


def is_trainer_folder(place: Place) -> bool:
    """Whether a place is a folder with `checkpoint-N` in it."""
    return trainer_folder.is_trainer_folder(Path(str(place)).expanduser())


def single_trajectory(places: Sequence[Place], base: str | None) -> tuple[Trajectory, ...]:
    """Checkpoints given one by one, as one trajectory; without steps they are numbered in their order.

    Raises:
        LineageError: one is no checkpoint, or two have the same step.
    """
    steps = []
    for number, place in enumerate(places, start=1):
        match = _STEPPED.match(str(place)) if isinstance(place, str) else None
        ref = CheckpointRef.parse(match["place"], base) if match else CheckpointRef.of(place, base)
        steps.append(_step_at(int(match["step"]) if match else number, ref))
    try:
        return (Trajectory(checkpoints=tuple(sorted(steps, key=lambda step: step.step))),) if steps else ()
    except ValidationError as error:
        raise LineageError(first_fault(error), next_step="Give each checkpoint a step of its own: STEP=REF.") from None


def expand_folder(entry: Any, base: str | None) -> Any:
    """A `[[trajectories]]` entry with `folder` becomes one with its checkpoints listed."""
    if not isinstance(entry, dict) or "folder" not in entry:
        return entry
    unknown = set(entry) - {"folder", "arm", "seed", "base"}
    if unknown:
        raise LineageError(
            f"A trajectory given by its folder takes no {sorted(unknown)[0]!r}", expected="folder, arm, seed, base"
        )
    for key in ("folder", "base"):
        if not isinstance(entry.get(key, ""), str):
            raise LineageError(f"A trajectory's {key} is no text", got=repr(entry[key]))
    return Trajectory.from_folder(**{"base": base, **entry})


def _step_at(step: int, ref: CheckpointRef) -> Step:
    return Step(step=step, model=ref.model, revision=ref.revision, adapter=ref.adapter)
