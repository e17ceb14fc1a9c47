"""Lineages: the checkpoints of one model's history, each with its role, and the fine-tuning runs that follow.

Nothing is loaded here. A reference says where a checkpoint lives; `probes.models` opens it.
Four kinds of place are understood: a local Hugging Face folder, a hub id with a revision,
a Trainer output folder (its `checkpoint-N` become the steps of a trajectory), and a PEFT adapter on a base.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from probes.errors import LineageError, UsageError
from probes.trainer_folder import is_trainer_folder as _is_trainer_folder
from probes.trainer_folder import read_trainer_folder

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_TASKS = (None, "CAUSAL_LM")  # what peft calls the task of an adapter of a language model
ROLES = ("aligned", "witness", "pretrained")  # members that are no fine-tuned checkpoints
MIRROR = "mirror"  # the arm that trains the witness on the baseline's data
WitnessKind = Literal["helpful-only", "instruction-tuned", "base"]
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_NAMED = re.compile(r"^(?P<arm>[A-Za-z][\w:-]*?)(?:@(?P<seed>\d+))?=(?P<place>.+)$")
_PATH_LIKE = re.compile(r"[/\\\x00-\x1f]|^\.|^$")
_STEPPED = re.compile(r"^(?P<step>\d+)=(?P<place>.+)$")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _no_path(name: str) -> str:
    if _PATH_LIKE.search(name):
        raise ValueError(f"{name!r} is no name: it must not be empty, begin with a dot, or hold a slash")
    return name


Name = Annotated[str, AfterValidator(_no_path)]


class CheckpointRef(_Record):
    """Where one checkpoint lives.

    Attributes:
        model: a local folder, or a hub id such as `allenai/OLMo-2-0425-1B-DPO`.
        revision: branch, tag or commit on the hub; None is the hub's default.
        adapter: a PEFT adapter (folder or hub id) that sits on `model`.
    """

    model: str
    revision: str | None = None
    adapter: str | None = None

    @classmethod
    def parse(cls, text: str, base: str | None = None) -> CheckpointRef:
        """Read `folder`, `org/name`, `org/name@revision`, a GGUF file, or an adapter's folder.

        Args:
            text: the place.
            base: where an adapter's base is now, in place of what the adapter says.

        Raises:
            LineageError: the text is neither a folder that is there nor a hub id.
        """
        folder = Path(text).expanduser()
        if folder.is_dir():
            return cls._from_folder(folder, base)
        if folder.is_file() and folder.suffix == ".gguf":
            return cls(model=str(folder))
        name, _, revision = text.partition("@")
        if _HUB_ID.match(name):
            return cls(model=name, revision=revision or None)
        raise LineageError(
            "This is no checkpoint",
            got=repr(text),
            expected="a folder that exists, or a hub id such as org/name@revision",
        )

    @classmethod
    def of(cls, place: Place, base: str | None = None) -> CheckpointRef:
        """A reference as it is, or read from text (see `parse`) or a folder's path."""
        return place if isinstance(place, CheckpointRef) else cls.parse(str(place), base)

    @classmethod
    def _from_folder(cls, folder: Path, base: str | None = None) -> CheckpointRef:
        if (folder / ADAPTER_CONFIG).is_file():
            config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            if config.get("task_type") not in ADAPTER_TASKS:
                raise LineageError(
                    f"The adapter {folder} is not of a language model",
                    got=f"task_type {config['task_type']}",
                    expected="CAUSAL_LM",
                )
            if base is not None:
                base_ref = cls.parse(base)
                return cls(model=base_ref.model, revision=base_ref.revision, adapter=str(folder))
            named = config.get("base_model_name_or_path")
            if not named:
                raise LineageError(
                    f"The adapter {folder} does not say which base it belongs to",
                    expected=f"base_model_name_or_path in {ADAPTER_CONFIG}",
                    next_step="Say where it is: base = BASE, in a lineage file or as an argument.",
                )
            return cls(model=str(named), adapter=str(folder), revision=config.get("revision"))
        return cls(model=str(folder))

    @property
    def is_local(self) -> bool:
        """Whether `model` is a folder on this machine."""
        return Path(self.model).is_dir()

    def __str__(self) -> str:
        place = f"{self.model}@{self.revision}" if self.revision else self.model
        return f"{place} + {self.adapter}" if self.adapter else place


Place: TypeAlias = str | Path | CheckpointRef


class Witness(CheckpointRef):
    """The earlier, more permissive state. Anything but `helpful-only` stands in for it and is labelled so."""

    kind: WitnessKind = "helpful-only"

    @property
    def label(self) -> str:
        """`witness`, with what stands in for it if it is not a helpful-only model."""
        return "witness" if self.kind == "helpful-only" else f"witness ({self.kind} model stands in)"


class Step(CheckpointRef):
    """One checkpoint of a trajectory, `step` optimiser steps after the aligned model."""

    step: Annotated[int, Field(ge=0)]


class Trajectory(_Record):
    """The checkpoints of one fine-tuning run, ordered by step.

    Attributes:
        arm: what that run did: `baseline`, `block`, `push`, or a control such as `control:random`.
        seed: the run's seed; runs of one arm differ in it.
        notices: sentences on what was left out of its folder; not kept in files.
    """

    arm: Name = "baseline"
    seed: int = 0
    checkpoints: tuple[Step, ...]
    notices: tuple[str, ...] = Field(default=(), exclude=True, repr=False)

    @classmethod
    def from_folder(
        cls, folder: Path | str, *, arm: str = "baseline", seed: int = 0, base: str | None = None
    ) -> Trajectory:
        """Find and order the `checkpoint-N` of a Trainer output folder, the best one and the final model in its root.

        What was cut off while it was written is left out; `notices` says so.

        Args:
            folder: a Trainer's output.
            arm: what the run did.
            seed: the run's.
            base: where the base of its adapters is now, in place of what they say.

        Raises:
            LineageError: the folder is absent or holds no `checkpoint-N`.
        """
        folder = Path(folder).expanduser()
        steps, notices = read_trainer_folder(folder)
        if not steps:
            raise LineageError(
                f"No checkpoint-N in {folder}",
                got=notices[0] if notices else None,
                expected="a Trainer output folder with checkpoint-10, checkpoint-20, …",
                next_step="For a single checkpoint use --checkpoint.",
            )
        checkpoints = tuple(_step_at(step, CheckpointRef._from_folder(place, base)) for step, place in steps.items())
        try:
            return cls(arm=arm, seed=seed, checkpoints=checkpoints, notices=notices)
        except ValidationError as error:
            raise LineageError(_first_fault(error)) from None

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


class Lineage(_Record):
    """One model's history by role, and the trajectories that leave from its aligned member."""

    name: Name
    description: str = ""
    pretrained: CheckpointRef | None = None
    witness: Witness
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
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise LineageError(f"There is no lineage file {path}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise LineageError(f"{path} is not TOML", got=str(error)) from error
        raw.setdefault("name", path.stem)
        raw = _anchor(raw, path.resolve().parent)
        named_base = raw.pop("base", None)
        raw["trajectories"] = [_expand(entry, base or named_base) for entry in raw.get("trajectories", ())]
        try:
            lineage = cls.model_validate(raw)
        except ValidationError as error:
            raise LineageError(f"{path}: {_first_fault(error)}") from None
        return lineage

    @classmethod
    def of(
        cls,
        aligned: Place,
        witness: Place,
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
            witness: likewise.
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
        single = _single_trajectory([place for place in listed if not is_trainer_folder(place)], base)
        lineage = cls(
            name=(Path(str(aligned)).name or Path(str(aligned)).resolve().name).partition("@")[0].lstrip(".")
            or "lineage",
            pretrained=None if pretrained is None else CheckpointRef.of(pretrained, base),
            witness=Witness(**dict(CheckpointRef.of(witness, base)), kind=witness_kind),  # type: ignore[arg-type]
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
        return self

    def with_trajectories(self, more: tuple[Trajectory, ...]) -> Lineage:
        """The same lineage with `more` trajectories behind its own.

        Raises:
            LineageError: an arm and seed would be there twice.
        """
        try:
            return type(self)(**{**dict(self), "trajectories": (*self.trajectories, *more)})
        except ValidationError as error:
            raise LineageError(_first_fault(error)) from None

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences on what was left out of the folders that the trajectories came from."""
        return tuple(sentence for run in self.trajectories for sentence in run.notices)

    def members(self) -> Iterator[Member]:
        """Every checkpoint once: aligned first, it is what the others are held against."""
        yield Member("aligned", "aligned", 0, 0, self.aligned)
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
        return Lineage.model_validate(_rewritten(self.model_dump(), lambda place: _from_home(place, home.resolve())))

    @classmethod
    def opened(cls, raw: Mapping[str, Any], home: Path) -> Lineage:
        """A lineage as kept in the run folder `home`, its relative folders taken from there.

        Raises:
            LineageError: it is damaged.
        """
        try:
            return cls.model_validate(_anchor(dict(raw), home.resolve()))
        except ValidationError as error:
            raise LineageError(f"The lineage of {home} is damaged: {_first_fault(error)}") from None

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


def is_trainer_folder(place: Place) -> bool:
    """Whether a place is a folder with `checkpoint-N` in it."""
    return _is_trainer_folder(Path(str(place)).expanduser())


def _name_of(place: Path) -> str:
    return (place.name or place.resolve().name).partition("@")[0].lstrip(".") or "lineage"


def _single_trajectory(places: Sequence[Place], base: str | None) -> tuple[Trajectory, ...]:
    """Checkpoints given one by one, as one trajectory; without steps they are numbered in their order."""
    steps = []
    for number, place in enumerate(places, start=1):
        match = _STEPPED.match(str(place)) if isinstance(place, str) else None
        ref = CheckpointRef.parse(match["place"], base) if match else CheckpointRef.of(place, base)
        steps.append(_step_at(int(match["step"]) if match else number, ref))
    return (Trajectory(checkpoints=tuple(sorted(steps, key=lambda step: step.step))),) if steps else ()


def _step_at(step: int, ref: CheckpointRef) -> Step:
    return Step(step=step, model=ref.model, revision=ref.revision, adapter=ref.adapter)


def _expand(entry: Any, base: str | None) -> Any:
    """A `[[trajectories]]` entry with `folder` becomes one with its checkpoints listed."""
    if not isinstance(entry, dict) or "folder" not in entry:
        return entry
    unknown = set(entry) - {"folder", "arm", "seed", "base"}
    if unknown:
        raise LineageError(
            f"A trajectory given by its folder takes no {sorted(unknown)[0]!r}", expected="folder, arm, seed, base"
        )
    return Trajectory.from_folder(**{"base": base, **entry})


def _anchor(raw: Any, folder: Path) -> Any:
    """Relative folders of a lineage file, made absolute; hub ids stay as they are."""

    def anchor(place: str) -> str:
        path = folder / Path(place).expanduser()
        return str(path) if path.exists() or place.startswith((".", "/", "~")) else place

    return _rewritten(raw, anchor)


def _from_home(place: str, home: Path) -> str:
    folder = Path(place)
    inside = folder.is_absolute() and folder.resolve().is_relative_to(home)
    return f"./{folder.resolve().relative_to(home).as_posix()}" if inside else place


def _rewritten(value: Any, change: Callable[[str], str], key: str = "") -> Any:
    """A lineage's raw form with every place changed."""
    if isinstance(value, dict):
        return {name: _rewritten(inner, change, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rewritten(inner, change, key) for inner in value]
    return change(value) if key in {"model", "adapter", "folder", "base"} and isinstance(value, str) else value


def _first_fault(error: ValidationError) -> str:
    """What pydantic found wrong, as one sentence; an unknown key comes first and names the nearest known one."""
    faults = error.errors()
    fault = next((candidate for candidate in faults if candidate["type"] == "extra_forbidden"), faults[0])
    key_path = ".".join(str(part) for part in fault["loc"]) or "the file"
    if fault["type"] == "extra_forbidden":
        key = str(fault["loc"][-1])
        known = {name for model in (Lineage, Witness, Trajectory, Step) for name in model.model_fields} | {
            "folder",
            "base",
        }
        nearest = get_close_matches(key, sorted(known), n=1)
        return f"unknown key {key_path!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
    if fault["type"] == "missing":
        return f"{key_path!r} is missing"
    return f"{key_path}: {fault['msg'].removeprefix('Value error, ')}"
