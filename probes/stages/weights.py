"""Stage `weights/<one>--<other>.parquet`: how far each tensor went between two checkpoints, kept when it is asked."""

from __future__ import annotations

import re
from typing import Any

from probes.run import Run
from probes.store import fingerprint

_VERSION = 1
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


def weights_name(one: str, other: str) -> str:
    """Where the table of two checkpoints lies in the run folder."""
    return f"weights/{one}--{other}"


def write_weights(run: Run, one: str, other: str, rows: list[dict[str, Any]]) -> None:
    """Keep how far each tensor went between two checkpoints, with its kind and layer."""
    name = weights_name(one, other)
    places = [run.manifest.checkpoints[each]["weights_sha256"] for each in (one, other, "aligned", "witness")]
    with run.stage(name, fingerprint([_VERSION, places])):
        import pandas as pd

        told = [{**row, "kind": kind_of(row["tensor"]), "layer": _layer_of(row["tensor"])} for row in rows]
        run.write_table(name, pd.DataFrame(told, columns=list(COLUMNS)).astype({"inside": "float64"}))


def kind_of(tensor: str) -> str:
    """What a tensor does, from its name; `other` where no name that we know is in it."""
    return next((kind for pattern, kind in _KINDS if re.search(pattern, tensor)), "other")


def _layer_of(tensor: str) -> int:
    found = _BLOCK.search(tensor)
    return int(found[1]) if found else -1
