"""Which candidate becomes the refusal direction: a pure rule on scores (Arditi et al., arXiv 2406.11717)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import StatisticsError, UsageError
from probes.store.documents import read_json

# Our names → those of the published files (`direction_evaluations.json` of andyrdt/refusal_direction).
KEYS = {
    "position": "position",
    "layer": "layer",
    "bypass": "refusal_score",
    "induce": "steering_score",
    "kl": "kl_div_score",
}
ESTIMATES = "screened"  # ours alone: by a score's published name, [estimate, bound] of a few prompts
NEAREST = 5


@dataclass(frozen=True)
class Candidate:
    """One difference of means, and what it does.

    Attributes:
        position: token it was read at, counted from the prompt's end.
        layer: layer it was read at.
        bypass: mean refusal score on harmful prompts with the direction ablated everywhere; low is good.
        induce: mean refusal score on harmless prompts with the vector added at its layer; high is good.
        kl: mean KL of the next token on harmless prompts, as is against ablated, in nats; low is good.
        induce_estimate: the induce score as a few prompts tell it; NaN where nobody asked.
        kl_estimate: KL likewise.
    """

    position: int
    layer: int
    bypass: float
    induce: float
    kl: float
    induce_estimate: float = math.nan
    kl_estimate: float = math.nan

    @classmethod
    def of_published(cls, row: Mapping[str, Any]) -> Candidate:
        """From a row of a published file; a score that is null there is NaN.

        Raises:
            KeyError: a score is missing.
            ValueError, TypeError: one is no number.
        """
        bypass, induce, kl = (
            float("nan") if row[KEYS[name]] is None else float(row[KEYS[name]]) for name in ("bypass", "induce", "kl")
        )
        estimated = row.get(ESTIMATES, {})
        estimates = (float(estimated.get(KEYS[name], (math.nan,))[0]) for name in ("induce", "kl"))
        return cls(int(row[KEYS["position"]]), int(row[KEYS["layer"]]), bypass, induce, kl, *estimates)

    def published_row(self) -> dict[str, int | float | None]:
        """The same row again; a score that is not finite is null."""
        scores = {"bypass": self.bypass, "induce": self.induce, "kl": self.kl}
        finite = {KEYS[name]: value if math.isfinite(value) else None for name, value in scores.items()}
        return {KEYS["position"]: self.position, KEYS["layer"]: self.layer, **finite}


@dataclass(frozen=True)
class Rule:
    """What a candidate must pass; among those that do, the lowest bypass score is taken.

    Attributes:
        max_kl: KL must be below this.
        min_induce: the induce score must be above this.
        depth: its layer must be below int(depth · number of layers): late layers write tokens more than meaning. A
            layer counts as the scores name it: in published files that is the stream that enters the block, in ours
            the one that leaves it, which is one place deeper.
    """

    max_kl: float = 0.1
    min_induce: float = 0.0
    depth: float = 0.8

    def __post_init__(self) -> None:
        if math.isnan(self.max_kl) or math.isnan(self.min_induce):
            raise UsageError("A filter must be a number", got=f"max KL {self.max_kl}, min induce {self.min_induce}")
        if not 0 < self.depth <= 1:
            raise UsageError("A depth is a share of the layers", got=self.depth, expected="above 0, at most 1")

    def faults(self, candidate: Candidate, n_layers: int) -> dict[str, float]:
        """What a candidate fails, by filter: the value at which it would just not pass.

        A score that is not there fails as well; where only that was computed which refuses the candidate, both stand.
        """
        failed: dict[str, float] = {}
        if not all(math.isfinite(score) for score in (candidate.bypass, candidate.induce, candidate.kl)):
            failed["finite"] = math.nan
        induce = candidate.induce if math.isfinite(candidate.induce) else candidate.induce_estimate
        kl = candidate.kl if math.isfinite(candidate.kl) else candidate.kl_estimate
        if not math.isfinite(induce):  # nothing is known of it
            return failed
        if candidate.layer >= int(self.depth * n_layers):
            failed["depth"] = (candidate.layer + 1) / n_layers
        if kl >= self.max_kl:
            failed["max_kl"] = kl
        if not induce > self.min_induce:
            failed["min_induce"] = induce
        return failed


@dataclass(frozen=True)
class Selection:
    """What the rule says.

    Attributes:
        chosen: the candidate; None where none passes.
        passing: how many pass.
        candidates: how many there are.
        nearest: where none passes, the candidates that fail least, each with the filters that it fails; those that
            lack a score come last.
        relax: where none passes, single changes of the rule after which one would, as options; empty where it would
            take more than one.
    """

    chosen: Candidate | None
    passing: int
    candidates: int
    nearest: tuple[tuple[Candidate, tuple[str, ...]], ...] = ()
    relax: tuple[str, ...] = ()


def select(candidates: Sequence[Candidate], n_layers: int, rule: Rule | None = None) -> Selection:
    """Apply the rule.

    Args:
        candidates: all of them, in any order; of equal bypass scores the first is taken.
        n_layers: number of the model's layers.
        rule: what must be passed; None is the published one.

    Raises:
        StatisticsError: there are no candidates, or one lies outside of the model.
    """
    rule = rule or Rule()
    if not candidates:
        raise StatisticsError("There are no candidates to select from")
    outside = [candidate.layer for candidate in candidates if not 0 <= candidate.layer < n_layers]
    if outside:
        raise StatisticsError("A candidate lies outside of the model", got=f"layer {outside[0]} of {n_layers}")
    faults = [rule.faults(candidate, n_layers) for candidate in candidates]
    passing = [candidate for candidate, failed in zip(candidates, faults, strict=True) if not failed]
    if passing:
        return Selection(min(passing, key=lambda candidate: candidate.bypass), len(passing), len(candidates))
    ranked = sorted(
        zip(candidates, faults, strict=True),
        key=lambda pair: ("finite" in pair[1], len(pair[1]), _by_how_much(pair[1], rule), pair[0].bypass),
    )
    nearest = tuple((candidate, tuple(failed)) for candidate, failed in ranked[:NEAREST])
    return Selection(None, 0, len(candidates), nearest, _gates_to_relax(faults))


def read_scores(path: Path) -> list[Candidate]:
    """Candidates of a published file of scores.

    Raises:
        UsageError: it is not there, no JSON, or a row lacks a key (named).
    """
    rows = read_json(path, kind="file of scores", finite=False)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path} holds no scores", expected=f"a list of objects with {', '.join(KEYS.values())}")
    return [_candidate(path, number, row) for number, row in enumerate(rows)]


def _candidate(path: Path, number: int, row: dict[str, Any]) -> Candidate:
    try:
        return Candidate.of_published(row)
    except KeyError as error:
        raise UsageError(f"{path}, row {number}: a score is missing", got=f"no {error}") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}, row {number}: a score is no number", got=str(error)) from error


def _by_how_much(faults: dict[str, float], rule: Rule) -> float:
    """How far a candidate is from passing, as the sum of relative misses."""
    limits = {"max_kl": rule.max_kl, "min_induce": rule.min_induce, "depth": rule.depth}
    misses = [
        abs(value - limits[name]) / max(abs(limits[name]), 1.0) for name, value in faults.items() if name in limits
    ]
    return sum(misses, 0.0)


def _gates_to_relax(faults: Sequence[dict[str, float]]) -> tuple[str, ...]:
    """Single filters whose change would let one candidate pass."""
    single = {
        name: [failed[name] for failed in faults if set(failed) == {name}] for name in ("max_kl", "min_induce", "depth")
    }
    offers = []
    if single["max_kl"]:
        offers.append(f"--max-kl above {min(single['max_kl']):.3g}")
    if single["min_induce"]:
        offers.append(f"--min-induce below {max(single['min_induce']):.3g}")
    if single["depth"]:
        offers.append(f"--depth at least {min(single['depth']):.3g}")
    return tuple(offers)
