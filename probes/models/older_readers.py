"""What we write means the same elsewhere: a configuration that older versions of transformers read alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from probes.models.source import CONFIG, read_json


def write_rope_for_older_readers(folder: Path) -> None:
    """Write the rotary base at the top of `config.json` too, where transformers 4 looks for it.

    transformers 5 saves `rope_parameters` alone. transformers 4 passes that over in silence and takes the family's
    usual base, so that the same weights compute something else.

    Raises:
        CheckpointError: the folder holds no configuration.
    """
    config = read_json(folder / CONFIG)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and isinstance(part.get("rope_parameters"), dict):
            part.update(_older(part["rope_parameters"], str(part.get("model_type", ""))))
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _older(rope: dict[str, Any], model_type: str) -> dict[str, Any]:
    """The fields of transformers 4 that say what `rope_parameters` says."""
    if isinstance(rope.get("full_attention"), dict):  # a base for each kind of layer, as Gemma 3 has
        fields = _older(rope["full_attention"], model_type)
        local = rope.get("sliding_attention", {}).get("rope_theta")
        return {**fields, **({} if local is None else {"rope_local_base_freq": local})}
    if "rope_theta" not in rope:
        return {}
    fields = {"rope_theta": rope["rope_theta"]}
    if model_type == "gpt_neox":
        fields["rotary_emb_base"] = rope["rope_theta"]
    if "partial_rotary_factor" in rope:
        fields["rotary_pct" if model_type == "gpt_neox" else "partial_rotary_factor"] = rope["partial_rotary_factor"]
    if rope.get("rope_type", "default") != "default":
        fields["rope_scaling"] = {
            name: value for name, value in rope.items() if name not in ("rope_theta", "partial_rotary_factor")
        }
    return fields
