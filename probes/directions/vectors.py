"""Directions as they are kept and passed on: unit vectors by layer, their lengths, and what they were made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from probes.errors import RunFolderError, UsageError
from probes.store.activation_file import opened
from probes.store.atomic import write_tensors
from probes.store.documents import parse_json

FORMAT_VERSION = "1"
# What every vector file says of itself, all strings; further keys may follow.
KEYS = (
    "format_version",
    "method",
    "concept",
    "model_id",
    "model_revision",
    "weights_sha256",
    "hook",
    "site",
    "index_base",
    "n_layers",
    "final_norm_included",
    "position",
    "n_positive",
    "n_negative",
    "prompts_sha256",
    "orientation",
    "created",
    "tool_version",
    "metrics_json",
)


@dataclass(frozen=True)
class Vectors:
    """A direction at some or all layers of one model.

    Attributes:
        name: what it is called.
        layers: the blocks behind which it lies, rising.
        direction: unit vectors [layer, d_model]; zeros where it is not defined.
        norm: the length that counts as 1 at each layer; 0 where it is not defined.
        about: what it was made from, all strings (`KEYS`, where known).
    """

    name: str
    layers: tuple[int, ...]
    direction: Float32[np.ndarray, "layer d_model"]
    norm: Float32[np.ndarray, " layer"]
    about: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.direction) or len(self.layers) != len(self.norm) or not self.layers:
            raise ValueError("one vector and one norm a layer")
        if list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ValueError(f"layers must rise from 0: {self.layers}")

    @classmethod
    def of_raw(
        cls, name: str, layers: tuple[int, ...], raw: np.ndarray, about: Mapping[str, str] | None = None
    ) -> Vectors:
        """From vectors [layer, d_model] of any length.

        Raises:
            UsageError: one is not finite.
        """
        wide = np.asarray(raw, dtype=np.float64)
        if not np.isfinite(wide).all():
            raise UsageError(f"The direction {name} is not finite")
        norm = np.linalg.norm(wide, axis=1)
        unit = wide / np.where(norm > 0, norm, 1.0)[:, None]
        return cls(name, tuple(layers), unit.astype(np.float32), norm.astype(np.float32), dict(about or {}))

    @property
    def width(self) -> int:
        """d_model."""
        return self.direction.shape[1]

    @property
    def n_layers(self) -> int | None:
        """Layers of the model, where it is known."""
        text = self.about.get("n_layers", "")
        return int(text) if text.isdigit() else None

    @property
    def raw(self) -> np.ndarray:
        """Unit vectors times their lengths, float64: a float32 times a float32 loses nothing there."""
        return self.direction.astype(np.float64) * self.norm.astype(np.float64)[:, None]

    @property
    def declared_layer(self) -> int | None:
        """The layer that a selection rule has chosen; None where there was none."""
        text = self.about.get("selected_layer", "")
        return int(text) if text.lstrip("-").isdigit() else None

    def at(self, layer: int) -> tuple[np.ndarray, float]:
        """Unit vector and length at a layer, float64.

        Raises:
            UsageError: the direction has no such layer, or is not defined there.
        """
        if layer not in self.layers:
            known = f"{self.layers[0]} to {self.layers[-1]}" if len(self.layers) > 1 else str(self.layers[0])
            raise UsageError(f"The direction {self.name} is not known at layer {layer}", expected=f"layer {known}")
        place = self.layers.index(layer)
        if self.norm[place] == 0:
            raise UsageError(
                f"The direction {self.name} is not defined at layer {layer}: its classes do not differ there"
            )
        return self.direction[place].astype(np.float64), float(self.norm[place])

    def add(
        self, model: Any, layer: int, scale: float = 1.0, *, positions: Sequence[int] | None = None
    ) -> AbstractContextManager[None]:
        """While open, scale × norm × unit direction is added behind block `layer`: 1.0 is the raw difference.

        Args:
            model: any causal language model of transformers, also inside peft; or a run's own.
            layer: the block.
            scale: in units of the direction's norm at that layer.
            positions: places in the prompt, counted from its end; None is every token.

        Raises:
            UsageError: the direction is not known or defined at the layer.
            ActivationError: the model has no such layer, or another width.
        """
        from probes.models import hooks
        from probes.models.view import view_of

        unit, norm = self.at(layer)
        return hooks.add(view_of(model), [layer], norm * unit[None], coefficient=scale, positions=positions)

    def ablate(self, model: Any, layer: int) -> AbstractContextManager[None]:
        """While open, the direction as it is at `layer` is taken out wherever a block reads or writes the stream."""
        from probes.models import hooks
        from probes.models.view import view_of

        return hooks.ablate(view_of(model), self.at(layer)[0])

    def clamp(self, model: Any, layer: int, scale: float) -> AbstractContextManager[None]:
        """While open, the projection behind block `layer` is held at scale × norm."""
        from probes.models import hooks
        from probes.models.view import view_of

        unit, norm = self.at(layer)
        return hooks.clamp(view_of(model), [layer], unit[None], np.array([scale * norm]))

    @property
    def of_unit_norm(self) -> Vectors:
        """The same, counted in its own unit vectors where it is defined."""
        return replace(self, norm=(self.norm > 0).astype(np.float32))

    def only(self, layer: int) -> Vectors:
        """The same at one layer, which is then no longer said to be the selected one if it is not; raises as `at`."""
        self.at(layer)
        place = self.layers.index(layer)
        about = dict(self.about)
        if self.declared_layer != layer:
            about.pop("selected_layer", None)
        return Vectors(self.name, (layer,), self.direction[[place]], self.norm[[place]], about)

    def write(self, path: Path) -> None:
        """Write the native file, beside its place and then into it."""
        about = {**self.about, "name": self.name, "layers": json.dumps(list(self.layers))}
        write_tensors(path, {"direction": self.direction, "norm": self.norm}, about)

    @classmethod
    def read(cls, path: Path) -> Vectors:
        """Read a native file; one of an older run says neither its name nor its layers, and has all of them.

        Raises:
            RunFolderError: it is not there, damaged, or no direction.
        """
        with opened(path) as file:
            about, names = dict(sorted((file.metadata() or {}).items())), set(file.keys())
            if not {"direction", "norm"} <= names:
                raise RunFolderError(f"{path} holds no direction", got=sorted(names), expected="direction and norm")
            direction, norm = file.get_tensor("direction"), file.get_tensor("norm")
        try:
            layers = tuple(parse_json(about.pop("layers", "null"), f"{path}, layers") or range(len(direction)))
            return cls(
                about.pop("name", path.stem), layers, direction.astype(np.float32), norm.astype(np.float32), about
            )
        except (UsageError, ValueError, TypeError, IndexError) as error:
            raise RunFolderError(f"{path} holds no direction", got=str(error)) from error


@dataclass(frozen=True)
class Owner:
    """The model that a direction must belong to.

    Attributes:
        d_model: its width.
        n_layers: its depth; None where it is not known.
        weights: hashes of the weights that a direction may have been found in: the model's own, and those of the
            other checkpoints of its lineage, which share its basis. Empty where they are not known.
        name: what it is called in messages.
    """

    d_model: int
    n_layers: int | None
    weights: frozenset[str] = frozenset()
    name: str = "this model"

    def refuse_foreign(self, vectors: Vectors) -> None:
        """Refuse a direction of another model, by width, by depth, or by the hash of the weights it was found in.

        Raises:
            UsageError: it is one.
        """
        if vectors.width != self.d_model:
            raise self._foreign(vectors, f"width {vectors.width}", f"width {self.d_model}")
        if self.n_layers is not None and vectors.n_layers not in (None, self.n_layers):
            raise self._foreign(vectors, f"{vectors.n_layers} layers", f"{self.n_layers} layers")
        if self.n_layers is not None and vectors.layers[-1] >= self.n_layers:
            raise self._foreign(vectors, f"layer {vectors.layers[-1]}", f"{self.n_layers} layers")
        own = vectors.about.get("weights_sha256", "")
        if own and self.weights and own not in self.weights:
            known = ", ".join(sorted(digest[:12] for digest in self.weights)[:3])
            raise self._foreign(
                vectors, f"weights {own[:12]}", f"weights {known}{' …' if len(self.weights) > 3 else ''}"
            )

    def _foreign(self, vectors: Vectors, property_text: str, expected: str) -> UsageError:
        return UsageError(
            f"The direction {vectors.name} is that of another model",
            got=property_text,
            expected=f"{expected}, as {self.name} has",
        )
