"""Stage `verdict.json`: the step of the ladder each trajectory has earned, and what an arm's runs say together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from probes import drift
from probes.errors import StatisticsError
from probes.lineage import Trajectory
from probes.run import ByStep, Run
from probes.stages.between_arms import Steps, between_arms
from probes.statistics import Estimate, NullResult
from probes.store import fingerprint
from probes.verdict.ladder import Evidence, judge

if TYPE_CHECKING:
    import pandas as pd


def write_verdict(run: Run) -> None:
    """Judge every trajectory at the headline layer by its own statistic (mean Fisher z over log-spaced steps).

    Made anew each time: it hangs on drift, nulls and behaviour, and costs less than to find out whether they changed.
    """
    made_from = fingerprint([run.made_from(name) for name in ("drift", "nulls", "behaviour")])
    with run.stage("verdict", made_from):
        run.write_json("verdict", _document(run))


def _document(run: Run) -> dict[str, Any]:
    layer, trajectories = run.headline_layer, run.lineage.trajectories
    estimates = run.estimates(layer)
    nulls = run.read_table("nulls", filters=[("layer", "==", layer), ("checkpoint", "==", "")])
    verdicts, draws = [], {}
    places = {(trajectory.arm, trajectory.seed): trajectory for trajectory in trajectories}

    def drawn(seed: int, arm: str, step: int) -> np.ndarray:
        return _draws(run, places[arm, seed], [step])

    for trajectory in trajectories:
        place = (trajectory.arm, trajectory.seed)
        by_step = estimates[(*place, layer)]
        alignment, steps = drift.trajectory(by_step)
        if alignment.value is not None:
            draws[place] = _draws(run, trajectory, steps)
            alignment = Estimate(alignment.value, *drift.interval(alignment.value, draws[place]))
        evidence = Evidence(
            arm=trajectory.arm,
            seed=trajectory.seed,
            layer=layer,
            estimates=by_step[steps[-1] if steps else max(by_step)],
            nulls=_results(nulls[(nulls["arm"] == trajectory.arm) & (nulls["seed"] == trajectory.seed)]),
            alignment=alignment,
            runs=sum(other.arm == trajectory.arm for other in trajectories),
            witness=run.lineage.witness.label,
            causal=between_arms(run, *place, _beside(estimates, trajectory.seed), partial(drawn, trajectory.seed)),
        )
        numbers = {"alignment": alignment.value, "low": alignment.low, "high": alignment.high, "steps": steps}
        verdicts.append(judge(evidence).to_json() | numbers)
    return {"layer": layer, "trajectories": verdicts, "arms": _arms(verdicts, draws)}


def _beside(estimates: ByStep, seed: int) -> dict[str, Steps]:
    """Of every arm's run with this seed, the estimates by step."""
    return {arm: by_step for (arm, run, _), by_step in estimates.items() if run == seed}


def _draws(run: Run, trajectory: Trajectory, steps: list[int]) -> np.ndarray:
    """Bootstrap draws over prompts of the trajectory's alignment; the same prompts at every step of a draw."""
    layer, settings = run.headline_layer, run.settings
    aligned, witness = run.activations("aligned", layer), run.activations("witness", layer)
    by_step = [
        drift.crossfit_draws(
            aligned,
            witness,
            run.activations(trajectory.checkpoint_id(step), layer),
            run.harmful,
            bootstraps=settings.bootstraps,
            seed=settings.seed,
        )
        for step in steps
    ]
    return drift.mean_cosine(np.stack(by_step))


def _results(rows: pd.DataFrame) -> list[NullResult]:
    plain = rows.astype(object).where(rows.notna(), None)
    return [
        NullResult(row.null, row.statistic, row.observed, row.p99, row.p, int(row.draws), row.reason)
        for row in plain.itertuples()
    ]


def _arms(verdicts: list[dict[str, Any]], draws: dict[tuple[str, int], np.ndarray]) -> list[dict[str, Any]]:
    """What the runs of each arm say together: mean alignment, sign test over runs, and how far that goes in words."""
    rows = []
    for arm in dict.fromkeys(each["arm"] for each in verdicts):
        measured = [each for each in verdicts if each["arm"] == arm and each["alignment"] is not None]
        try:
            found = drift.over_runs(
                np.array([each["alignment"] for each in measured], dtype=float),
                np.stack([draws[arm, each["seed"]] for each in measured]) if measured else None,
            )
        except StatisticsError as error:
            rows.append({"arm": arm, "runs": 0, "alignment": None, "p": None, "words": error.what})
            continue
        whole = found.alignment
        rows.append(
            {
                "arm": arm,
                "runs": found.runs,
                "alignment": whole.value,
                "low": whole.low,
                "high": whole.high,
                "p": found.p,
                "words": found.words,
            }
        )
    return rows
