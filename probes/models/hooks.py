"""Hooks: read the residual stream, add a vector to it, ablate a direction, clamp it.

Each is a context manager; beside `output_gradients` and `held_blocks`, nothing else in the package registers a hook.
Inside, forward passes and generation are read or changed; on leaving, also by an exception, no hook remains, and the
model computes what it computed before, bit for bit. No activation is changed in place. `models.view.view_of` finds the
parts of any causal language model of transformers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.errors import ActivationError
from probes.models.architecture import ModelParts, entering, first_tensor
from probes.models.prompt_values import Places, Positions, Projections, PromptValues

ENTERING = -1  # the layer before the first block
Change = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def hand_over(
    blocks: Sequence[nn.Module], layers: Sequence[int], take: Callable[[int, Tensor], None]
) -> Iterator[None]:
    """While open, each forward pass gives `take` the stream behind these blocks, by layer, as the pass reaches them.

    Layer −1 is what enters the first block. The streams are the tensors themselves, with their gradient history;
    nothing is changed. `take` may end the pass by raising.
    """

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        take(ENTERING, entering(args, kwargs))

    def after(layer: int, _module: nn.Module, _inputs: Any, output: Any) -> None:
        take(layer, first_tensor(output))

    with contextlib.ExitStack() as stack:
        for layer in layers:
            if layer == ENTERING:
                hook = blocks[0].register_forward_pre_hook(before, with_kwargs=True)
            else:
                hook = blocks[layer].register_forward_hook(partial(after, layer))
            stack.callback(hook.remove)
        yield


@contextlib.contextmanager
def residuals(blocks: Sequence[nn.Module], layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """While open, each forward pass leaves the outputs of these blocks in the yielded mapping, by layer."""
    streams: dict[int, Tensor] = {}
    with hand_over(blocks, layers, streams.__setitem__):
        yield streams


@contextlib.contextmanager
def watch_training(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    batch: Callable[[Mapping[str, Any]], None],
    gradient: Callable[[str, Tensor], None],
) -> Iterator[None]:
    """While open, `batch` gets the keyword arguments of each pass in training mode, and `gradient` the name of each
    weight that a backward pass has just reached, with its gradient as summed up so far; nothing is changed.
    """

    def before(module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        if module.training:
            batch(kwargs)

    with contextlib.ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(before, with_kwargs=True).remove)
        for name, weight in weights.items():
            hook = weight.register_post_accumulate_grad_hook(lambda reached, name=name: gradient(name, reached.grad))
            stack.callback(hook.remove)
        yield


@contextlib.contextmanager
def edit_in_training(blocks: Sequence[nn.Module], changes: Mapping[int, Change]) -> Iterator[None]:
    """While open, what leaves these blocks is changed, by layer, in passes in training mode alone."""

    def edit(block: nn.Module, change: Change, stream: Tensor) -> Tensor:
        return change(stream) if block.training else stream

    with contextlib.ExitStack() as stack:
        for layer, change in changes.items():
            stack.enter_context(_after(blocks[layer], partial(edit, blocks[layer], change)))
        yield


@contextlib.contextmanager
def add(
    model: ModelParts,
    layers: Sequence[int],
    vectors: Float[np.ndarray, "layer d_model"],
    *,
    coefficient: float = 1.0,
    positions: Positions = None,
    generated: bool = True,
) -> Iterator[None]:
    """h ← h + coefficient · vector behind each of these blocks.

    Args:
        model: the parts of a model, as `models.view.view_of` finds them.
        layers: blocks, each once.
        vectors: one for each of them, in the stream's own units.
        coefficient: what they are multiplied with.
        positions: places in the prompt, counted from its end (−1 is its last token); None is every place.
        generated: whether tokens that follow the prompt are changed too.

    Raises:
        ActivationError: there is no such layer, a vector of another width, or a place that is not negative.
    """
    places = Places(positions, generated=generated)
    moves = [_tensor(model, coefficient * vector) for vector in _check(model, layers, vectors)]

    def shift(move: Tensor) -> Change:
        return lambda stream: stream + move.to(stream)

    with _change_behind(model, layers, places, map(shift, moves)):
        yield


@contextlib.contextmanager
def add_to_groups(model: ModelParts, layer: int, vectors: Float[np.ndarray, "group d_model"]) -> Iterator[None]:
    """h ← h + vector behind one block, at every token: each vector to as many rows of a pass as any, in their order.

    So prompts that are repeated for every vector are read with all of them at once.

    Raises:
        ActivationError: as `add`.
    """
    moves = _tensor(model, np.stack([_check(model, [layer], vector[None])[0] for vector in vectors]))

    def shift(stream: Tensor) -> Tensor:
        return stream + moves.to(stream).repeat_interleave(len(stream) // len(moves), dim=0)[:, None]

    with _after(model.blocks[layer], shift):
        yield


@contextlib.contextmanager
def ablate(
    model: ModelParts,
    direction: Float[np.ndarray, " d_model"],
    *,
    layers: Sequence[int] | None = None,
    positions: Positions = None,
    generated: bool = True,
) -> Iterator[None]:
    """h ← h − ⟨h, r̂⟩ r̂ wherever a block reads or writes the stream (Arditi et al., arXiv 2406.11717).

    At each of the blocks: what enters it, what attention and MLP add, and what leaves it. With every block, nothing
    of the direction is left anywhere between the embedding and the final norm.

    Args:
        model: the parts of a model, as `models.view.view_of` finds them.
        direction: of any length but 0.
        layers: blocks; None is all of them.
        positions: as of `add`.
        generated: as of `add`.

    Raises:
        ActivationError: as `add`, or the direction is zero or not finite.
    """
    chosen = range(model.n_layers) if layers is None else layers
    unit = _tensor(model, _unit(_check(model, chosen, np.tile(direction, (len(chosen), 1)))[0]))

    def change(stream: Tensor) -> Tensor:
        axis = unit.to(stream)
        return stream - (stream @ axis)[..., None] * axis

    places = Places(positions, generated=generated)
    with contextlib.ExitStack() as stack:
        stack.callback(model.body.register_forward_pre_hook(places.begin_pass, with_kwargs=True).remove)
        for layer in chosen:
            stack.enter_context(_before(model.blocks[layer], partial(places.apply, change=change)))
            for module in (*model.writers(layer), model.blocks[layer]):
                stack.enter_context(_after(module, partial(places.apply, change=change)))
        yield


@contextlib.contextmanager
def clamp(
    model: ModelParts,
    layers: Sequence[int],
    directions: Float[np.ndarray, "layer d_model"],
    values: Float[np.ndarray, " layer"],
    *,
    positions: Positions = None,
    generated: bool = True,
) -> Iterator[None]:
    """h ← h + (value − ⟨h, r̂⟩) r̂ behind each of these blocks: the projection is held at a value.

    Args:
        model: the parts of a model, as `models.view.view_of` finds them.
        layers: blocks, each once.
        directions: one for each, of any length but 0.
        values: the projection on the unit vector that is held, for each.
        positions: as of `add`.
        generated: as of `add`.

    Raises:
        ActivationError: as `ablate`.
    """
    units = [_tensor(model, _unit(direction)) for direction in _check(model, layers, directions)]

    def hold(unit: Tensor, value: float) -> Change:
        def change(stream: Tensor) -> Tensor:
            axis = unit.to(stream)
            return stream + (value - stream @ axis)[..., None] * axis

        return change

    with _change_behind(model, layers, Places(positions, generated=generated), map(hold, units, values.tolist())):
        yield


@contextlib.contextmanager
def clamp_prompts(
    model: ModelParts,
    layers: Sequence[int],
    directions: Float[np.ndarray, "layer d_model"],
    projections: Projections,
) -> Iterator[None]:
    """As `clamp`, with a value for each token of each prompt; tokens that follow a prompt are left as they come.

    Args:
        model: the parts of a model, as `models.view.view_of` finds them.
        layers: blocks, each once.
        directions: one for each, of any length but 0.
        projections: by a prompt's token ids, the projections on the unit vectors that are held, in the order of the
            layers.

    Raises:
        ActivationError: as `ablate`, or a pass holds a prompt that has no projections.
    """
    units = [_tensor(model, _unit(direction)) for direction in _check(model, layers, directions)]
    prompts = PromptValues(projections)

    def hold(place: int, unit: Tensor) -> Change:
        def change(stream: Tensor) -> Tensor:
            axis = unit.to(stream)
            gap = prompts.values[place].to(stream) - stream @ axis
            return stream + gap.nan_to_num(0.0)[..., None] * axis  # padding has no value

        return change

    with contextlib.ExitStack() as stack:
        stack.callback(model.body.register_forward_pre_hook(prompts.look_up, with_kwargs=True).remove)
        stack.enter_context(_change_behind(model, layers, Places(None, generated=False), map(hold, count(), units)))
        yield


def edits_all_alike(body: nn.Module) -> bool:
    """Whether what is changed now, if anything, is changed at every token of a prompt, wherever it stands."""
    owners = [getattr(hook, "__self__", None) for hook in body._forward_pre_hooks.values()]
    by_prompt = any(isinstance(owner, PromptValues) for owner in owners)
    return not by_prompt and all(owner.all_alike for owner in owners if isinstance(owner, Places))


@contextlib.contextmanager
def _change_behind(
    model: ModelParts, layers: Sequence[int], places: Places, changes: Iterable[Change]
) -> Iterator[None]:
    """While open, what leaves each of these blocks is changed at these places of a pass."""
    with contextlib.ExitStack() as stack:
        stack.callback(model.body.register_forward_pre_hook(places.begin_pass, with_kwargs=True).remove)
        for layer, change in zip(layers, list(changes), strict=True):
            stack.enter_context(_after(model.blocks[layer], partial(places.apply, change=change)))
        yield


@contextlib.contextmanager
def _after(module: nn.Module, change: Change) -> Iterator[None]:
    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        stream = change(first_tensor(output))
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _before(module: nn.Module, change: Change) -> Iterator[None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        stream = change(entering(args, kwargs))
        return ((stream, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": stream})

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _check(model: ModelParts, layers: Sequence[int], vectors: np.ndarray) -> np.ndarray:
    chosen, rows = list(layers), np.asarray(vectors, dtype=np.float64)
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0 or max(chosen) >= model.n_layers:
        raise ActivationError(
            "These layers cannot be changed", got=chosen, expected=f"some of 0 to {model.n_layers - 1}"
        )
    if rows.shape != (len(chosen), model.d_model):
        raise ActivationError(
            "The vectors do not fit the model", got=rows.shape, expected=f"{(len(chosen), model.d_model)}"
        )
    if not np.isfinite(rows).all():
        raise ActivationError("A vector is not finite")
    return rows


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    if length == 0:
        raise ActivationError("A direction of length 0 points nowhere")
    return vector / length


def _tensor(model: ModelParts, vector: np.ndarray) -> Tensor:
    return torch.tensor(vector, dtype=torch.float32, device=model.device)
