"""The witness of a lineage: the earlier, more permissive state, or what stands in for it."""

from __future__ import annotations

from typing import Literal

from probes.lineage.references import CheckpointRef, Place

ABLATED = "ablated"
NO_WITNESS = "no witness"  # why whatever needs one is not defined
WitnessKind = Literal["helpful-only", "instruction-tuned", "base", "ablated"]
_BEST_TAKEN = "no candidate passes the published rule, the best is taken"


class Witness(CheckpointRef):
    """The earlier, more permissive state. Anything but `helpful-only` stands in for it and is labelled so.

    Attributes:
        kind: what it is; an `ablated` one is the aligned model, read with its refusal direction ablated.
        passes_rule: whether the ablated direction passes the published rule; None before it is selected, and of
            other kinds.
    """

    kind: WitnessKind = "helpful-only"
    passes_rule: bool | None = None

    @property
    def label(self) -> str:
        """`witness`, with what stands in for it if it is not a helpful-only model."""
        if self.kind == ABLATED:
            return "witness (ablated: an estimate" + (f"; {_BEST_TAKEN})" if self.passes_rule is False else ")")
        return "witness" if self.kind == "helpful-only" else f"witness ({self.kind} model stands in)"

    @property
    def is_estimate(self) -> bool:
        """Whether it is no model of its own, but the aligned one read with a direction ablated."""
        return self.kind == ABLATED


def is_ablated(ref: CheckpointRef) -> bool:
    """Whether a reference is the aligned model, to be read with a direction ablated."""
    return isinstance(ref, Witness) and ref.is_estimate


def witness_of(aligned: Place, witness: Place | None, kind: str, base: str | None) -> Witness | None:
    """The witness as it is given; `ablated` is the aligned model, None is none."""
    if witness is None and kind != ABLATED:
        return None
    if kind == ABLATED or str(witness) == ABLATED:
        return Witness.model_validate({**dict(CheckpointRef.of(aligned, base)), "kind": ABLATED})
    return Witness.model_validate({**dict(CheckpointRef.of(witness or aligned, base)), "kind": kind})
