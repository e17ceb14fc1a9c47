"""Commands on URLs: a measurement of checkpoints there, into a run there, gone on with on another machine."""

from __future__ import annotations

import json
import shutil

import pytest

from probes.cli.remote_runs import bring_runs
from probes.errors import UsageError
from probes.run import Run
from probes.store import MANIFEST
from probes.store.remote import mirror_folder
from probes.store.remote.bucket import Bucket
from tests.processes import gravity_probe
from tests.processes import run as run_process
from tests.store.test_remote import at_once, elsewhere, names, write  # noqa: F401
from tests.store.test_remote_checkpoints import folders, models  # noqa: F401

VERBS = ("open", "close", "lift", "drop", "turn", "push", "pull", "hold")


def command(*words: object) -> str:
    done = run_process(gravity_probe, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_is_measured_there_gone_on_with_elsewhere_and_packed(models, bucket, elsewhere, tmp_path):  # noqa: F811
    for label in ("harmful", "harmless"):
        lines = [f"{verb} the {label} {noun}\n" for verb in VERBS for noun in ("box", "lid")]
        (tmp_path / f"{label}.txt").write_text("".join(lines))
    url = f"{bucket}/runs/tiny"
    options = ["--aligned", f"{models}/aligned", "--checkpoint", f"2={models}/out/checkpoint-2", "--no-nulls"]
    options += ["--harmful", tmp_path / "harmful.txt", "--harmless", tmp_path / "harmless.txt", "--out", url]
    command("measure", *options, "--set", "bootstraps=20", "--set", "splits=2")
    stages = json.loads(Bucket(url).read(MANIFEST))["stages"]

    elsewhere()
    command("measure", *options, "--set", "bootstraps=20", "--set", "splits=2")
    assert json.loads(Bucket(url).read(MANIFEST))["stages"] == stages, "nothing is done twice"
    assert Run(url).lineage.aligned.model == f"{models}/aligned"
    command("report", url)
    assert "report.html" in names(url)

    shutil.rmtree(mirror_folder(url))
    assert "files come when they are opened" in command("status", url)
    command("pack", url, "--out", tmp_path / "packed")
    assert Run(tmp_path / "packed").drift().equals(Run(url).drift())
    refusal = run_process(gravity_probe, "attribute", url, "--out", f"{bucket}/left.jsonl")
    assert (refusal.returncode, "--out of attribute takes a path of this machine" in refusal.stderr) == (2, True)


def test_where_a_url_stands_for_a_run_a_model_or_nothing(bucket):
    url = f"{bucket}/study"
    write(url, 1)
    assert bring_runs("forecast", {"against": url}) == {"against": mirror_folder(url)}
    for verb, name in (("restore", "out"), ("pack", "out"), ("export", "out"), ("report", "figures")):
        assert bring_runs(verb, {name: f"{bucket}/new"}) == {name: f"{bucket}/new"}
    assert bring_runs("plan", {"out": f"{bucket}/planned"}) == {"out": mirror_folder(f"{bucket}/planned")}
    assert not mirror_folder(f"{bucket}/planned").exists()
    for verb, name in (("import", "out"), ("judge", "cache"), ("attribute", "out")):
        with pytest.raises(UsageError, match=f"--{name} of {verb} takes a path of this machine"):
            bring_runs(verb, {name: url})
