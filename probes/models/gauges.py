"""The continuous symmetries of a model's weights: how they may move while every activation stays what it is.

A *gauge* is such a family of moves. One here acts on one axis of each of its tensors, in blocks: an element R (one
invertible matrix a block) turns `with` sides into R·W and `against` sides into R⁻ᵀ·W, where W has the axis in front.
Its motions are the tangents at the identity, X·W and −Xᵀ·W. For a decoder of RMSNorms, rotary attention and a gated
MLP (Llama, Mistral, Qwen2) these are known here, and exact:

- `gain`: one factor an entry of a norm's gain, taken back by the columns of whatever reads that norm;
- `unit`: one factor a hidden unit of a gated MLP, from its up row (its gate is not linear) to its down column;
- `head`: any invertible matrix between the values of one key-value head and the columns of the output matrix;
- `plane`: a rotation with a factor in each rotary plane of a key-value head, shared by its queries and its keys;
- `shift`: one vector added to every row of an unembedding of its own, which moves all logits of a token alike.

Left out: a rotation of the residual stream as a whole, since it moves the activations that are measured here, and all
that is discrete (permutations of units and heads).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from probes.errors import CheckpointError

FAMILIES = ("llama", "mistral", "qwen2")
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Side:
    """Where a gauge acts: `repeats` copies of each block along `axis` of a tensor, with or against."""

    tensor: str
    axis: int = 0
    against: bool = False
    repeats: int = 1


@dataclass(frozen=True)
class Gauge:
    """One family of moves; its motions X have shape [block, size, size].

    Attributes:
        kind: `gain`, `unit`, `head` or `plane`.
        part: the piece of the network whose tensors it shares with other gauges, such as `layers.3.mlp`.
        sides: where it acts.
        blocks: how many independent group elements it has.
        size: rows and columns of one of them.
        heads: key-value heads, of a `plane`; its blocks are their planes.
    """

    kind: str
    part: str
    sides: tuple[Side, ...]
    blocks: int
    size: int = 1
    heads: int = 1

    @property
    def dimension(self) -> int:
        """Free numbers of a motion."""
        return self.blocks * (2 if self.kind == "plane" else self.size**2)

    @property
    def tensors(self) -> set[str]:
        """Names of the tensors that it moves."""
        return {side.tensor for side in self.sides}

    def view(self, side: Side, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as [block, repeat, size, everything else]."""
        rows = tensor.movedim(side.axis, 0).reshape(tensor.shape[side.axis], -1)
        if self.kind != "plane":
            return rows.reshape(self.blocks, side.repeats, self.size, -1)
        halves = rows.reshape(self.heads, side.repeats, 2, self.blocks // self.heads, -1)
        return halves.permute(0, 3, 1, 2, 4).reshape(self.blocks, side.repeats, 2, -1)

    def restore(self, side: Side, view: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Undo `view` for a tensor of this shape."""
        if self.kind == "plane":
            planes = view.reshape(self.heads, self.blocks // self.heads, side.repeats, 2, -1)
            view = planes.permute(0, 2, 3, 1, 4)
        front = (shape[side.axis], *(length for axis, length in enumerate(shape) if axis != side.axis))
        return view.reshape(front).movedim(0, side.axis)

    def push(self, weights: Weights, motion: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """What a motion does to each tensor: X·W, and −Xᵀ·W against."""
        for side in self.sides:
            weight = weights[side.tensor]
            factor = -motion.transpose(1, 2) if side.against else motion
            yield side.tensor, self.restore(side, factor[:, None] @ self.view(side, weight), weight.shape)

    def pull(self, weights: Weights, changes: Weights) -> torch.Tensor:
        """The adjoint of `push`: inner products of changes with the motions."""
        total = torch.zeros(())
        for side in self.sides:
            weight, change = self.view(side, weights[side.tensor]), self.view(side, changes[side.tensor])
            left, right = (-weight, change) if side.against else (change, weight)
            total = total + (left @ right.transpose(2, 3)).sum(dim=1)
        return self._in_algebra(total)

    def solve(self, weights: Weights, target: torch.Tensor) -> torch.Tensor:
        """The motion X with `pull(push(X)) = target`, this gauge alone: X·A + B·X, A with and B against."""
        with_it, against = (self._gram(weights, against) for against in (False, True))
        if self.kind != "head":
            traces = (with_it + against).diagonal(dim1=1, dim2=2).mean(dim=1)
            return target / traces[:, None, None]
        (sizes, axes), (sizes_against, axes_against) = torch.linalg.eigh(with_it), torch.linalg.eigh(against)
        inner = axes_against.transpose(1, 2) @ target @ axes
        inner = inner / (sizes_against[:, :, None] + sizes[:, None, :])
        return axes_against @ inner @ axes.transpose(1, 2)

    def _gram(self, weights: Weights, against: bool) -> torch.Tensor:
        total = torch.zeros(())
        for side in self.sides:
            if side.against == against:
                view = self.view(side, weights[side.tensor])
                total = total + (view @ view.transpose(2, 3)).sum(dim=1)
        return total

    def _in_algebra(self, motion: torch.Tensor) -> torch.Tensor:
        """Of a plane's matrix the part a·1 + b·J, which commutes with the rotary embedding."""
        if self.kind != "plane":
            return motion
        same = (motion[:, 0, 0] + motion[:, 1, 1]) / 2
        turn = (motion[:, 1, 0] - motion[:, 0, 1]) / 2
        return torch.stack([torch.stack([same, -turn], dim=1), torch.stack([turn, same], dim=1)], dim=1)


@dataclass(frozen=True)
class Shift:
    """One vector added to every row of the unembedding: all logits of a token rise alike, and no probability moves."""

    tensor: str
    part: str
    dimension: int
    kind: str = "shift"

    @property
    def tensors(self) -> set[str]:
        """Names of the tensors that it moves."""
        return {self.tensor}

    def push(self, weights: Weights, motion: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """The motion [d_model] in every row."""
        yield self.tensor, motion.expand_as(weights[self.tensor])

    def pull(self, weights: Weights, changes: Weights) -> torch.Tensor:  # noqa: ARG002
        """The adjoint of `push`: the sum of the rows."""
        return changes[self.tensor].sum(dim=0)

    def solve(self, weights: Weights, target: torch.Tensor) -> torch.Tensor:
        """The motion with `pull(push(motion)) = target`."""
        return target / weights[self.tensor].shape[0]


def gauges_of(config: Any, shapes: Mapping[str, tuple[int, ...]]) -> list[Gauge | Shift]:
    """The known gauges of a decoder, part by part.

    Args:
        config: its Hugging Face configuration.
        shapes: shape by name of its tensors, as `named_parameters` or its files have them.

    Raises:
        CheckpointError: an architecture whose gauges are not known here, named.
    """
    _check_known(config, shapes)
    gauges: list[Gauge | Shift] = []
    for layer in range(config.num_hidden_layers):
        gauges += _attention(config, f"model.layers.{layer}.", shapes)
        gauges += _gated_mlp(config, f"model.layers.{layer}.", shapes)
    if not config.tie_word_embeddings and "lm_head.weight" in shapes:
        gauges.append(_gain("model.norm.weight", ["lm_head.weight"], "unembedding", config.hidden_size))
        gauges.append(Shift("lm_head.weight", "unembedding", config.hidden_size))
    return gauges


def _check_known(config: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    rope = getattr(config, "rope_parameters", None) or {}
    reason = None
    if config.model_type not in FAMILIES:
        reason = f"the architecture {config.model_type}"
    elif "relu" in str(config.hidden_act):
        reason = f"a gate of {config.hidden_act}, which has scales of its own"
    elif rope.get("partial_rotary_factor", 1.0) != 1.0:
        reason = "a rotary embedding of a part of each head"
    elif "model.layers.0.self_attn.q_proj.weight" not in shapes:
        reason = f"weights under other names, such as {next(iter(shapes), 'none')}"
    if reason:
        raise CheckpointError(
            "The symmetries of these weights are not known here",
            got=reason,
            expected=f"full weights of {', '.join(FAMILIES)} with a gate that is not ReLU",
        )


def _gain(norm: str, readers: list[str], part: str, width: int) -> Gauge:
    return Gauge("gain", part, (Side(norm), *(Side(reader, 1, against=True) for reader in readers)), width)


def _with_bias(
    module: str, shapes: Mapping[str, tuple[int, ...]], repeats: int = 1, against: bool = False
) -> list[Side]:
    names = (name for name in (f"{module}.weight", f"{module}.bias") if name in shapes)
    return [Side(name, 0, against, repeats) for name in names]


def _attention(config: Any, block: str, shapes: Mapping[str, tuple[int, ...]]) -> list[Gauge]:
    part = f"{block.removeprefix('model.')}attention"
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    group = heads // kv_heads
    queries, keys, values, out = (f"{block}self_attn.{letter}_proj" for letter in "qkvo")
    size = shapes[f"{values}.weight"][0] // kv_heads
    readers = [f"{module}.weight" for module in (queries, keys, values)]
    return [
        _gain(f"{block}input_layernorm.weight", readers, part, config.hidden_size),
        Gauge(
            "head",
            part,
            (*_with_bias(values, shapes), Side(f"{out}.weight", 1, against=True, repeats=group)),
            kv_heads,
            size,
        ),
        Gauge(
            "plane",
            part,
            (*_with_bias(queries, shapes, group), *_with_bias(keys, shapes, against=True)),
            kv_heads * size // 2,
            2,
            kv_heads,
        ),
    ]


def _gated_mlp(config: Any, block: str, shapes: Mapping[str, tuple[int, ...]]) -> list[Gauge]:
    part = f"{block.removeprefix('model.')}mlp"
    gate, up, down = (f"{block}mlp.{name}_proj" for name in ("gate", "up", "down"))
    readers = [f"{gate}.weight", f"{up}.weight"]
    return [
        _gain(f"{block}post_attention_layernorm.weight", readers, part, config.hidden_size),
        Gauge(
            "unit",
            part,
            (*_with_bias(up, shapes), Side(f"{down}.weight", 1, against=True)),
            shapes[f"{up}.weight"][0],
        ),
    ]
