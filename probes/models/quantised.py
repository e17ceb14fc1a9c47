"""Adapters trained on a quantised twin of the aligned model: the twin's name, and what it is a twin of."""

from __future__ import annotations

import re

from probes.errors import CheckpointError
from probes.lineage import CheckpointRef

_TWIN = re.compile(r"(?:-unsloth)?-(?:bnb-[48]bit|gptq(?:-int[2348])?|awq(?:-int4)?|int4-awq|[48]bit)$", re.IGNORECASE)


def is_quantised(place: str) -> bool:
    """Whether a place's name says that its weights are quantised (`…-bnb-4bit`, `…-GPTQ-Int4`, `…-AWQ`)."""
    return _TWIN.search(place.rstrip("/")) is not None


def full_precision_base(ref: CheckpointRef, aligned: CheckpointRef) -> CheckpointRef:
    """The base to measure an adapter on: the aligned model's, where the adapter names a quantised twin of it.

    Raises:
        CheckpointError: both are named, and the twin is of another model.
    """
    if not ref.adapter or not is_quantised(ref.model):
        return ref
    twin = _stem(_TWIN.sub("", ref.model.rstrip("/")))
    if not aligned.is_local and twin != _stem(aligned.model):
        raise CheckpointError(
            f"The adapter {ref.adapter} was trained on a quantised model",
            got=ref.model,
            expected=f"a twin of the aligned model {aligned.model}",
            next_step="If its full-precision base is known, give it with base = BASE.",
        )
    return CheckpointRef(model=aligned.model, revision=aligned.revision, adapter=ref.adapter)


def _stem(place: str) -> str:
    """A model's name without its owner; some owners put their own in front again (`Meta-Llama-…`)."""
    return place.rpartition("/")[2].casefold().removeprefix("meta-")
