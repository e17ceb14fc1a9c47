"""Eval logs of Inspect (inspect_ai), written from the answers of a run.

A log is of one model, so every checkpoint has its own. Format version 2: https://inspect.aisi.org.uk/eval-logs.html
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.behaviour.judges import UNJUDGED
from probes.errors import RunFolderError, UsageError
from probes.run import Run
from probes.store import fingerprint, write_json
from probes.store.atomic import replacing

if TYPE_CHECKING:
    import pandas as pd

_VERSION = 2
_ID = 22  # characters of an id
_SUFFIXES = (".eval", ".json")  # an archive, as Inspect writes by default, or one document
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the date of every entry, so that equal logs are equal files
_TASK = "gravity-probe"
_PREFIX = "gravity-probe/"  # before a checkpoint's name, where Inspect has the provider of a model
_REFUSAL, _COMPLIANCE = "refusal", "compliance"
_JUDGED_BY = "judge:"  # columns of single judges' labels


def write_eval_logs(run: Run, out: Path, checkpoint: str | None = None) -> list[Path]:
    """Write the answers of a run's checkpoints as eval logs.

    Args:
        run: whose behaviour was judged.
        out: `NAME.eval` or `NAME.json`, one checkpoint's log; else a folder, which gets a log a checkpoint.
        checkpoint: the only one; None is all of them, or for one file the last of the first trajectory.

    Returns:
        The files. Inspect's viewer lists every `.eval` file, and of JSON files those that begin with a date.

    Raises:
        RunFolderError: the run holds no answers.
        UsageError: no such checkpoint, another suffix, or something is there already.
    """
    if out.suffix not in ("", *_SUFFIXES):
        raise UsageError("This is no name of an eval log", got=out.name, expected="NAME.eval, NAME.json, or a folder")
    answers = _answers_by_checkpoint(run)
    one_file = out.suffix in _SUFFIXES
    if one_file and checkpoint is None:
        checkpoint = run.tuned_member(None).id
    if checkpoint is not None and checkpoint not in answers:
        raise UsageError("The run holds no answers of this checkpoint", got=checkpoint, expected=", ".join(answers))
    logs = {name: rows for name, rows in answers.items() if checkpoint in (None, name)}
    places = {name: out if one_file else out / _file_name(run, name) for name in logs}
    for place in places.values():
        if place.exists():
            raise UsageError(f"{place} is already there", next_step="Give --out a new name.")
    for name, rows in logs.items():
        places[name].parent.mkdir(parents=True, exist_ok=True)
        _write(places[name], eval_log(run, name, rows))
    return list(places.values())


def eval_log(run: Run, checkpoint: str, rows: pd.DataFrame) -> dict[str, Any]:
    """One checkpoint's log; equal answers give an equal one.

    Args:
        run: the run.
        checkpoint: its name there.
        rows: its rows of `completions.parquet`.
    """
    judges = run.read_json("judges")["judges"] if run.has_json("judges") else []
    samples = [_sample(row, _PREFIX + checkpoint, judges) for row in rows.to_dict("records")]
    return {
        "version": _VERSION,
        "status": "success",
        "eval": _about(run, checkpoint, rows, judges),
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": _decoding(run)},
        "results": _results(run, checkpoint, samples),
        "stats": {"started_at": "", "completed_at": "", "model_usage": {}},
        "samples": samples,
    }


def _write(path: Path, log: dict[str, Any]) -> None:
    if path.suffix != ".eval":
        write_json(path, log)
        return
    header = {name: value for name, value in log.items() if name != "samples"}
    brief = ("id", "epoch", "input", "target", "scores", "metadata")
    summaries = [{**{name: sample[name] for name in brief}, "completed": True} for sample in log["samples"]]
    samples = {f"samples/{sample['id']}_epoch_1.json": sample for sample in log["samples"]}
    with replacing(path) as beside, zipfile.ZipFile(beside, "w") as archive:
        for name, document in {**samples, "summaries.json": summaries, "header.json": header}.items():
            text = json.dumps(document, indent=1, ensure_ascii=False)
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), text, compress_type=zipfile.ZIP_DEFLATED)


def _answers_by_checkpoint(run: Run) -> dict[str, pd.DataFrame]:
    if not run.has_table("completions"):
        raise RunFolderError(
            f"{run.path} holds no answers", next_step=f"Let the checkpoints answer: gravity-probe evaluate {run.path}."
        )
    groups = run.table("completions").groupby("checkpoint", sort=False)
    return {str(name): rows for name, rows in groups}


def _creation_time(run: Run) -> str:
    return run.manifest.created.replace("Z", "+00:00")


def _file_name(run: Run, checkpoint: str) -> str:
    """Date, name and id, as Inspect names its logs."""
    date, name = _creation_time(run).replace(":", "-"), checkpoint.replace("_", "-")
    return f"{date}_{name}_{_task_id(run, checkpoint)}.eval"


def _task_id(run: Run, checkpoint: str) -> str:
    return fingerprint([run.manifest.name, checkpoint])[:_ID]


def _about(run: Run, checkpoint: str, rows: pd.DataFrame, judges: Sequence[str]) -> dict[str, Any]:
    """What was asked of whom; `metadata` says what Inspect has no field for."""
    first = rows.iloc[0]
    place = {name: first[name] for name in ("arm", "seed", "step")}
    answering = run.read_json("answering")["checkpoints"] if run.has_json("answering") else {}
    known = run.manifest.checkpoints.get(checkpoint, {})
    return {
        "run_id": fingerprint([run.manifest.name, run.manifest.created])[:_ID],
        "created": _creation_time(run),
        "task": _TASK,
        "task_id": _task_id(run, checkpoint),
        "dataset": {"name": run.manifest.name, "samples": len(rows), "sample_ids": rows["prompt"].tolist()},
        "model": _PREFIX + checkpoint,
        "model_generate_config": _decoding(run),
        "config": {},
        "packages": {"gravity-probe": run.manifest.tool_version},
        "metadata": {
            "run": run.manifest.name,
            "checkpoint": checkpoint,
            **{name: str(value) if name == "arm" else int(value) for name, value in place.items()},
            "weights_sha256": known.get("weights_sha256"),
            "judges": list(judges),
            "answering": answering.get(checkpoint, {}),
        },
    }


def _decoding(run: Run) -> dict[str, Any]:
    answering = run.read_json("answering") if run.has_json("answering") else {}
    limit = answering.get("max_new_tokens")
    return {"temperature": 0.0} | ({} if limit is None else {"max_tokens": limit})


def _results(run: Run, checkpoint: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The rates of the run's own table, with their intervals, under the score of the verdict."""
    metrics: dict[str, Any] = {}
    if run.has_table("behaviour"):
        rows = run.table("behaviour")
        for row in rows[rows["checkpoint"] == checkpoint].to_dict("records"):
            if _number(row["value"]) is not None:
                beside = {"low": _number(row["low"]), "high": _number(row["high"]), "n": int(row["n"])}
                metrics[row["measure"]] = {"name": row["measure"], "value": float(row["value"]), "metadata": beside}
    score = {"name": "verdict", "scorer": _TASK, "scored_samples": len(samples), "metrics": metrics}
    return {"total_samples": len(samples), "completed_samples": len(samples), "scores": [score]}


def _sample(row: Mapping[str, Any], model: str, judges: Sequence[str]) -> dict[str, Any]:
    """One answer. The target is the label that an aligned model's answer would get."""
    completion = row.get("completion")
    answer = completion if isinstance(completion, str) else None
    message = {"role": "assistant", "content": answer or "", "source": "generate", "model": model}
    stop_reason = "max_tokens" if row.get("cut_off") else "stop"
    label = str(row["label"])
    return {
        "id": str(row["prompt"]),
        "epoch": 1,
        "input": str(row["text"]),
        "target": _REFUSAL if label == "harmful" else _COMPLIANCE,
        "messages": [{"role": "user", "content": str(row["text"])}, *([] if answer is None else [message])],
        "output": {
            "model": model,
            "choices": [] if answer is None else [{"message": message, "stop_reason": stop_reason}],
        },
        "scores": _scores(row, answer, judges),
        "metadata": {"label": label, "topic": row.get("topic") or None},
    }


def _scores(row: Mapping[str, Any], answer: str | None, judges: Sequence[str]) -> dict[str, Any]:
    """The verdict, whether it counts as a refusal, what each of several judges said, and the refusal score."""
    about = {"judge": ", ".join(judges), "flags": row.get("flags") or ""}
    verdict = {"value": str(row["verdict"]), "answer": answer, "explanation": row.get("reason") or None}
    scores: dict[str, Any] = {"verdict": {**verdict, "metadata": about}}
    if row["verdict"] != UNJUDGED:
        scores["refused"] = {"value": bool(row["refused"])}
    for name in row:
        if name.startswith(_JUDGED_BY):
            scores[name] = {"value": str(row[name])}
    refusal_score = _number(row.get("refusal_score"))
    if refusal_score is not None:
        scores["refusal_score"] = {"value": refusal_score}
    return scores


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
