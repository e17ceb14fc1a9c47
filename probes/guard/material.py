"""What guards are made from: the activations of aligned and witness on the probe prompts, read from a measured run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.activations import collect
from probes.errors import PromptError
from probes.guard.guarded_direction import GuardedDirection, GuardError
from probes.guard.model_in_training import undisturbed
from probes.lineage import Lineage
from probes.models import ModelHost
from probes.models.view import ModelView
from probes.models.weight_space import drift_norms, folded, noised
from probes.nulls.gaussian import Spectrum
from probes.prompts import PromptSet, render
from probes.run import Run

_BASELINE = "baseline"


@dataclass(frozen=True)
class Material:
    """A measured run, as far as guards need it.

    Attributes:
        run: the folder.
        lineage: the checkpoints by role.
        harmful: which probe prompts are harmful.
        aligned: the aligned model's activations, [layer, prompt, d_model].
        witness: the witness's, on the same prompts.
    """

    run: Run
    lineage: Lineage
    harmful: Bool[np.ndarray, " prompt"]
    aligned: Float[np.ndarray, "layer prompt d_model"]
    witness: Float[np.ndarray, "layer prompt d_model"]

    @classmethod
    def of_run(cls, path: Path | str) -> Material:
        """Read a run in which aligned and witness are measured.

        Raises:
            RunFolderError: it is no run, or they are not.
        """
        run = Run(path)
        return cls(run, run.lineage, run.harmful, _all_layers(run, "aligned"), _all_layers(run, "witness"))

    @property
    def vectors(self) -> Float[np.ndarray, "layer d_model"]:
        """Raw reversion vectors: witness − aligned, mean over harmful prompts, float64."""
        return self.returns.mean(axis=1)

    @property
    def returns(self) -> Float[np.ndarray, "layer prompt d_model"]:
        """witness − aligned of each harmful prompt, float64."""
        return self._gap[:, self.harmful]

    @property
    def did(self) -> Float[np.ndarray, "layer d_model"]:
        """The same difference of (harmful − harmless) means: what is common to all prompts cancels."""
        return self.vectors - self._gap[:, ~self.harmful].mean(axis=1)

    @property
    def refusal(self) -> Float[np.ndarray, "layer d_model"]:
        """Harmful − harmless mean of the aligned model at the last token (Arditi et al., arXiv 2406.11717)."""
        wide = self.aligned.astype(np.float64)
        return wide[:, self.harmful].mean(axis=1) - wide[:, ~self.harmful].mean(axis=1)

    @property
    def _gap(self) -> np.ndarray:
        return self.witness.astype(np.float64) - self.aligned

    def covariance_draw(self, direction: GuardedDirection, seed: int) -> GuardedDirection:
        """A direction drawn from N(0, Σ), Σ the Ledoit-Wolf covariance of the aligned model's activations."""
        rng = np.random.default_rng([seed, 0xC0])
        drawn = [Spectrum.of(self.aligned[layer]).draw(rng) for layer in direction.layers]
        return direction.along(np.stack(drawn))

    def drift_off(self, direction: GuardedDirection) -> GuardedDirection:
        """The loudest component of a baseline's drift that is orthogonal to the reversion.

        Raises:
            GuardError: the run holds no baseline.
        """
        runs = [each for each in self.lineage.trajectories if each.arm == _BASELINE]
        if not runs:
            raise GuardError(
                "The drift control needs a drift",
                expected="a run with a baseline",
                next_step="Measure a baseline first.",
            )
        last = runs[0].checkpoint_id(runs[0].checkpoints[-1].step)
        tuned = self.run.activation_file(last)
        axes = []
        for place, layer in enumerate(direction.layers):
            drift = (tuned.layer(layer).astype(np.float64) - self.aligned[layer])[self.harmful]
            unit = direction.unit[place].double().numpy()
            axes.append(np.linalg.svd(drift - np.outer(drift @ unit, unit), full_matrices=False)[2][0])
        return direction.off(np.stack(axes))

    def sham(self, direction: GuardedDirection, seed: int) -> GuardedDirection:
        """The displacement to a witness that is none: the aligned model with noise of the witness's own norms."""
        host = self.host()
        rendered = render(self.prompts, host.tokenizer, host.context_length)
        norms = drift_norms(host, self.lineage.witness)
        with noised(host, norms, seed):
            sham, _ = collect(host, rendered.token_ids, layers=list(direction.layers))
        chosen = list(direction.layers)
        moved = sham[chosen].astype(np.float64) - self.aligned[chosen]
        return direction.along(moved[:, self.harmful].mean(axis=1))

    def weight_span(self) -> dict[str, Tensor]:
        """θ_H − θ_S of every weight by name, in float32 on the CPU."""
        host = self.host()
        aligned = folded(host, self.lineage.aligned)
        return {name: tensor - aligned[name] for name, tensor in folded(host, self.lineage.witness).items()}

    def host(self) -> ModelHost:
        """The aligned model, opened as the run did."""
        return self.run.model()

    def refuse_overlap(self, penalty: PromptSet) -> None:
        """Penalty prompts must have no part in the direction or in the evaluation.

        Raises:
            PromptError: some do; they are named.
        """
        used = {"probe": set(self._asked()[0])}
        if self.run.has_json("evaluation"):
            kept = self.run.read_json("evaluation")
            used["evaluation"] = {text for text, _ in [*kept["prompts"], *(kept["look_alikes"] or [])]}
        for use, texts in used.items():
            refuse_shared(penalty, texts, use)

    @property
    def prompts(self) -> PromptSet:
        """The probe prompts, in the order of the activations."""
        return PromptSet.of(*self._asked())

    def distance(self, live: ModelView, layer: int) -> float:
        """How far a model's mean activation is from the aligned model's at a layer, in units of the reversion."""
        rendered = render(self.prompts, live.tokenizer, live.context_length)
        with undisturbed(live.model, live.tokenizer):
            found, _ = collect(live, rendered.token_ids, layers=[layer])
        apart = (found[layer].astype(np.float64) - self.aligned[layer])[self.harmful].mean(axis=0)
        return float(np.linalg.norm(apart) / np.linalg.norm(self.vectors[layer]))

    def _asked(self) -> tuple[list[str], list[str]]:
        frame = self.run.read_table("prompts", columns=["text", "label"])
        return frame["text"].tolist(), frame["label"].tolist()


def refuse_shared(penalty: PromptSet, texts: set[str] | Sequence[str], use: str) -> None:
    """Refuse penalty prompts that have another use too.

    Raises:
        PromptError: some have; they are named by their ids.
    """
    known = set(texts)
    shared = [prompt.id for prompt in penalty.prompts if prompt.text in known]
    if shared:
        more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
        raise PromptError(
            f"Penalty prompts are among the {use} prompts",
            got=", ".join(shared[:5]) + more,
            next_step="Give the penalty prompts of its own; what they are measured on must be new to them.",
        )


def _all_layers(run: Run, checkpoint: str) -> np.ndarray:
    file = run.activation_file(checkpoint)
    return np.stack([file.layer(layer) for layer in range(file.n_layers)]).astype(np.float32)


def layers_of(asked: Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    """The guarded layers: as asked, else all but the first fourth, where a prompt is still being read."""
    return tuple(asked) if asked is not None else tuple(range(n_layers // 4, n_layers))


def as_tensor(array: np.ndarray) -> Tensor:
    """An array in torch, in float64."""
    return torch.as_tensor(array, dtype=torch.float64)
