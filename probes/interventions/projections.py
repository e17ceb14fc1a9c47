"""Projections of prompts on directions, token by token: what a prompt is clamped to in another checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from probes.activations import automatic_batch_tokens, batches
from probes.models.hooks import hand_over
from probes.models.prefix import body_inputs
from probes.models.prompt_values import Projections
from probes.models.view import ModelView


@torch.no_grad()
def read_projections(
    host: ModelView,
    token_ids: Sequence[Sequence[int]],
    layers: Sequence[int],
    directions: Float[np.ndarray, "direction layer d_model"],
) -> list[Projections]:
    """What the checkpoint in `host` has along some directions at every token of every prompt.

    Args:
        host: holds the checkpoint.
        token_ids: rendered prompts.
        layers: behind which blocks.
        directions: unit vectors, one at each of the layers.

    Returns:
        For each direction, the projections of each prompt by its token ids, [layer, token], float32.
    """
    axes = torch.as_tensor(directions, dtype=torch.float32, device=host.device)
    lengths = [len(ids) for ids in token_ids]
    by_direction: list[dict[tuple[int, ...], np.ndarray]] = [{} for _ in axes]
    for batch in batches(lengths, automatic_batch_tokens(host)):
        along: dict[int, torch.Tensor] = {}

        def take(layer: int, stream: torch.Tensor, along: dict[int, torch.Tensor] = along) -> None:
            along[layer] = stream.float() @ axes[:, layers.index(layer)].T

        with hand_over(host.blocks, layers, take):
            host.body(**body_inputs(host, [token_ids[prompt] for prompt in batch]))
        values = torch.stack([along[layer] for layer in layers]).cpu().numpy()
        for row, prompt in enumerate(batch):
            for place, projections in enumerate(by_direction):
                projections[tuple(token_ids[prompt])] = values[:, row, : lengths[prompt], place]
    return list(by_direction)
