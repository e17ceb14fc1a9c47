"""Stages `directions/` and `drift.parquet`: where every checkpoint stands between aligned and witness, by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probes import drift
from probes.errors import StatisticsError
from probes.lineage import Lineage
from probes.progress import Progress, Report
from probes.records import Estimate
from probes.stages.settings import Settings
from probes.store import RunFolder, fingerprint

if TYPE_CHECKING:
    import pandas as pd

_VERSION = 1
ByStep = dict[tuple[str, int, int], dict[int, dict[str, Estimate]]]  # (arm, seed, layer) -> step -> statistic


def write_directions(run: RunFolder, lineage: Lineage, harmful: np.ndarray, keys: dict[str, str]) -> None:
    """Write `directions/reversion` and its difference-in-differences twin: unit vectors [layer, d_model] and norms.

    v_rev(l) = mean over harmful prompts of (witness − aligned) at layer l, aligned towards witness (arXiv 2606.28525);
    the twin takes the same difference of (harmful − harmless) means, which cancels a shift common to all prompts.
    """
    made_from = fingerprint([_VERSION, keys["aligned"], keys["witness"]])
    if run.holds("directions", made_from):
        return
    with run.stage("directions", made_from):
        aligned, witness = run.activations("aligned"), run.activations("witness")
        raw: dict[str, list[np.ndarray]] = {"reversion": [], "reversion_did": []}
        for layer in range(aligned.n_layers):
            gap = witness.layer(layer).astype(np.float64) - aligned.layer(layer)
            raw["reversion"].append(gap[harmful].mean(axis=0))
            raw["reversion_did"].append(gap[harmful].mean(axis=0) - gap[~harmful].mean(axis=0))
        for name, rows in raw.items():
            vectors = np.stack(rows)
            norm = np.linalg.norm(vectors, axis=1)
            unit = vectors / np.where(norm > 0, norm, 1.0)[:, None]
            run.write_arrays(
                f"directions/{name}",
                {"direction": unit.astype(np.float32), "norm": norm.astype(np.float32)},
                _about(run, lineage, name, harmful),
            )


def write_drift(
    run: RunFolder,
    lineage: Lineage,
    harmful: np.ndarray,
    keys: dict[str, str],
    settings: Settings,
    report: Report,
) -> None:
    """Write `drift.parquet`: a row per checkpoint, layer and statistic, with its interval or the reason it has none."""
    asked = settings.model_dump(include={"splits", "bootstraps", "seed"})
    made_from = fingerprint([_VERSION, sorted(keys.items()), asked])
    if run.holds("drift", made_from):
        return
    with run.stage("drift", made_from):
        import pandas as pd

        noise = run.read_table("noise").set_index("layer")["noise"]
        members = [member for member in lineage.members() if member.id != "aligned"]
        aligned, witness = run.activations("aligned"), run.activations("witness")
        rows: list[dict[str, Any]] = []
        for layer in range(-1, aligned.n_layers):
            reference, earlier = aligned.layer(layer), witness.layer(layer)
            for member in members:
                report(Progress("measuring drift", layer + 1, aligned.n_layers + 1, member.id))
                tuned = run.activations(member.id).layer(layer)
                found = estimates(reference, earlier, tuned, harmful, float(noise[layer]), settings)
                rows += drift_rows(member.labels, layer, found)
        run.write_table("drift", typed(pd.DataFrame(rows)))


def estimates_by_step(run: RunFolder, layer: int | None = None) -> ByStep:
    """The drift table as estimates by (arm, seed, layer), then step, then statistic; of blocks, or of one layer.

    Raises:
        RunFolderError: the run has no drift table.
    """
    wanted = [("layer", ">=", 0) if layer is None else ("layer", "==", layer)]
    columns = ["arm", "seed", "layer", "step", "statistic", "value", "low", "high", "reason"]
    found: ByStep = {}
    frame = run.read_table("drift", columns=columns, filters=wanted).astype(object)
    frame = frame.where(frame.notna(), None)
    for arm, seed, place, step, name, *numbers in frame.itertuples(index=False, name=None):
        found.setdefault((arm, seed, place), {}).setdefault(step, {})[name] = Estimate(*numbers)
    return found


def drift_rows(labels: Mapping[str, Any], layer: int, found: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    """Rows of the drift table for one checkpoint (`labels` as of `Member.labels`) at one layer."""
    return [{**labels, "layer": layer, "statistic": name, **_columns(each)} for name, each in found.items()]


def estimates(
    aligned: np.ndarray,
    witness: np.ndarray,
    tuned: np.ndarray,
    harmful: np.ndarray,
    noise: float,
    settings: Settings,
) -> dict[str, Estimate]:
    """All statistics of one checkpoint at one layer; where the layer carries no difference, each with that reason."""
    try:
        return drift.measure(
            aligned,
            witness,
            tuned,
            harmful,
            noise=noise,
            splits=settings.splits,
            bootstraps=settings.bootstraps,
            seed=settings.seed,
        )
    except StatisticsError as error:
        return drift.undefined(error.what)


def _columns(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "reason": estimate.reason}


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as float64 and reasons as text, also where a column is empty, so that equal runs give equal bytes."""
    numbers = [name for name in ("value", "low", "high", "observed", "p99", "p", "p_max") if name in frame]
    frame[numbers] = frame[numbers].astype("float64")
    frame["reason"] = frame["reason"].astype("string")
    return frame


def _about(run: RunFolder, lineage: Lineage, name: str, harmful: np.ndarray) -> dict[str, str]:
    """The description that every vector file carries; all strings, as safetensors wants."""
    checkpoints, model = run.manifest.checkpoints, run.manifest.model
    return {
        "format_version": "1",
        "method": name,
        "concept": "reversion towards the witness",
        "model_id": checkpoints["aligned"]["place"],
        "model_revision": lineage.aligned.revision or "",
        "weights_sha256": checkpoints["aligned"]["weights_sha256"],
        "witness_id": checkpoints["witness"]["place"],
        "witness_kind": lineage.witness.kind,
        "witness_weights_sha256": checkpoints["witness"]["weights_sha256"],
        "hook": "blocks.{l}.hook_resid_post",
        "site": "resid_post",
        "index_base": "0",
        "n_layers": str(model.get("n_layers", "")),
        "final_norm_included": "false",
        "position": str(run.manifest.config.get("position", -1)),
        "n_positive": str(int(harmful.sum())),
        "n_negative": str(int((~harmful).sum())) if name.endswith("did") else "0",
        "prompts_sha256": run.manifest.prompts["sha256"],
        "orientation": "aligned towards witness",
        "created": run.manifest.created,
        "tool_version": run.manifest.tool_version,
        "metrics_json": "{}",
    }
