"""The path of a training on disk: everything that a step was made from, so that it can be walked back afterwards.

`path/` beside the `checkpoint-N` of a training holds `path.json` (the optimiser, the names of the trained weights by
group), `examples.parquet` (token ids and labels of every example), of each step its tensors in `step-N.safetensors`
and then its facts in `step-N.json`, and `end.safetensors`, the weights behind the last one. Each file appears whole or
not at all; a step that is recorded again, by a training that goes on from an earlier checkpoint, has the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from probes.guard.guarded_direction import GuardError
from probes.store import fingerprint, write_json
from probes.store.atomic import file_sha256, replacing, write_tensors
from probes.store.documents import read_object
from probes.store.remote import fetch_weights

PATH = "path"
FORMAT = 1
_CPU = torch.device("cpu")
_DESCRIPTION, _EXAMPLES, _END = "path.json", "examples.parquet", "end.safetensors"
WEIGHTS, SCALE, GUARD, EDIT, MOMENT = KINDS = ("weights", "scale", "guard", "edit", "moment")
Tensors = dict[str, Tensor]  # by the name of a trained weight


@dataclass(frozen=True)
class Optimiser:
    """How a step follows from gradients: M_t = β M_{t−1} + γ_t g_t, θ_t = (1 − η_t λ) θ_{t−1} − η'_t d_t ⊙ M_t.

    Attributes:
        name: `AdamW`, `Adam` or `SGD`.
        beta: β: Adam's β₁, SGD's momentum.
        second_beta: Adam's β₂; None for SGD.
        epsilon: Adam's ε; None for SGD.
        dampening: SGD's.
        coupled: whether weight decay is added to the gradient (Adam, SGD) and not taken off the weights (AdamW).
    """

    name: str
    beta: float
    second_beta: float | None = None
    epsilon: float | None = None
    dampening: float = 0.0
    coupled: bool = False

    @property
    def is_adaptive(self) -> bool:
        """Whether it divides by the root of a second moment."""
        return self.second_beta is not None

    def gain(self, count: int) -> float:
        """γ of the `count`-th step of the optimiser, counted from 1."""
        if self.is_adaptive:
            return 1 - self.beta
        return 1.0 if count == 1 else 1 - self.dampening

    def rate(self, learning_rate: float, count: int) -> float:
        """η' of the `count`-th step: the learning rate, with Adam's correction of the first moment."""
        return learning_rate / (1 - self.beta**count) if self.is_adaptive else learning_rate


@dataclass(frozen=True)
class RecordedExample:
    """What the model read, and the labels of its tokens, −100 where none counts; a label stands at its own token."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @classmethod
    def of(cls, request: Sequence[int], answer: Sequence[int]) -> RecordedExample:
        """A request and its answer, of which the answer alone counts."""
        return cls((*request, *answer), (*[-100] * len(request), *answer))

    @property
    def tokens(self) -> int:
        """How many tokens the loss is taken on: the first can never be predicted."""
        return sum(label >= 0 for label in self.labels[1:])


@dataclass(frozen=True)
class Step:
    """One optimiser step.

    Attributes:
        step: its number, from 1.
        count: the optimiser's own count, which is another where it had stepped before.
        examples: places of the examples of all its batches.
        tokens: how many tokens of each the loss was taken on.
        weights: what each one's summed loss was multiplied with: 1 over the tokens of the batch, and accumulation's.
        clip: what the sum of their gradients was multiplied with.
        learning_rate: by group of weights.
        weight_decay: by group of weights.
    """

    step: int
    count: int
    examples: tuple[int, ...]
    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    clip: float
    learning_rate: tuple[float, ...]
    weight_decay: tuple[float, ...]


@dataclass
class StepTensors:
    """What belongs to a step, by name of the weight: θ_{t−1}; d_t; the guard's gradient as it was added, and what it
    did to the weights behind the optimiser; M_0 of the first step recorded, where it is not zero.
    """

    weights: Tensors = field(default_factory=dict)
    scale: Tensors = field(default_factory=dict)
    guard: Tensors = field(default_factory=dict)
    edit: Tensors = field(default_factory=dict)
    moment: Tensors = field(default_factory=dict)


class PathWriter:
    """Writes a path, step by step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, optimiser: Optimiser, groups: Sequence[Sequence[str]], about: Mapping[str, Any]) -> None:
        """Write what holds for every step; `about` may say more, as whether activations were edited."""
        described = {"format": FORMAT, "optimiser": asdict(optimiser), "groups": [list(names) for names in groups]}
        write_json(self.folder / _DESCRIPTION, {**described, **about, "steps": None})

    def write_examples(self, examples: Sequence[RecordedExample]) -> None:
        """Write every example that may be drawn, in order."""
        import pandas as pd

        rows = [{"index": place, "ids": e.ids, "labels": e.labels} for place, e in enumerate(examples)]
        with replacing(self.folder / _EXAMPLES) as beside:
            pd.DataFrame(rows, columns=["index", "ids", "labels"]).to_parquet(beside, index=False)

    def write(self, step: Step, tensors: StepTensors) -> None:
        """Write one step: its facts come last, so that with them it is whole."""
        arrays = {
            f"{kind}/{name}": tensor.detach().float().cpu().numpy()
            for kind in KINDS
            for name, tensor in getattr(tensors, kind).items()
        }
        write_tensors(_tensor_file(self.folder, step.step), arrays, {})
        write_json(_fact_file(self.folder, step.step), asdict(step))

    def end(self, weights: Tensors, steps: int) -> None:
        """Write the last weights, and that the path is whole."""
        arrays = {f"{WEIGHTS}/{name}": tensor.detach().float().cpu().numpy() for name, tensor in weights.items()}
        write_tensors(self.folder / _END, arrays, {})
        description = read_object(self.folder / _DESCRIPTION, kind="path of a training", error=GuardError)
        write_json(self.folder / _DESCRIPTION, {**description, "steps": steps})


class RecordedPath:
    """A whole path, read step by step.

    Attributes:
        folder: where it lies.
        optimiser: what stepped.
        groups: names of the trained weights, by group of the optimiser.
        steps: how many, of which the last led to the checkpoint that is looked at.
        edits_activations: whether a guard changed activations in training, which no later pass repeats.
    """

    def __init__(self, folder: Path, until: int | None = None) -> None:
        """Open a path.

        Args:
            folder: where it lies.
            until: the step that it is read to; None is the last.

        Raises:
            GuardError: there is none, it is not whole, or it is damaged.
        """
        self.folder = folder
        fetch_weights(folder)
        if not (folder / _DESCRIPTION).is_file():
            raise GuardError("No path was recorded", got=str(folder), next_step="Train again with --record-path.")
        described = read_object(folder / _DESCRIPTION, kind="path of a training", error=GuardError)
        if described.get("format") != FORMAT:
            raise GuardError(f"{folder} is of another version", got=described.get("format"), expected=FORMAT)
        if not described.get("steps"):
            raise GuardError(f"The path in {folder} is not whole", next_step="Let the training come to its end.")
        try:
            self.optimiser = Optimiser(**described["optimiser"])
            self.groups: list[list[str]] = described["groups"]
            self._recorded = int(described["steps"])
            self.edits_activations = bool(described.get("edits_activations"))
        except (LookupError, TypeError, ValueError) as fault:
            raise GuardError(f"{folder / _DESCRIPTION} is damaged", got=str(fault)) from fault
        self.steps = self._recorded if until is None else until
        if not 0 < self.steps <= self._recorded:
            raise GuardError(f"The path in {folder} has no step {until}", expected=f"1 to {self._recorded}")

    @property
    def names(self) -> list[str]:
        """Every trained weight."""
        return [name for group in self.groups for name in group]

    @property
    def fingerprint(self) -> str:
        """Of everything that the path holds."""
        return fingerprint([[file.name, file_sha256(file)] for file in sorted(self.folder.iterdir())])

    def examples(self) -> list[RecordedExample]:
        """Every example that could be drawn, in order."""
        import pandas as pd

        frame = pd.read_parquet(self.folder / _EXAMPLES)
        return [RecordedExample(tuple(map(int, ids)), tuple(map(int, labels))) for _, ids, labels in frame.to_numpy()]

    def step(self, number: int) -> Step:
        """The facts of a step.

        Raises:
            GuardError: it is missing or damaged.
        """
        return _read_facts(_fact_file(self.folder, number))

    def tensors(self, number: int, device: torch.device = _CPU) -> StepTensors:
        """The tensors of a step.

        Raises:
            GuardError: they are missing or damaged.
        """
        return _read_tensors(_tensor_file(self.folder, number), device)

    def stream(self, number: int, kind: str, device: torch.device = _CPU) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of one of `KINDS` of a step, one after the other; of the step behind the last, the weights.

        Raises:
            GuardError: they are missing or damaged.
        """
        path = self.folder / _END if number > self._recorded else _tensor_file(self.folder, number)
        return _read_in_turn(path, kind, device)

    def end(self, device: torch.device = _CPU) -> Tensors:
        """The weights behind the last step."""
        return dict(self.stream(self.steps + 1, WEIGHTS, device))


def draws_before(folder: Path, step: int) -> list[int]:
    """Which examples the steps up to `step` drew, in order: what a training that goes on from there has to know."""
    return [place for number in range(1, step + 1) for place in _read_facts(_fact_file(folder, number)).examples]


def path_bytes(weights: int, *, adaptive: bool = True) -> int:
    """Bytes that a recorded step takes for so many trained weights: themselves and their scale, in float32."""
    return weights * np.dtype(np.float32).itemsize * (2 if adaptive else 1)


def _tensor_file(folder: Path, number: int) -> Path:
    return folder / f"step-{number:06d}.safetensors"


def _fact_file(folder: Path, number: int) -> Path:
    return folder / f"step-{number:06d}.json"


def _read_facts(path: Path) -> Step:
    facts = read_object(path, kind="recorded step", error=GuardError)
    try:
        values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in facts.items()}
        return Step(**values)
    except TypeError as fault:
        raise _damage(path, fault) from fault


def _read_tensors(path: Path, device: torch.device) -> StepTensors:
    return StepTensors(**{kind: dict(_read_in_turn(path, kind, device)) for kind in KINDS})


def _read_in_turn(path: Path, kind: str, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            keys = [key.partition("/") for key in file.keys()]  # noqa: SIM118
            if any(other_kind not in KINDS for other_kind, _, _ in keys):
                raise _damage(path, "a tensor of an unknown kind")
            for own_kind, slash, name in keys:
                if own_kind == kind:
                    yield name, file.get_tensor(f"{own_kind}{slash}{name}")
    except (OSError, SafetensorError) as fault:
        raise _damage(path, fault) from fault


def _damage(path: Path, fault: object) -> GuardError:
    return GuardError(
        f"A recorded step cannot be read: {path}", got=str(fault), next_step="Train again with --record-path."
    )


def copy_weights(weights: Mapping[str, Tensor]) -> Tensors:
    """A copy of weights as they are now."""
    with torch.no_grad():
        return {name: weight.detach().clone() for name, weight in weights.items()}
