"""How often the ladder errs where the answer is known, and how often it finds what is there: a table for the docs.

python -m tests.calibration --runs 500 --out data/docs/calibration.md
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from tests.calibration_worlds import TRIALS, Trial
from tests.type_checks import no_type_checks
from tests.worlds import verdict_of

DRAWS = 199
NAMES = {
    "sign_flip": "sign flip",
    "covariance_aligned": "covariance",
    "covariance_difference": "of differences",
    "random_difference": "random difference",
    "sham_drift": "sham drift",
    "sham_witness": "sham witness",
    "label_permutation": "labels",
    "label_permutation_crossfit": "labels, cross-fitted",
}


@dataclass(frozen=True)
class Counts:
    """What simulated trajectories of one world came to.

    Attributes:
        trial: the world.
        levels: of each trajectory.
        rejected: whether each test rejected, [run, test] in the order of `NAMES`.
    """

    trial: Trial
    levels: np.ndarray
    rejected: np.ndarray

    @property
    def claimed(self) -> int:
        """How many reached the level that is claimed, or must be found."""
        return int((self.levels >= self.trial.level).sum())

    @property
    def holds(self) -> bool:
        """Whether no more claimed it than 5 % allow (95th percentile, binomial), or at least 90 % found it."""
        if self.trial.has_reversion:
            return self.claimed >= 0.9 * self.levels.size
        return self.claimed <= stats.binom.ppf(0.95, self.levels.size, 0.05)


def simulate(trial: Trial, runs: int) -> Counts:
    """Judge so many trajectories of a world; types are checked in the first."""
    results = [_judge(trial, 0)]
    with no_type_checks():
        results += [_judge(trial, run) for run in range(1, runs)]
    levels, rejected = zip(*results, strict=True)
    return Counts(trial, np.array(levels), np.array(rejected))


def _judge(trial: Trial, run: int) -> tuple[int, list[bool]]:
    """The level of a trajectory, and whether each test rejected."""
    world, checkpoints, shams = trial.make(np.random.default_rng([run, 2026]))
    verdict, results = verdict_of(world, *checkpoints, draws=DRAWS, shams=shams, splits=10, **trial.options)
    return verdict.level, [(results[name].p or 1.0) <= 0.05 for name in NAMES]


def write_table(counts: list[Counts]) -> str:
    """A table in Markdown: a row a world, with the share that every test alone rejected."""
    head = ["world", "measurable", "level ≥ 4", "level 5", "claim", *NAMES.values()]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * 3}---|{'---:|' * len(NAMES)}"]
    for count in counts:
        shares = [(count.levels >= level).mean() for level in (2, 4, 5)]
        claim = f"level ≥ {count.trial.level}: " + ("≥ 90 %" if count.trial.has_reversion else "≤ 5 %")
        cells = [count.trial.name, *map(_percent, shares), claim + ("" if count.holds else ", **missed**")]
        lines.append(f"| {' | '.join([*cells, *map(_percent, count.rejected.mean(axis=0))])} |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


def main() -> None:
    """Simulate every world, and write the table over what stands between the marks of a page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=500, help="trajectories a world")
    parser.add_argument("--out", type=Path, help="a page with the marks; without one, the table is printed")
    parser.add_argument("--only", default="", help="worlds whose name holds this")
    arguments = parser.parse_args()
    counts = []
    for trial in [trial for name, trial in TRIALS.items() if arguments.only in name]:
        counts.append(simulate(trial, arguments.runs))
        sys.stderr.write(f"{trial.name}: {counts[-1].claimed} of {arguments.runs}\n")
    table = write_table(counts)
    if arguments.out is None:
        sys.stdout.write(table + "\n")
        return
    page = arguments.out.read_text(encoding="utf-8")
    start, end = "<!-- table -->", "<!-- end of table -->"
    before, _, after = page.partition(start)
    arguments.out.write_text(f"{before}{start}\n{table}\n{end}{after.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
