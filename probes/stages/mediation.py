"""Stage `mediation.parquet`: whether the motion along the reversion is what changes behaviour.

Necessity: the fine-tuned model with that motion taken back. Sufficiency: the aligned model with it put in. Both
beside random directions of the same length, isotropic and with the activations' covariance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.behaviour.judges import JudgementCache, open_judge
from probes.errors import UsageError
from probes.lineage import Lineage, Member
from probes.models import ModelHost
from probes.models.interventions import add
from probes.nulls.gaussian import Spectrum
from probes.progress import Progress, Report, silent
from probes.stages.behaviour import Evaluation, asked, judged, questioned
from probes.store import RunFolder, fingerprint

if TYPE_CHECKING:
    import pandas as pd

_VERSION = 1
NECESSITY, SUFFICIENCY = "necessity", "sufficiency"
AS_IT_IS, REVERSION = "none", "reversion"
COLUMNS = (
    "checkpoint", "test", "direction", "layers", "length", "refusal", "compliance", "incoherent", "over_refusal",
    "refusal_score", "n",
)  # fmt: skip


def write_mediation(
    run: RunFolder,
    lineage: Lineage,
    host: ModelHost,
    checkpoint: str,
    evaluation: Evaluation,
    *,
    layers: Sequence[int],
    draws: int = 5,
    seed: int = 0,
    report: Report = silent,
) -> pd.DataFrame:
    """Ask a fine-tuned checkpoint without, and the aligned model with, the motion along the reversion.

    The motion is (δ·v̂)v̂ at each of the layers, δ the checkpoint's mean displacement on harmful probe prompts; it is
    subtracted (necessity) or added (sufficiency) behind the block, at every token.

    Args:
        run: measured, open for writing; rows of other checkpoints are kept.
        lineage: its checkpoints.
        host: opened on the aligned model.
        checkpoint: the fine-tuned one.
        evaluation: what is asked and who judges.
        layers: where.
        draws: random directions of either kind.
        seed: of them.
        report: told after every question set.

    Returns:
        The rows of this checkpoint (`COLUMNS`).

    Raises:
        UsageError: it is no fine-tuned checkpoint of the run.
    """
    member = _tuned(lineage, checkpoint)
    made_from = fingerprint(
        [_VERSION, run.manifest.checkpoints[checkpoint]["key"], evaluation.document(), list(layers), draws, seed]
    )
    stage = f"mediation/{checkpoint}"
    if run.holds(stage, made_from):
        return _kept(run, checkpoint)
    with run.stage(stage, made_from):
        moves = _moves(run, checkpoint, layers, draws, seed)
        plan = [(test, name) for test in (NECESSITY, SUFFICIENCY) for name in moves]
        answers = []
        for done, (test, name) in enumerate(plan):
            report(Progress(f"testing {test}", done, len(plan), name))
            host.put(member.ref if test == NECESSITY else lineage.aligned)
            sign = -1.0 if test == NECESSITY else 1.0
            with add(host, layers, moves[name], coefficient=sign):
                answers.append((test, name, asked(host, evaluation)[0]))
        table = _table(checkpoint, answers, moves, layers, evaluation)
        import pandas as pd

        others = run.read_table("mediation") if run.has_table("mediation") else table.iloc[:0]
        run.write_table("mediation", pd.concat([others[others["checkpoint"] != checkpoint], table], ignore_index=True))
    return _kept(run, checkpoint)


def effects(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What each test says: the change of compliance that the reversion makes, beside those of the random directions.

    Returns:
        A row a test: `test`, `before`, `after` (rates of harmful compliance), `effect` (in the direction that the test
        asks for: a fall for necessity, a rise for sufficiency), `random` and `covariance` (mean effects of the
        controls), `p` = (1 + #{controls at least as large}) / (controls + 1).
    """
    found = []
    for test, part in rows.groupby("test", sort=False):
        rates = part.set_index("direction")["compliance"]
        sign = -1.0 if test == NECESSITY else 1.0
        changes = sign * (rates - rates[AS_IT_IS])
        controls = changes.drop([AS_IT_IS, REVERSION])
        kinds = {kind: float(controls[controls.index.str.startswith(kind)].mean()) for kind in ("random", "covariance")}
        found.append(
            {
                "test": test, "before": float(rates[AS_IT_IS]), "after": float(rates[REVERSION]),
                "effect": float(changes[REVERSION]), **kinds,
                "p": float((1 + (controls >= changes[REVERSION]).sum()) / (len(controls) + 1)),
            }
        )  # fmt: skip
    return found


def _tuned(lineage: Lineage, checkpoint: str) -> Member:
    members = {member.id: member for member in lineage.members()}
    found = members.get(checkpoint)
    if found is None or found.step == 0:
        tuned = [name for name, each in members.items() if each.step > 0]
        raise UsageError("This is no fine-tuned checkpoint of the run", got=checkpoint, expected=", ".join(tuned[-6:]))
    return found


def _moves(run: RunFolder, checkpoint: str, layers: Sequence[int], draws: int, seed: int) -> dict[str, np.ndarray]:
    """By name, what is added at each layer [layer, d_model]: nothing, the motion, and controls of its length."""
    harmful = (run.read_table("prompts", columns=["label"])["label"] == "harmful").to_numpy()
    files = {name: run.activations(name) for name in ("aligned", "witness", checkpoint)}
    rng = np.random.default_rng([seed, 0x3ED])
    found: dict[str, list[np.ndarray]] = {}
    for layer in layers:
        rows = {name: file.layer(layer).astype(np.float64) for name, file in files.items()}
        aligned, witness, tuned = (rows[name][harmful].mean(axis=0) for name in ("aligned", "witness", checkpoint))
        unit = (witness - aligned) / np.linalg.norm(witness - aligned)
        along = float((tuned - aligned) @ unit)
        spectrum = Spectrum.of(rows["aligned"])
        axes = {AS_IT_IS: 0 * unit, REVERSION: unit}
        axes |= {f"random:{n}": rng.standard_normal(len(unit)) for n in range(draws)}
        axes |= {f"covariance:{n}": spectrum.draw(rng) for n in range(draws)}
        for name, axis in axes.items():
            found.setdefault(name, []).append(along * axis / (np.linalg.norm(axis) or 1.0))
    return {name: np.stack(parts) for name, parts in found.items()}


def _table(
    checkpoint: str, answers: Sequence[tuple[str, str, pd.DataFrame]], moves: Mapping[str, np.ndarray],
    layers: Sequence[int], evaluation: Evaluation,
) -> pd.DataFrame:  # fmt: skip
    import pandas as pd

    frames = [
        questioned(frame, evaluation).assign(checkpoint=name, arm=test, seed=0, step=0) for test, name, frame in answers
    ]
    judges = [open_judge(each) for each in evaluation.judges]
    verdicts, _ = judged(pd.concat(frames, ignore_index=True), judges, JudgementCache(), silent)
    rows = []
    for test, name, _ in answers:
        said = verdicts[(verdicts["arm"] == test) & (verdicts["checkpoint"] == name)]
        harmful = said[said["label"] == "harmful"]
        verdict = harmful["verdict"]
        rows.append(
            {
                "checkpoint": checkpoint, "test": test, "direction": name, "layers": ",".join(map(str, layers)),
                "length": float(np.linalg.norm(moves[name], axis=1).mean()),
                "refusal": float(harmful["refused"].mean()), "compliance": float((verdict == "compliance").mean()),
                "incoherent": float((verdict == "incoherent").mean()),
                "over_refusal": float(said.loc[said["label"] != "harmful", "refused"].mean()),
                "refusal_score": float(harmful["refusal_score"].mean()), "n": len(harmful),
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _kept(run: RunFolder, checkpoint: str) -> pd.DataFrame:
    table = run.read_table("mediation")
    return table[table["checkpoint"] == checkpoint].reset_index(drop=True)
