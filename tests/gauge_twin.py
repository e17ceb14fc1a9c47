"""A network's twin: the same function, its weights moved along the known symmetries, written out by hand."""

from __future__ import annotations

import copy
from typing import Any

import torch

KINDS = ("gain", "unit", "head", "plane", "shift")


def move_along(model: Any, kind: str, size: float, *, rotations: bool = False, seed: int = 0) -> Any:
    """A copy of a tiny decoder moved by a random element of one kind of gauge.

    Args:
        model: Llama or Qwen2.
        kind: of `KINDS`.
        size: logarithm of the factors' spread; 0 moves nothing.
        rotations: of a head only rotations with a scale, and not any invertible matrix.
        seed: of the element.
    """
    twin, draw = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        MOVES[kind](twin, _Draw(size, rotations, draw, next(model.parameters()).dtype))
    return twin


class _Draw:
    def __init__(self, size: float, rotations: bool, generator: torch.Generator, dtype: torch.dtype) -> None:
        self._size, self._rotations, self._generator, self._dtype = size, rotations, generator, dtype

    def noise(self, *shape: int) -> torch.Tensor:
        return self._size * torch.randn(shape, generator=self._generator, dtype=torch.float64).to(self._dtype)

    def factors(self, count: int) -> torch.Tensor:
        return self.noise(count).exp()

    def matrix(self, size: int) -> torch.Tensor:
        noise = self.noise(size, size)
        if self._rotations:
            return torch.linalg.matrix_exp(noise - noise.T) * self.factors(1)
        return torch.linalg.matrix_exp(noise)


def _gains(model: Any, draw: _Draw) -> None:
    for block in model.model.layers:
        attention, mlp = block.self_attn, block.mlp
        _gain(block.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj], draw)
        _gain(block.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj], draw)
    if not model.config.tie_word_embeddings:
        _gain(model.model.norm, [model.lm_head], draw)


def _gain(norm: Any, readers: list[Any], draw: _Draw) -> None:
    factors = draw.factors(len(norm.weight))
    norm.weight.mul_(factors)
    for reader in readers:
        reader.weight.div_(factors)


def _units(model: Any, draw: _Draw) -> None:
    for block in model.model.layers:
        factors = draw.factors(len(block.mlp.up_proj.weight))
        _scale_rows(block.mlp.up_proj, factors)
        block.mlp.down_proj.weight.div_(factors)


def _scale_rows(module: Any, factors: torch.Tensor) -> None:
    module.weight.mul_(factors[:, None])
    if module.bias is not None:
        module.bias.mul_(factors)


def _heads(model: Any, draw: _Draw) -> None:
    config = model.config
    group = config.num_attention_heads // config.num_key_value_heads
    for block in model.model.layers:
        values, out = block.self_attn.v_proj, block.self_attn.o_proj.weight
        size = len(values.weight) // config.num_key_value_heads
        for head in range(config.num_key_value_heads):
            matrix = draw.matrix(size)
            rows = slice(head * size, (head + 1) * size)
            values.weight[rows] = matrix @ values.weight[rows]
            if values.bias is not None:
                values.bias[rows] = matrix @ values.bias[rows]
            for query in range(head * group, (head + 1) * group):
                columns = slice(query * size, (query + 1) * size)
                out[:, columns] = out[:, columns] @ torch.linalg.inv(matrix)


def _planes(model: Any, draw: _Draw) -> None:
    config = model.config
    group = config.num_attention_heads // config.num_key_value_heads
    for block in model.model.layers:
        queries, keys = block.self_attn.q_proj, block.self_attn.k_proj
        half = len(keys.weight) // config.num_key_value_heads // 2
        for head in range(config.num_key_value_heads):
            for plane in range(half):
                radius, angle = draw.factors(1), draw.noise(1)
                _turn(keys, head * 2 * half + plane, half, 1 / radius, angle)
                for query in range(head * group, (head + 1) * group):
                    _turn(queries, query * 2 * half + plane, half, radius, angle)


def _turn(module: Any, row: int, half: int, radius: torch.Tensor, angle: torch.Tensor) -> None:
    """Rotate and scale the two rows of one rotary plane."""
    for weight in (module.weight, module.bias):
        if weight is not None:
            first, second = weight[row].clone(), weight[row + half].clone()
            weight[row] = (radius * (angle.cos() * first - angle.sin() * second)).squeeze()
            weight[row + half] = (radius * (angle.sin() * first + angle.cos() * second)).squeeze()


def _shift(model: Any, draw: _Draw) -> None:
    model.lm_head.weight.add_(draw.noise(model.config.hidden_size))


MOVES = {"gain": _gains, "unit": _units, "head": _heads, "plane": _planes, "shift": _shift}
