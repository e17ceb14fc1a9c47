"""What a direction is fitted on: two classes of activations at one layer of one checkpoint.

| contrast | positive | negative |
|---|---|---|
| prompts | this checkpoint on harmful prompts | on harmless ones |
| selected | as `prompts`, at the token that the refusal direction's selection has chosen | |
| models | the witness on harmful prompts | this checkpoint on them |
| displacements | witness − this checkpoint, harmful prompts | the same, harmless ones |
| drift | this checkpoint on harmful prompts | the aligned model on them |
| responses | as `prompts`, each read over its answer's tokens | |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.directions.estimator import ContrastName, winsorise
from probes.errors import StatisticsError
from probes.lineage import NO_WITNESS

SIDES: Mapping[ContrastName, tuple[str, str]] = {
    "prompts": ("harmful prompts", "harmless prompts"),
    "selected": ("harmful prompts", "harmless prompts"),
    "models": ("the witness, harmful prompts", "this checkpoint, harmful prompts"),
    "displacements": ("witness − this checkpoint, harmful prompts", "the same, harmless prompts"),
    "drift": ("this checkpoint, harmful prompts", "the aligned model, harmful prompts"),
    "responses": ("answers to harmful prompts", "answers to harmless prompts"),
}

_UNREAD = {"responses": "answers were not read", "selected": "the selected token was not read"}


@dataclass(frozen=True)
class Contrast:
    """Two classes of rows.

    Attributes:
        rows: activations, float64.
        positive: which rows are of the positive class.
        fold: which rows lie in the second fold; both rows of a prompt lie in the same.
        pairs: equal for the two rows of one prompt; None where rows of different prompts are compared.
    """

    rows: Float[np.ndarray, "row d_model"]
    positive: Bool[np.ndarray, " row"]
    fold: Bool[np.ndarray, " row"]
    pairs: Int[np.ndarray, " row"] | None = None


@dataclass(frozen=True)
class Scene:
    """Activations of one checkpoint at one layer, and those that it is held against.

    Attributes:
        own: this checkpoint's.
        aligned: the aligned model's, on the same prompts.
        witness: the witness's; None where the run has none.
        harmful: which prompts are harmful.
        fold: which prompts lie in the second fold.
        read: in place of `own` for a contrast that is read at other tokens, by the contrast's name; None where the
            aligned model was read there and this checkpoint was not.
        winsorise: clip massive activations to so many typical spreads; None leaves them.
    """

    own: Float[np.ndarray, "prompt d_model"]
    aligned: Float[np.ndarray, "prompt d_model"]
    witness: Float[np.ndarray, "prompt d_model"] | None
    harmful: Bool[np.ndarray, " prompt"]
    fold: Bool[np.ndarray, " prompt"]
    read: Mapping[str, Float[np.ndarray, "prompt d_model"] | None] = field(default_factory=dict)
    winsorise: float | None = None

    def contrast(self, name: ContrastName) -> Contrast:
        """The two classes.

        Raises:
            StatisticsError: it is not there (answers were not read), or its two sides are the same checkpoint.
        """
        rows, positive, fold, pairs = self._sides(name)
        wide = rows.astype(np.float64)
        return Contrast(wide if self.winsorise is None else winsorise(wide, self.winsorise), positive, fold, pairs)

    def _sides(self, name: ContrastName) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        if name in ("models", "displacements") and self.witness is None:
            raise StatisticsError(NO_WITNESS)
        if name == "models":
            assert self.witness is not None
            return self._models(self.witness, self.own, "this is the witness: nothing is left of the way back")
        if name == "drift":
            return self._models(self.own, self.aligned, "this is the aligned model: it has not drifted")
        if name == "displacements":
            assert self.witness is not None
            if np.array_equal(self.witness, self.own):
                raise StatisticsError("this is the witness: nothing is left of the way back")
            return self.witness.astype(np.float64) - self.own, self.harmful, self.fold, None
        if name == "responses" and name not in self.read:
            raise StatisticsError(f"{_UNREAD[name]}: fit with the checkpoints opened")
        rows = self.read.get(name, self.own)
        if rows is None:
            raise StatisticsError(f"{_UNREAD[name]}: the checkpoint is not where it was")
        return rows, self.harmful, self.fold, None

    def _models(
        self, ahead: np.ndarray, behind: np.ndarray, same: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if np.array_equal(ahead, behind):
            raise StatisticsError(same)
        count = int(self.harmful.sum())
        rows = np.concatenate([ahead[self.harmful], behind[self.harmful]])
        positive = np.arange(2 * count) < count
        return rows, positive, np.tile(self.fold[self.harmful], 2), np.tile(np.arange(count), 2)
