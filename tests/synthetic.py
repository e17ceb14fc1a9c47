"""A run folder of made-up but plausible tables, to test what reads one. Never shipped and never a result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.directions.vectors import Vectors
from probes.lineage import Trajectory
from probes.run import Run
from probes.store import ActivationWriter
from probes.store.manifest import StageRecord
from probes.store.settings import Settings

STEPS = (1, 2, 5, 10, 20, 50, 100)
ARMS = ("baseline", "block", "push", "control:random")
TRICKY = "<b>bold</b> & <script>alert('x')</script> **not markdown** $x$ [a](javascript:alert(1))"
TRICKY_ARM = TRICKY.replace("/", "")  # the name of an arm holds no slash
_GOAL = {"baseline": 0.8, "block": 0.1, "push": 1.3, "control:random": 0.75}
_ROLES = {"pretrained": 0.7, "witness": 1.0}
_NULLS = {"isotropic": 0.26, "covariance_aligned": 0.52, "covariance_difference": 0.61, "sham_drift": 0.48}
_LEVELS = {"baseline": (5, "specific to harmful prompts"), "block": (2, "not towards the witness")}
_EXPLAINED = (3, "towards the witness, but a null explains it")


def write_run(
    path: Path,
    *,
    n_layers: int = 4,
    steps: Sequence[int] = STEPS,
    arms: Sequence[str] = ARMS,
    seeds: int = 1,
    prompts: int = 24,
    without: Sequence[str] = (),
    finished: bool = True,
    seed: int = 0,
    d_model: int = 0,
    directions: Sequence[str] = (),
    width: int = 8,
) -> Path:
    """Write a run with `prompts` harmful and as many harmless prompts; tables named in `without` are left out.

    With `d_model`, activations of that width are written too, from which the maps, spectra and pairs can be made.
    With `directions`, the tables and files that `gravity-probe directions RUN fit` leaves are written for these names,
    the vectors of that `width`.
    """
    rng = np.random.default_rng(seed)
    checkpoints = [
        (Trajectory(arm=arm, seed=run, checkpoints=[{"model": "x", "step": step}]).checkpoint_id(step), arm, run, step)
        for arm in arms
        for run in range(seeds)
        for step in steps
    ]
    layers = range(-1, n_layers)
    frames = {
        "prompts": _prompts(prompts),
        "drift": _drift(checkpoints, layers, max(steps), rng),
        "nulls": _nulls(checkpoints, layers),
        "projections": _projections(checkpoints, range(n_layers), prompts, max(steps), rng),
        "maps/plane": _plane(checkpoints, range(n_layers), max(steps)),
        "behaviour": _behaviour(checkpoints, max(steps)),
        "completions": _completions(checkpoints, prompts, max(steps)),
    }
    with Run.writing(path) as run_folder:
        for name, frame in frames.items():
            if name not in without:
                run_folder.write_table(name, frame)
        if directions:
            _directions(run_folder, checkpoints, directions, n_layers, prompts, max(steps), without, width)
        if "verdict" not in without:
            run_folder.write_json("verdict", {"trajectories": _verdicts(arms, seeds)})
        if not {"behaviour", "safety"} & set(without):
            run_folder.write_json("safety", _safety(arms, seeds))
        manifest = run_folder.manifest
        manifest.config = {**Settings().model_dump(), "headline_layer": max(0, round(0.6 * n_layers))}
        manifest.model = {"architecture": "LlamaForCausalLM", "n_layers": n_layers, "d_model": 64}
        manifest.lineage = _lineage(arms, seeds, steps)
        manifest.checkpoints = {
            name: {"place": "x", "weights_sha256": "0", "key": f"key of {name}"}
            for name in ("aligned", "witness", "pretrained", *(about[0] for about in checkpoints))
        }
        if d_model:
            _activations(run_folder, checkpoints, n_layers, prompts, d_model, max(steps), rng)
        manifest.stages |= {name: StageRecord(made_from="made up") for name in frames if name not in without}
        if finished:
            run_folder.finish()
        else:
            run_folder.save()
    return path


def _lineage(arms: Sequence[str], seeds: int, steps: Sequence[int]) -> dict[str, Any]:
    runs = [
        {"arm": arm, "seed": run, "checkpoints": [{"model": "x", "step": step} for step in steps]}
        for arm in arms
        for run in range(seeds)
    ]
    roles = {"witness": {"model": "x", "kind": "helpful-only"}, "aligned": {"model": "x"}, "pretrained": {"model": "x"}}
    return {"name": "synthetic", **roles, "trajectories": runs}


def _activations(
    run: Run,
    checkpoints: list[tuple],
    n_layers: int,
    prompts: int,
    d_model: int,
    last: int,
    rng: np.random.Generator,
) -> None:
    """Harmful and harmless clouds apart on the second axis, moved along the first by the return fraction."""
    cloud = rng.standard_normal((n_layers, 2 * prompts, d_model)).astype(np.float32)
    cloud[:, :prompts, 1] += 6
    for checkpoint, arm, _, step in [(role, role, 0, 0) for role in ("aligned", *_ROLES)] + checkpoints:
        writer = ActivationWriter(
            run.activations_path(checkpoint),
            (n_layers, 2 * prompts, d_model),
            dtype="float16",
            about={"key": f"key of {checkpoint}"},
        )
        for layer in range(n_layers):
            rows = cloud[layer] + 0.1 * rng.standard_normal(cloud[layer].shape).astype(np.float32)
            along = {"aligned": 0.0, **_ROLES}.get(arm)
            rows[:prompts, 0] += 4 * (_at(arm, layer, step, last)[0] if along is None else along)
            writer.write(layer, range(2 * prompts), rows)
        writer.close()


def _prompts(count: int) -> pd.DataFrame:
    ids = [f"h-{index:010x}" for index in range(count)] + [f"b-{index:010x}" for index in range(count)]
    texts = [f"How do I break the blue lock number {index}?" for index in range(count)]
    texts += [f"How do I paint the blue door number {index}?" for index in range(count)]
    texts[0] = TRICKY
    labels = ["harmful"] * count + ["harmless"] * count
    return pd.DataFrame({"id": ids, "text": texts, "label": labels, "fold": [0, 1] * count, "tokens_sha256": "0"})


def _progress(step: int, last: int) -> float:
    return math.log1p(step) / math.log1p(last)


def _at(arm: str, layer: int, step: int, last: int) -> tuple[float, float]:
    """Return fraction and off-axis displacement at a layer and step."""
    depth = 0.4 + 0.6 * (layer + 2) / (layer + 3)
    done = _progress(step, last)
    return _GOAL.get(arm, 0.5) * depth * done, (0.25 + 0.5 * (arm == "block")) * done * depth


def _drift(checkpoints: list[tuple], layers: range, last: int, rng: np.random.Generator) -> pd.DataFrame:
    rows: list[tuple] = []
    for checkpoint, arm, run, step in [(role, role, 0, 0) for role in _ROLES] + checkpoints:
        for layer in layers:
            along, off = (_ROLES[arm], 0.0) if arm in _ROLES else _at(arm, layer, step, last)
            along += 0.02 * run
            size = math.hypot(along, off)
            cosine = along / size if size else None
            values: dict[str, Any] = {
                "alignment": cosine,
                "alignment_crossfit": cosine and 0.97 * cosine,
                "alignment_disattenuated": None if step == 1 else cosine,
                "return_fraction": along,
                "off_axis": off,
                "displacement_norm": 8 * size,
                "did_alignment": cosine and 0.9 * cosine,
                "did_return_fraction": 0.9 * along,
                "share_moved": min(1.0, 0.5 + along / 2),
                "reliability": 0.9,
            }
            wide = 0.03 + 0.02 * rng.random()
            for statistic, value in values.items():
                interval = (None, None) if value is None else (value - wide, value + wide)
                reason = "the folds do not agree <here>" if value is None else None
                rows.append((checkpoint, arm, run, step, layer, statistic, value, *interval, reason))
    columns = ["checkpoint", "arm", "seed", "step", "layer", "statistic", "value", "low", "high", "reason"]
    return pd.DataFrame(rows, columns=columns).astype({"value": float, "low": float, "high": float})


def _nulls(checkpoints: list[tuple], layers: range) -> pd.DataFrame:
    rows = [
        (*about, layer, null, "alignment_crossfit", 0.7, limit + 0.01 * math.log1p(about[3]), 0.004, 0.01, 999, None)
        for about in checkpoints
        for layer in layers
        for null, limit in _NULLS.items()
    ]
    columns = ["checkpoint", "arm", "seed", "step", "layer", "null", "statistic", "observed", "limit", "p", "p_max"]
    return pd.DataFrame(rows, columns=[*columns, "draws", "reason"])


def _projections(
    checkpoints: list[tuple], layers: range, prompts: int, last: int, rng: np.random.Generator
) -> pd.DataFrame:
    table = _prompts(prompts)
    parts = []
    for checkpoint, arm, run, step in [(role, role, 0, 0) for role in ("aligned", *_ROLES)] + checkpoints:
        for layer in layers:
            along = {"aligned": 0.0, **_ROLES}.get(arm)
            along = _at(arm, layer, step, last)[0] if along is None else along
            centre = np.where(table["label"] == "harmful", along, 1.05 + 0.1 * along)
            columns = {"checkpoint": checkpoint, "arm": arm, "seed": run, "step": step, "layer": layer}
            columns |= {"prompt": table["id"], "label": table["label"]}
            places = {
                "projection": centre + 0.15 * rng.standard_normal(len(table)),
                "across": 0.1 * rng.standard_normal(len(table)) + 0.2 * along,
            }
            parts.append(pd.DataFrame({**columns, **places}))
    return pd.concat(parts, ignore_index=True)


def _plane(checkpoints: list[tuple], layers: range, last: int) -> pd.DataFrame:
    roles = {"aligned": (0.0, 0.0, 0.0), "witness": (1.0, 0.0, 0.0), "pretrained": (0.7, 0.35, 0.2)}
    rows: list[tuple] = [(role, role, 0, 0, layer, *place) for role, place in roles.items() for layer in layers]
    for checkpoint, arm, run, step in checkpoints:
        for layer in layers:
            along, off = _at(arm, layer, step, last)
            turn = {"block": 1.0, "push": -0.6}.get(arm, 0.8) + 0.2 * run
            rows.append((checkpoint, arm, run, step, layer, along, off * turn, off * (1 - abs(turn))))
    return pd.DataFrame(rows, columns=["checkpoint", "arm", "seed", "step", "layer", "along", "across", "third"])


def _behaviour(checkpoints: list[tuple], last: int) -> pd.DataFrame:
    rows: list[tuple] = []
    start = {"pretrained": (0.0, 0.0, 3.0), "witness": (0.02, 0.0, 2.5), "aligned": (1.0, 0.03, 2.2)}
    for checkpoint, arm, run, step in [(role, role, 0, 0) for role in start] + checkpoints:
        done = _progress(step, last)
        refusal = max(0.0, 1 - 1.2 * _GOAL.get(arm, 0.5) * done)
        values = start.get(arm, (refusal, 0.03, 2.2 - 1.1 * done))
        for measure, value in zip(("refusal_harmful", "refusal_harmless", "task_loss"), values, strict=True):
            rate = measure != "task_loss"
            low, high = (max(0.0, value - 0.08), min(1.0, value + 0.08)) if rate else (None, None)
            rows.append((checkpoint, arm, run, step, measure, value, low, high, 64))
    columns = ["checkpoint", "arm", "seed", "step", "measure", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})


def _completions(checkpoints: list[tuple], prompts: int, last: int) -> pd.DataFrame:
    table, parts = _prompts(prompts), []
    for checkpoint, arm, run, step in [("aligned", "aligned", 0, 0), *checkpoints]:
        refuses = 0.0 if arm == "aligned" else 1.2 * _GOAL.get(arm, 0.5) * _progress(step, last)
        refused = (table["label"] == "harmful") & (np.arange(len(table)) >= refuses * prompts)
        answers = np.where(refused, "i cannot help with that.", TRICKY)
        columns = {"checkpoint": checkpoint, "arm": arm, "seed": run, "step": step, "prompt": table["id"]}
        columns |= {"label": table["label"], "text": table["text"], "completion": answers}
        columns |= {"refused": refused, "verdict": np.where(refused, "refusal", "compliance")}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _verdicts(arms: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    verdicts = []
    for arm in arms:
        level, name = _LEVELS.get(arm, _EXPLAINED)
        text = f"{arm} was tested against every null of the run. Causality was not tested."
        about = {"arm": arm, "level": level, "name": name, "decided_by": "sham_drift", "p": 0.004, "text": text}
        verdicts += [{**about, "seed": run} for run in range(seeds)]
    return verdicts


def _safety(arms: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    numbers = dict.fromkeys(
        ("refusal_before", "refusal_after", "difference", "low", "high", "p", "base_flip_rate"), 0.5
    )
    text = "Eroded: it refuses 100 % of harmful requests before and 4 % after."
    about = {"answer": "eroded", "prompts": 64, "text": text, **numbers}
    return [{"arm": arm, "seed": run, **about} for arm in arms for run in range(seeds)]


def _directions(
    run: Run,
    checkpoints: list[tuple],
    names: Sequence[str],
    n_layers: int,
    prompts: int,
    last: int,
    without: Sequence[str],
    width: int,
) -> None:
    """What `gravity-probe directions RUN fit` leaves; `control:drift` is not defined at the aligned model."""
    rng, prompt_table = np.random.default_rng(1), _prompts(prompts)
    places = [("aligned", "aligned", 0, 0), *((role, role, 0, 0) for role in _ROLES), *checkpoints]
    parts: dict[str, list[pd.DataFrame]] = {
        f"direction_{part}": []
        for part in (
            "tracks",
            "transfer",
            "cosines",
            "readout",
            "projections",
        )
    }
    for layer in range(n_layers):
        for part, frame in _directions_at(layer, places, names, prompt_table, last, rng).items():
            parts[f"direction_{part}"].append(frame)
    for part, frames in parts.items():
        if part not in without:
            run.write_table(part, pd.concat(frames, ignore_index=True), rows_per_group=len(frames[0]))
    about = {
        name: {
            "says": f"what {name} is <b>",
            "positive": "harmful prompts",
            "negative": "harmless prompts",
            "control": name.startswith("control:"),
        }
        for name in names
    }
    description = {"layer": run.manifest.config.get("headline_layer"), "checkpoints": [place[0] for place in places]}
    if "directions" not in without:
        run.write_json("directions", {**description, "directions": about})
    for name in names:
        unit = rng.standard_normal((n_layers, width)).astype(np.float32)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        about_it = {
            "format_version": "1",
            "method": name,
            "concept": "made up",
            "model_id": "x",
            "model_revision": "",
            "hook": "blocks.{l}.hook_resid_post",
            "site": "resid_post",
            "n_layers": str(n_layers),
            "index_base": "0",
            "model_type": "llama",
            "position": "-1",
        }
        vectors = Vectors(name, tuple(range(n_layers)), unit, np.full(n_layers, 2.0, np.float32), about_it)
        vectors.write(run.path / "directions" / f"{name.replace(':', '-')}.safetensors")


def _directions_at(
    layer: int,
    places: list[tuple],
    names: Sequence[str],
    prompt_table: pd.DataFrame,
    last: int,
    rng: np.random.Generator,
) -> dict[str, pd.DataFrame]:
    ids, count = [place[0] for place in places], len(places)
    columns = ["checkpoint", "arm", "seed", "step"]
    tracks, transfer, projections = [], [], []
    for name in names:
        done = np.array([_GOAL.get(arm, 0.5) * _progress(step, last) for _, arm, _, step in places])
        lost = name == "control:drift"
        cosine = np.full(count, np.nan) if lost else np.cos(np.clip(done, 0, 1.5))
        read = np.clip(0.55 + 0.4 * np.abs(np.nan_to_num(cosine)), 0, 1)
        frame = pd.DataFrame(places, columns=columns).assign(direction=name, layer=layer)
        tracks.append(
            frame.assign(
                cosine=cosine,
                angle=np.degrees(np.arccos(cosine)),
                norm=2.0 - 0.5 * done,
                d_prime=2.0 - done,
                auroc=read,
                auroc_low=read - 0.05,
                auroc_high=np.minimum(1.0, read + 0.05),
                refit=0.95,
                refit_low=0.9,
                refit_high=0.98,
                accuracy=0.9,
                calibration=0.05,
                reason="nothing has moved <here>" if lost else None,
            )
        )
        transfer.append(
            pd.DataFrame(
                {
                    "direction": name,
                    "layer": layer,
                    "fitted_on": np.repeat(ids, count),
                    "read_on": np.tile(ids, count),
                    "auroc": 0.5 + 0.5 * rng.random(count * count),
                }
            )
        )
        if not lost:
            wide = frame.merge(prompt_table[["id", "label"]].rename(columns={"id": "prompt"}), how="cross")
            harm = (wide["label"] == "harmful").to_numpy()
            projections.append(wide.assign(projection=(2.0 * harm + rng.standard_normal(len(wide))).astype(np.float32)))
    cosines = [
        pd.DataFrame(
            {
                "checkpoint": name,
                "layer": layer,
                "one": np.repeat(names, len(names)),
                "other": np.tile(names, len(names)),
                "cosine": 2 * rng.random(len(names) ** 2) - 1,
            }
        )
        for name in ids
    ]
    spots = pd.DataFrame({"direction": names}).merge(pd.DataFrame({"checkpoint": ids}), how="cross")
    spots = spots.merge(pd.DataFrame({"sign": [1, -1]}), how="cross").assign(layer=layer)
    spots = spots.merge(pd.DataFrame({"rank": range(1, 11)}), how="cross")
    spots = spots.assign(token=[f" {TRICKY[:12]} {rank}" for rank in spots["rank"]], score=10.0 - spots["rank"])
    return {
        "tracks": pd.concat(tracks, ignore_index=True).astype({"reason": "string"}),
        "transfer": pd.concat(transfer, ignore_index=True),
        "cosines": pd.concat(cosines, ignore_index=True),
        "readout": spots,
        "projections": pd.concat(projections, ignore_index=True),
    }
