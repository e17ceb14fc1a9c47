"""What the last step of the ladder asks for: block, push and matched controls beside the arm that is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from probes.behaviour.judges import UNJUDGED
from probes.behaviour.paired import paired_rates
from probes.drift import measurable
from probes.run import Run
from probes.statistics import Estimate
from probes.verdict.causality import Causal, Comparison
from probes.verdict.ladder import NO_ARMS

if TYPE_CHECKING:
    import pandas as pd

_CONTROL = "control:"
Steps = Mapping[int, Mapping[str, Estimate]]
Draws = Callable[[str, int], Float[np.ndarray, " draw"]]


def between_arms(run: Run, arm: str, seed: int, by_arm: Mapping[str, Steps], draws: Draws) -> Causal | str:
    """Block, push and every matched control beside an arm, at the last step that all have.

    Args:
        run: with behaviour, where that was judged.
        arm: the one that is judged; only the baseline has counterparts.
        seed: of its run.
        by_arm: of each arm's run with this seed, the estimates at the layer declared in advance, by step.
        draws: bootstrap draws of the alignment of an arm at a step, the same prompts in every arm.

    Returns:
        The comparisons, or why there are none.
    """
    controls = sorted(name for name in by_arm if name.startswith(_CONTROL))
    if arm != "baseline" or not ({"block", "push"} <= set(by_arm) and controls):
        return NO_ARMS
    if "behaviour" not in run.manifest.stages:
        return "behaviour was not judged, or on other weights"
    names = [arm, "block", "push", *controls]
    step, said = _answers(run, seed, names, by_arm)
    if said is None:
        return "no step at which every arm was judged"
    unclear = [name for name in names if measurable(by_arm[name][step])]
    if unclear:
        return f"the displacement of {', '.join(unclear)} is not measurable at step {step}"
    drawn = {name: draws(name, step) for name in names}

    def held(one: str, other: str, *, rises: bool) -> Comparison:
        before, after = ((said[name] == "compliance").to_numpy(bool) for name in (other, one))
        change = (1 if rises else -1) * (drawn[one] - drawn[other])
        place = [by_arm[name][step]["alignment_crossfit"].value or 0.0 for name in (one, other)]
        return Comparison(
            one,
            other,
            rises,
            (place[0], place[1]),
            (float(after.mean()), float(before.mean())),
            p_alignment=float((1 + (change <= 0).sum()) / (len(change) + 1)),
            p_harm=paired_rates(before, after).one_sided(rises=rises),
        )

    asked = [held(one, other, rises=one == "push") for other in (arm, *controls) for one in ("block", "push")]
    return Causal(asked, [held(one, arm, rises=rises) for one in controls for rises in (False, True)])


def _answers(run: Run, seed: int, names: Sequence[str], by_arm: Mapping[str, Steps]) -> tuple[int, pd.DataFrame | None]:
    """The last common step, and there the verdict on each harmful prompt by arm, of those judged in every arm."""
    asked = run.read_table(
        "completions",
        columns=["arm", "seed", "step", "prompt", "verdict"],
        filters=[("label", "==", "harmful"), ("seed", "==", seed), ("arm", "in", list(names))],
    )
    judged = {name: set(part["step"]) & set(by_arm[name]) for name, part in asked.groupby("arm")}
    steps = set.intersection(*(judged.get(name, set()) for name in names))
    if not steps:
        return 0, None
    step = int(max(steps))
    said = asked[asked["step"] == step].pivot(index="prompt", columns="arm", values="verdict")
    said = said[(said != UNJUDGED).all(axis=1) & said.notna().all(axis=1)]
    return step, None if said.empty else said
