"""How many rank-one terms BaRA's gates leave active: by module, and on harmful against harmless prompts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool
from torch import nn

from probes.errors import UsageError
from probes.training.bara.gated_linear import BaraLayer

if TYPE_CHECKING:
    import pandas as pd


def rank_by_module(model: nn.Module) -> dict[str, float]:
    """Expected number of terms that the global gate leaves open, by adapted module; at most r.

    Raises:
        UsageError: the model carries no BaRA adapter.
    """
    return {name: float(_open_globally(layer).sum()) for name, layer in _layers(model).items()}


def active_ranks(
    model: nn.Module, token_ids: Sequence[Sequence[int]], harmful: Bool[np.ndarray, " prompt"]
) -> pd.DataFrame:
    """Expected number of active terms at the last token of each prompt, by module and kind of prompt.

    Args:
        model: of Hugging Face, with a BaRA adapter; it is read at the posterior mean, one prompt at a time.
        token_ids: rendered prompts.
        harmful: which of them are harmful.

    Returns:
        A row a module: `module`, `terms` (r), `open` (`rank_by_module`), `harmful`, `harmless` (means over prompts of
        Σ_k E[z_k]), `difference`; a mean over no prompt is NaN.

    Raises:
        UsageError: the model carries no BaRA adapter, or there is no prompt.
    """
    import pandas as pd

    layers = _layers(model)
    if not len(token_ids):
        raise UsageError("No prompt to read the gates on", expected="one or more")
    active = _read(model, layers, token_ids)
    rows = []
    for name, layer in layers.items():
        means = [float(active[name][mask].mean()) if mask.any() else np.nan for mask in (harmful, ~harmful)]
        rows.append((name, len(_open_globally(layer)), float(_open_globally(layer).sum()), *means, means[0] - means[1]))
    return pd.DataFrame(rows, columns=["module", "terms", "open", "harmful", "harmless", "difference"])


def _layers(model: nn.Module) -> dict[str, BaraLayer]:
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, BaraLayer)
    }
    if not layers:
        raise UsageError("The model carries no BaRA adapter", expected="one trained with --method bara")
    return layers


def _open_globally(layer: BaraLayer) -> torch.Tensor:
    return layer.bara_global[layer.active_adapters[0]].detach().sigmoid()


def _read(model: nn.Module, layers: dict[str, BaraLayer], token_ids: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Active terms at the last token [prompt], by module."""
    device = next(model.parameters()).device
    with _recorded_gates(model, layers) as gates, torch.inference_mode():
        for ids in token_ids:
            model(input_ids=torch.tensor([list(ids)], device=device))
            for name in layers:
                gates[name][-1] = gates[name][-1][0, -1].sum()
    return {name: torch.stack(values).double().cpu().numpy() for name, values in gates.items()}


@contextlib.contextmanager
def _recorded_gates(model: nn.Module, layers: dict[str, BaraLayer]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Within, passes are at the posterior mean, and each layer's gates are put into its list."""
    in_training = model.training
    model.eval()
    gates: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.gates = gates[name]
    try:
        yield gates
    finally:
        for layer in layers.values():
            layer.gates = None
        model.train(in_training)
