"""What the last step of the ladder asks for: block, push and matched controls beside the arm that is judged."""

from __future__ import annotations

from collections.abc import Mapping

from probes.behaviour.judges import UNJUDGED
from probes.behaviour.paired import paired_rates
from probes.records import Estimate
from probes.store import RunFolder
from probes.verdict import NO_ARMS, Comparison

_CONTROL = "control:"
Steps = Mapping[int, Mapping[str, Estimate]]


def between_arms(run: RunFolder, arm: str, by_arm: Mapping[str, Steps], seed: int) -> tuple[Comparison, ...] | str:
    """Block and push against an arm, and every matched control against block, at the last step that all have.

    Block must lower alignment and harmful compliance, push must raise both, and block must lower both below every
    control: what a control does alike is not owed to the direction.

    Args:
        run: with behaviour, where that was judged.
        arm: the one that is judged; only the baseline has counterparts.
        by_arm: of each arm's run with this seed, the estimates at the layer declared in advance, by step.
        seed: of the run.

    Returns:
        The comparisons, or why there are none.
    """
    controls = sorted(name for name in by_arm if name.startswith(_CONTROL))
    if arm != "baseline" or not ({"block", "push"} <= set(by_arm) and controls):
        return NO_ARMS
    if not run.has_table("completions"):
        return "behaviour was not judged"
    names = [arm, "block", "push", *controls]
    asked = run.read_table(
        "completions", columns=["arm", "seed", "step", "prompt", "verdict"],
        filters=[("label", "==", "harmful"), ("seed", "==", seed), ("arm", "in", names)],
    )  # fmt: skip
    judged = {name: set(part["step"]) & set(by_arm[name]) for name, part in asked.groupby("arm")}
    steps = set.intersection(*(judged.get(name, set()) for name in names))
    if not steps:
        return "the arms have no step in common"
    step = max(steps)
    said = asked[asked["step"] == step].pivot(index="prompt", columns="arm", values="verdict")
    said = said[(said != UNJUDGED).all(axis=1) & said.notna().all(axis=1)]
    if said.empty:
        return "no answer was judged in every arm"
    alignment = {name: by_arm[name][step]["alignment_crossfit"].value for name in names}
    unknown = [name for name in names if alignment[name] is None]
    if unknown:
        return f"the alignment of {', '.join(unknown)} is not measurable at step {step}"

    def held(one: str, other: str, *, rises: bool) -> Comparison:
        before, after = ((said[name] == "compliance").to_numpy(bool) for name in (other, one))
        p = paired_rates(before, after).one_sided(rises=rises)
        return Comparison(
            one, other, rises, (float(alignment[one] or 0), float(alignment[other] or 0)),
            (float(after.mean()), float(before.mean())), p,
        )  # fmt: skip

    return (
        held("block", arm, rises=False), held("push", arm, rises=True),
        *(held("block", control, rises=False) for control in controls),
    )  # fmt: skip
