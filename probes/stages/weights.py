"""Stage `weights/<first>--<second>.parquet`: how far each tensor went between two checkpoints, kept when asked.

Beside it `symmetries/<first>--<second>.parquet`, where the symmetries of the architecture are known: the part of each
change that lies along them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from probes.run import Run
from probes.store import fingerprint

_VERSION = 2
_BLOCK = re.compile(r"(?:layers|h|blocks|layer)\.(\d+)\.")
# what a tensor's name holds → its kind; the first that fits
_KINDS = (
    (r"norm|ln_|layernorm", "norm"),
    (r"(q_proj|query(?!_key))", "attention query"),
    (r"k_proj|key(?!_value)", "attention key"),
    (r"v_proj|value", "attention value"),
    (r"query_key_value|c_attn|qkv", "attention input"),
    (r"o_proj|attn\.c_proj|attention\.dense|out_proj", "attention output"),
    (r"gate_proj|router|block_sparse_moe\.gate", "MLP gate"),
    (r"up_proj|c_fc|h_to_4h|w3|w1", "MLP up"),
    (r"down_proj|mlp\.c_proj|4h_to_h|w2", "MLP down"),
    (r"lm_head|embed_out|unembed", "unembedding"),
    (r"embed|wte|wpe", "embedding"),
)
COLUMNS = ("tensor", "kind", "layer", "frobenius", "spectral", "relative", "inside", "random")
SYMMETRY_COLUMNS = ("part", "frobenius", "along", "random")


def weights_name(first: str, second: str) -> str:
    """Where the table of two checkpoints lies in the run folder."""
    return f"weights/{first}--{second}"


def symmetries_name(first: str, second: str) -> str:
    """Where the table of the parts along symmetries lies in the run folder."""
    return f"symmetries/{first}--{second}"


def write_weights(run: Run, first: str, second: str, comparison: Mapping[str, Any]) -> None:
    """Keep how far each tensor went between two checkpoints, with its kind and layer, and how far along symmetries.

    Args:
        run: open for writing.
        first: the checkpoint that differences are taken from.
        second: the other.
        comparison: as `probes.tasks.compare` makes it.
    """
    name, rows = weights_name(first, second), comparison["weights"]
    known = run.manifest.checkpoints
    places = [
        known[checkpoint]["weights_sha256"]
        for checkpoint in (first, second, "aligned", "witness")
        if checkpoint in known
    ]
    with run.stage(name, fingerprint([_VERSION, places])):
        import pandas as pd

        described = [{**row, **describe_tensor(row["tensor"])} for row in rows]
        run.write_table(name, pd.DataFrame(described, columns=list(COLUMNS)).astype({"inside": "float64"}))
        if comparison["symmetries"]:
            frame = pd.DataFrame(comparison["symmetries"]["parts"], columns=list(SYMMETRY_COLUMNS))
            run.write_table(symmetries_name(first, second), frame.astype({"along": "float64"}))


def total_drift(run: Run) -> dict[str, float | None]:
    """‖θ_T − θ_S‖ over all tensors, by checkpoint; None where it is not defined; empty in runs of earlier versions."""
    if not run.has_table("weight_drift"):
        return {}
    frame = run.read_table("weight_drift")
    totals: dict[str, float | None] = {member.id: 0.0 for member in run.tuned}
    for checkpoint, rows in frame.groupby("checkpoint"):
        squares = rows["frobenius"].pow(2).sum(min_count=1)
        totals[str(checkpoint)] = None if squares != squares else float(squares**0.5)
    return totals


def describe_tensor(tensor: str) -> dict[str, Any]:
    """The columns `kind` and `layer` of a tensor's name; layer −1 is outside of the blocks."""
    return {"kind": kind_of(tensor), "layer": _layer_of(tensor)}


def kind_of(tensor: str) -> str:
    """What a tensor does, from its name; `other` where no name that we know is in it."""
    return next((kind for pattern, kind in _KINDS if re.search(pattern, tensor)), "other")


def _layer_of(tensor: str) -> int:
    block = _BLOCK.search(tensor)
    return int(block[1]) if block else -1
