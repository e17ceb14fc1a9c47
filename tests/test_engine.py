"""Tasks here, in two processes, on a cluster: the same bytes, one sentence for what failed, and nobody left at work."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from probes.behaviour.evaluation import Evaluation
from probes.cli import app
from probes.engine import Engine, EngineError, Task, hold_model, limit_threads, open_engine, release_model
from probes.errors import ActivationError, UsageError
from probes.lineage import CheckpointRef, Lineage, Trajectory, Witness
from probes.progress import Progress, TaskCount, silent
from probes.prompts import PromptSet
from probes.run import Run
from probes.stages.jobs import compute_parts
from probes.store import activations_stage
from probes.store.settings import Settings
from probes.tasks.evaluate import Asking, evaluate
from probes.tasks.measure import measure
from probes.tasks.status import status
from probes.terminal.json_lines import report_json_lines
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer
from tests.small_tasks import be_killed_once, double, fail, refuse, threads_of

PROMPTS = PromptSet.of(
    [f"break lock {index:02d}" for index in range(16)] + [f"paint door {index:02d}" for index in range(16)],
    ["harmful"] * 16 + ["harmless"] * 16,
)
EVALUATION = Evaluation(
    PromptSet.of(["pick a lock", "sharpen a knife"], ["harmful", "harmless"]), (("say a", "b"),), max_new_tokens=4
)
SETTINGS = Settings(bootstraps=20, splits=4, draws=99, permutations=99, shams=19)


@pytest.fixture(scope="module")
def lineage(tmp_path_factory) -> Lineage:
    home, model = tmp_path_factory.mktemp("history"), tiny_model()
    save_checkpoint(home / "aligned", model, tiny_tokenizer())
    for step in (1, 2, 3):
        save_checkpoint(home / "out" / f"checkpoint-{step}", move_weights(model, seed=step))
    return Lineage(
        name="moved",
        witness=Witness(**dict(save_checkpoint(home / "witness", move_weights(model, seed=9, scale=0.1)))),
        aligned=CheckpointRef(model=str(home / "aligned")),
        trajectories=(Trajectory.from_folder(home / "out"),),
    )


@pytest.fixture(scope="module")
def pool():
    engine = open_engine(2)
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=["slurm", "ray"])
def cluster(request, tmp_path_factory):
    """submitit's executor for one machine, at most two jobs of these tests at a time; or two workers of Ray."""
    if request.param == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'gravity-probe[ray]'")
        workers = f"ray:num_cpus={max(1, (os.cpu_count() or 1) // 2)}"
    else:
        workers = f"slurm:cluster=local,tasks_per_job=10,folder={tmp_path_factory.mktemp('jobs')}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("probes.engine.slurm._SECONDS", 0.2)
        # Workers import what they are given from here.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent), prepend=os.pathsep)
        engine = open_engine(workers)
        yield engine
        engine.close()


def make_run(lineage, out, engine, report=silent, *, whole=True):
    """Everything that is done checkpoint by checkpoint: read, noised, asked, and asked the probe prompts.

    Not `whole`, nothing is noised, and no probe prompt is asked: a job on a cluster takes seconds to begin.
    """
    with Run.writing(out) as run:
        run.manifest.created = "2026-01-01T00:00:00Z"  # directions say it too
        run.save()
    with engine.in_use():
        measure(lineage, PROMPTS, out, SETTINGS.model_copy(update={"nulls": whole}), report)
        return evaluate(out, EVALUATION, Asking(probe_prompts=whole), report)


def contents(folder):
    """The sha256 of every file, and the manifest without times."""
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", ".lock")
    }
    manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for record in manifest["stages"].values():
        del record["seconds"]
    return files | {"run.json": json.dumps(manifest)}


@pytest.fixture(scope="module")
def alone(lineage, tmp_path_factory):
    """What one process leaves."""
    return contents(make_run(lineage, tmp_path_factory.mktemp("alone") / "run", open_engine(1)).path)


TASKS = [Task("first", partial(double, 1)), Task("second", partial(refuse, "It is not finite"))]
TASKS += [Task("third", partial(double, 3)), Task("fourth", partial(refuse, "Nor is this"))]


@pytest.mark.parametrize("workers", [None, 2])
def test_a_task_that_fails_is_named_and_leaves_the_others_at_work(workers, request):
    engine: Engine = request.getfixturevalue("pool") if workers else open_engine()
    results, reports = {}, []
    with pytest.raises(ActivationError, match="It is not finite") as error:
        results.update(engine.complete(TASKS, reports.append))
    assert results == {"first": 2, "third": 6}
    assert str(error.value).endswith("got no. Do otherwise.")
    assert str(error.value).startswith("second")
    assert {report.failure for report in reports} >= {f"{name} failed: {text}" for name, text in FAILURES.items()}
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


@pytest.mark.parametrize("workers", [None, 2])
def test_tasks_may_be_added_while_results_are_taken(workers, request):
    engine: Engine = request.getfixturevalue("pool") if workers else open_engine()
    tasks, results, reports = [Task("1", partial(double, 1)), Task("100", partial(double, 100))], {}, []
    for name, result in engine.complete(tasks, reports.append, expected=4):
        results[name] = result
        if result < 8:
            tasks.append(Task(str(result), partial(double, result)))
    assert results == {"1": 2, "2": 4, "4": 8, "100": 200}
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


FAILURES = {
    "second": "It is not finite; got no. Do otherwise.",
    "fourth": "Nor is this; got no. Do otherwise.",
}


def test_one_progress_counts_what_is_done_failed_and_running(pool):
    reports = []
    with pytest.raises(ActivationError):
        list(pool.complete(TASKS, reports.append))
    assert reports[-1].note == "2 done, 2 failed, 0 running"
    assert (reports[-1].step, reports[-1].steps) == (4, 4)


def test_events_say_what_failed_at_once_and_progress_once_a_second(capsys):
    seconds = iter([0.0, 0.5, 0.9, 2.0, 2.1])
    report = report_json_lines(lambda: next(seconds))
    count = TaskCount(1, 0, 2, 4)
    report(Progress("reading", 1, 4, count.sentence, 0.25, tasks=count))
    report(Progress("reading", 1, 4, fraction=0.3, tasks=count))
    report(Progress("reading", 2, 4, fraction=0.5, tasks=TaskCount(1, 1, 1, 4)))
    report(Progress("reading", 2, 4, fraction=0.5, failure="b failed", tasks=TaskCount(1, 1, 1, 4)))
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in events] == ["progress", "progress", "failure"]
    assert [event["seconds_left"] for event in events] == [1.5, 2.0, 2.1]
    assert [(event["done"], event["failed"], event["running"]) for event in events] == [(1, 0, 2), (1, 1, 1), (1, 1, 1)]
    assert (events[0]["note"], events[2]["sentence"]) == ("1 done, 2 running", "b failed")


def test_what_nobody_foresaw_comes_back_with_the_name_of_its_task(pool):
    with pytest.raises(ValueError, match="nobody foresaw") as error:
        list(pool.complete([Task("first", fail)]))
    assert error.value.__notes__ == ["first"]


def test_a_cluster_names_what_failed_with_its_log(cluster):
    results, reports = {}, []
    with pytest.raises(ActivationError, match=r"^second .*It is not finite; got no. Do otherwise. Its log: ") as error:
        results.update(cluster.complete(TASKS, reports.append))
    assert results == {"first": 2, "third": 6}
    log = str(error.value).rpartition("Its log: ")[2]
    assert Path(log).is_file() or log.startswith("ray logs task")
    assert reports[-1].note.startswith("2 done, 2 failed")
    assert (reports[-1].tasks.done, reports[-1].tasks.failed, reports[-1].tasks.tasks) == (2, 2, 4)
    assert reports[-1].fraction == 1.0


def test_what_nobody_foresaw_on_a_cluster_comes_back_with_the_name_of_its_task(cluster):
    with pytest.raises((ValueError, EngineError), match="nobody foresaw") as error:
        list(cluster.complete([Task("first", fail)]))
    assert "first" in " ".join([str(error.value), *getattr(error.value, "__notes__", [])])


def place_of(number, run, report):
    report(Progress("computing", 0, 1, run.manifest.name))
    return number, os.getpid()


def test_statistics_are_shared_by_workers_of_this_machine_and_left_to_the_driver_on_a_cluster(pool, tmp_path):
    parts = {f"part {number}": partial(place_of, number) for number in range(4)}
    with Run.writing(tmp_path / "run") as run, ThreadPoolExecutor(2) as threads:
        with pool.in_use():
            shared = compute_parts(run, parts, silent)
        with Engine(threads).in_use():  # as any executor but this machine's processes
            alone = compute_parts(run, parts, silent)
    assert [number for number, _ in shared] == [number for number, _ in alone] == [0, 1, 2, 3]
    assert os.getpid() not in {process for _, process in shared}
    assert {process for _, process in alone} == {os.getpid()}


def test_what_workers_fork_from_begins_to_load_when_the_engine_is_opened():
    if sys.platform != "linux":
        pytest.skip("only on Linux do workers fork")
    code = "from probes.engine import open_engine; from multiprocessing import forkserver\n"
    code += "with open_engine(2): print(forkserver._forkserver._forkserver_pid is not None)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.strip() == "True"


@pytest.mark.slow
def test_a_worker_that_is_killed_on_a_cluster_is_started_again_or_named(cluster, request, tmp_path):
    """Ray starts it again; submitit's executor for one machine, unlike SLURM's, does not."""
    task = Task("first", partial(be_killed_once, tmp_path / "begun"))
    if request.node.callspec.params["cluster"] == "slurm":
        with pytest.raises(EngineError, match=r"^first: Its job ended without a result; got state.*Its log: "):
            list(cluster.complete([task]))
    assert dict(cluster.complete([task]))["first"] != os.getpid()


@pytest.mark.parametrize(
    ("workers", "sentence"),
    [
        ("two", "no such workers; got 'two'; expected a number, slurm.*or ray"),
        ("-1", "must be a worker; got -1"),
        ("slurm:cluster=local,gpus", "NAME=VALUE.*got 'gpus'"),
        ("slurm:cluster=local,colour=red", "submitit takes no such options"),
        ("slurm:cluster=local,mem_gb=much", "submitit takes no such options"),
        ("slurm:cluster=local,tasks_per_job=0", "at least one task; got tasks_per_job=0"),
    ],
)
def test_workers_that_there_cannot_be_are_refused(workers, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=sentence):
        open_engine(workers)


@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a SLURM here")
def test_without_slurm_the_way_to_try_it_out_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"There is no SLURM here.*--workers slurm:cluster=local"):
        open_engine(f"slurm:folder={tmp_path}")


@pytest.mark.parametrize(("name", "library"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_library_that_is_not_installed_is_named_with_its_extra(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"probes.engine.{name}", raising=False)
    with pytest.raises(UsageError, match=rf"needs {library}, which is not installed.*gravity-probe\[{name}\]"):
        open_engine(name)


def test_threads_belong_to_the_task_and_not_to_the_workers(pool, monkeypatch):
    assert [count for _, count in pool.complete([Task("first", threads_of), Task("second", threads_of)])] == [1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with open_engine(1) as engine:
        assert dict(engine.complete([Task("first", threads_of)])) == {"first": 3}
        with engine.threads():
            assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 1
    with limit_threads(None):
        assert torch.get_num_threads() == 1


def test_a_process_holds_one_model():
    loaded = []
    for key in ("a", "a", "b", "a"):
        assert hold_model(key, lambda key=key: loaded.append(key) or f"model {key}") == f"model {key}"
    release_model()
    assert loaded == ["a", "b", "a"]


def test_there_must_be_a_worker():
    with pytest.raises(UsageError, match="must be a worker"):
        open_engine(0)


@pytest.mark.slow
def test_two_workers_leave_the_bytes_of_one(lineage, alone, pool, tmp_path):
    assert contents(make_run(lineage, tmp_path / "run", pool).path) == alone


@pytest.mark.slow
def test_a_cluster_leaves_the_bytes_of_one_process(lineage, cluster, tmp_path):
    local, remote = (
        make_run(lineage, tmp_path / name / "run", engine, whole=False)
        for name, engine in (("local", open_engine(1)), ("remote", cluster))
    )
    assert contents(remote.path) == contents(local.path)


@pytest.mark.slow
def test_the_command_measures_with_two_workers(lineage, tmp_path):
    steps = [("--checkpoint", step.model) for step in lineage.trajectories[0].checkpoints[:2]]
    words = ["measure", "--aligned", lineage.aligned.model, *sum(steps, ()), "--out", str(tmp_path / "run")]
    for label in ("harmful", "harmless"):
        texts = [prompt.text for prompt in PROMPTS.prompts if prompt.label == label]
        (tmp_path / f"{label}.txt").write_text("\n".join(texts), encoding="utf-8")
        words += [f"--{label}", str(tmp_path / f"{label}.txt")]
    done = CliRunner().invoke(app, [*words, "--workers", "2", "--json", "--json-lines"])
    assert done.exception is None, done.exception
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert {event["event"] for event in events} == {"progress"}
    assert all(0 <= event["share"] <= 1 for event in events)
    run = Run(tmp_path / "run")
    assert len(run.members) == 3
    assert all(run.made_from(activations_stage(member.id)) == run.keys[member.id] for member in run.members)


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_read_leaves_the_others_at_work(lineage, alone, pool, tmp_path):
    shutil.copytree(Path(lineage.trajectories[0].checkpoints[0].model).parent, tmp_path / "out")
    broken = lineage.model_copy(update={"trajectories": (Trajectory.from_folder(tmp_path / "out"),)})
    weights = tmp_path / "out" / "checkpoint-2" / "model.safetensors"
    whole = weights.read_bytes()
    tensors = load_file(weights)
    save_file({name: tensor * torch.nan for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})
    with pytest.raises(ActivationError, match=r"^Checkpoint baseline-s0-000002.*not finite"):
        make_run(broken, tmp_path / "run", pool)
    measured = {path.stem for path in (tmp_path / "run" / "activations").iterdir()}
    assert measured == {"aligned", "witness", *(f"baseline-s0-00000{step}" for step in (1, 3))}
    jobs = status(Run(tmp_path / "run"))["jobs"]
    assert [jobs[name] for name in ("done", "failed", "running", "tasks", "at_work")] == [2, 1, 0, 3, False]
    assert [text.partition(" (")[0] for text in jobs["failures"]] == ["Checkpoint baseline-s0-000002"]
    shown = CliRunner().invoke(app, ["status", str(tmp_path / "run")])
    assert "2 done, 1 failed, 0 running of 3 jobs; stopped" in shown.output
    with Run.writing(tmp_path / "run") as run:
        assert status(run)["jobs"]["at_work"]
    weights.write_bytes(whole)
    resumed = contents(make_run(broken, tmp_path / "run", pool).path)
    assert {**resumed, "run.json": alone["run.json"]} == alone, "the manifest names another place"
    assert status(Run(tmp_path / "run"))["jobs"] is None


@pytest.mark.slow
def test_a_killed_worker_is_one_sentence_and_the_run_goes_on_to_the_same_bytes(lineage, alone, tmp_path):
    earlier = {process.pid for process in multiprocessing.active_children()}

    def workers():
        return [process.pid for process in multiprocessing.active_children() if process.pid not in earlier]

    def kill(progress):
        """Once checkpoints are read, and before any sham is drawn: few draws are soon made."""
        if progress.phase == "measuring drift" and len(workers()) == 2:
            os.kill(workers()[0], signal.SIGKILL)

    sentence = r"A worker process was killed.*The same command goes on"
    with open_engine(2) as engine, pytest.raises(EngineError, match=sentence):
        make_run(lineage, tmp_path / "run", engine, kill)
    assert not workers()
    assert contents(make_run(lineage, tmp_path / "run", open_engine(1)).path) == alone
