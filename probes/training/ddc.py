"""DDC: AdamW that takes the same step in function space wherever the weights stand on their symmetries' orbits.

**Known** of Dead-Direction Conditioners (Shirodkar, arXiv 2606.29176; its abstract is all that we had): Adam's second
moment by coordinate makes the weights drift along the orbits of the symmetries that a network has (shift of the logits,
rescaling of ReLU and SwiGLU units, scale of LayerNorm and RMSNorm, rotation of each attention head as far as the
rotary embedding allows it); DDC conditions the optimiser's state in the orbit decomposition of an invariant metric,
so that it becomes equivariant, exactly so on an Adam base.

**Our reconstruction**, as we know of no public code: the formulas below, which are not claimed to be the paper's.

- Every weight has a *frame* F, made of the present weights, that moves with them along the scale gauges; W/F is the
  weight in a canonical gauge. Gradients are read there (g·F), both moments of Adam live there, and the step is
  taken back (F·step). The canonical gauge has every norm's gain at 1, and up row against down column, values
  against output columns, and queries against keys at equal mean squares. A model that stands there is trained as
  AdamW trains it, rotations aside.
- Along a rotation the second moment is the mean over the rotated axis (one head's values by input, the two rows of
  a rotary plane), which no rotation changes; the first moment turns with the weights.
- From an unembedding of its own, the step's mean row is taken out: a shift of all logits.

It is exact for `gain`, `unit`, `plane` and `shift` of `probes.models.gauges`, and for rotations with a scale of
`head`. A twin of the network, moved along these, stays its twin at every step (tests: log-probabilities to
1e-11 in float64, to 1e-5 in float32). It is *not* equivariant to the other invertible matrices between values and
outputs, nor to a rotation of the residual stream. Not conditioned at all, and refused by name: LayerNorm, ReLU gates,
norms within a head, adapters.

The step is not projected off the orbits: in a scale gauge that changes nothing of what follows, as all state lives in
the canonical gauge; of a rotation's motion the first moment knows nothing. Clipping by the Euclidean norm of all
gradients (a Trainer's `max_grad_norm`) happens outside and is not invariant; with it on, twins part as far as it cuts.
Only AdamW is the base here; Muon is not done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from probes.errors import CheckpointError, UsageError
from probes.models.gauges import Gauge, Shift, Side, gauges_of

_Places = dict[str, list[tuple[Gauge, Side]]]


class DDC(torch.optim.Optimizer):
    """AdamW with its state conditioned along the gauges of the weights; see the module for what is exact.

    Args:
        params: parameters to train, or groups of them, as of any optimiser of torch; they belong to `weights`.
        weights: all parameters of the model by name, those that are not trained too: the frames need them.
        gauges: from `probes.models.gauges.gauges_of`; with none this is AdamW.
        lr: learning rate, on the weights in the canonical gauge.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment, in the canonical gauge.
        weight_decay: decoupled, as AdamW's.

    Raises:
        UsageError: a parameter is not of these weights.
        CheckpointError: a gain is 0, or one end of a scale is zero throughout: there the canonical gauge has no place.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        weights: Mapping[str, torch.Tensor],
        gauges: Sequence[Gauge | Shift],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._weights = dict(weights)
        self._linear = [gauge for gauge in gauges if isinstance(gauge, Gauge)]
        self._free_of_shift = {gauge.tensor for gauge in gauges if isinstance(gauge, Shift)}
        self._places = _places(self._linear)
        self._names = {id(weight): name for name, weight in weights.items()}
        for parameter in self._parameters():
            if id(parameter) not in self._names:
                raise UsageError(
                    "DDC is to train a parameter that is not of its model",
                    got=f"shape {tuple(parameter.shape)}",
                    expected="parameters of the model whose gauges it knows",
                )
        _check_frames(self._linear, self._frames())

    @classmethod
    def of(cls, model: nn.Module, params: Iterable[Any] | None = None, **options: Any) -> DDC:
        """DDC for a Hugging Face model; of all its parameters that are trained, unless `params` says otherwise.

        Raises:
            CheckpointError: an architecture whose gauges are not known (an adapter of peft is one: its factors have
                gauges of their own, for which there is LoRA-RITE), or weights without a canonical gauge.
        """
        weights = dict(model.named_parameters())
        if hasattr(model, "peft_config"):
            raise CheckpointError(
                "DDC conditions a model's own weights",
                got="an adapter",
                expected="full fine-tuning",
                next_step="For an adapter choose another optimiser, such as LoRA-RITE.",
            )
        gauges = gauges_of(model.config, {name: tuple(weight.shape) for name, weight in weights.items()})
        if params is None:
            params = [weight for weight in weights.values() if weight.requires_grad]
        return cls(params, weights=weights, gauges=gauges, **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, as of any optimiser of torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        frames = self._frames()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group, frames)
        return loss

    def _parameters(self) -> Iterable[torch.Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    def _step_one(
        self,
        parameter: torch.Tensor,
        gradient: torch.Tensor,
        group: dict[str, Any],
        frames: dict[Gauge, torch.Tensor],
    ) -> None:
        name, state = self._names[id(parameter)], self.state[parameter]
        places = self._places.get(name, [])
        frame = _frame_of(places, frames, parameter)
        if frame is not None:
            gradient = (gradient * frame).to(parameter.dtype)
        if not state:
            state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(parameter))
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        change = _adam(state, gradient, _pool(places, gradient.square()), group)
        if frame is not None:
            change = change * frame
        if name in self._free_of_shift:
            change = change - change.mean(dim=0)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change.to(parameter.dtype), alpha=group["lr"])

    def _frames(self) -> dict[Gauge, torch.Tensor]:
        """The frame [block] of each gauge at the present weights: the gain itself, or the balance of both ends."""
        with torch.no_grad():
            gains = {
                gauge: _float(self._weights[gauge.sides[0].tensor]) for gauge in self._linear if gauge.kind == "gain"
            }
            balances = {
                gauge: (self._mean_square(gauge, gains, False) / self._mean_square(gauge, gains, True)) ** 0.25
                for gauge in self._linear
                if gauge.kind != "gain"
            }
        return {**gains, **balances}

    def _mean_square(self, gauge: Gauge, gains: dict[Gauge, torch.Tensor], against: bool) -> torch.Tensor:
        """Mean square of one end of a gauge by block, with the norms' gains taken into the weights."""
        total, count = torch.zeros(()), 0
        for side in gauge.sides:
            if side.against == against:
                weight = _float(self._weights[side.tensor])
                places = [place for place in self._places[side.tensor] if place[0] in gains]
                frame = _frame_of(places, gains, weight)
                view = gauge.view(side, weight if frame is None else weight / frame).square()
                total = total + view.sum(dim=(1, 2, 3))
                count += view[0].numel()
        return total / count


def _places(gauges: Sequence[Gauge]) -> _Places:
    """Where gauges act, by tensor."""
    places: _Places = {}
    for gauge in gauges:
        for side in gauge.sides:
            places.setdefault(side.tensor, []).append((gauge, side))
    return places


def _float(tensor: torch.Tensor) -> torch.Tensor:
    """In float32 at least."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _frame_of(
    places: list[tuple[Gauge, Side]], frames: dict[Gauge, torch.Tensor], tensor: torch.Tensor
) -> torch.Tensor | None:
    """What the canonical weight is multiplied by to have the present one, to be broadcast; None where that is 1."""
    frame = None
    for gauge, side in places:
        factors = 1 / frames[gauge] if side.against else frames[gauge]
        ends = factors[:, None, None, None].expand(-1, side.repeats, gauge.size, 1)
        shape = [1] * tensor.ndim
        shape[side.axis] = tensor.shape[side.axis]
        along = gauge.restore(Side(side.tensor, 0, side.against, side.repeats), ends, torch.Size([ends.numel()]))
        along = along.reshape(shape)
        frame = along if frame is None else frame * along
    return frame


def _pool(places: list[tuple[Gauge, Side]], squares: torch.Tensor) -> torch.Tensor:
    """Squares of a gradient, as their mean along every axis that a gauge rotates."""
    for gauge, side in places:
        if gauge.size > 1:
            view = gauge.view(side, squares)
            squares = gauge.restore(side, view.mean(dim=2, keepdim=True).expand_as(view), squares.shape)
    return squares


def _adam(state: dict[str, Any], gradient: torch.Tensor, squares: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """Adam's step for a learning rate of 1, its moments brought up to date."""
    beta1, beta2 = group["betas"]
    state["step"] += 1
    count = float(state["step"])
    state["exp_avg"].lerp_(gradient, 1 - beta1)
    state["exp_avg_sq"].mul_(beta2).add_(squares, alpha=1 - beta2)
    root = (state["exp_avg_sq"] / (1 - beta2**count)).sqrt_().add_(group["eps"])
    return state["exp_avg"] / (1 - beta1**count) / root


def _check_frames(gauges: Sequence[Gauge], frames: dict[Gauge, torch.Tensor]) -> None:
    for gauge in gauges:
        if not (frames[gauge].isfinite() & (frames[gauge] != 0)).all():
            raise CheckpointError(
                "These weights have no canonical gauge",
                got=f"zeros at a {gauge.kind} of {gauge.part}",
                expected="gains that are not 0, and no row or column that is 0 throughout",
            )
