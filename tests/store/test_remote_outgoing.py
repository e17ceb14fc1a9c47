"""What commands write is sent to a URL whole, as the same files that a path would get, and over nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from probes.cli import app
from probes.errors import UsageError
from probes.run import Run
from probes.stages.maps import MapOptions, write_maps
from probes.store import MANIFEST
from probes.store.remote import local_folder, outgoing
from probes.store.remote.bucket import Bucket
from probes.store.remote.refusals import RemoteError, UnreachableError
from tests.organism.test_history import TINY
from tests.store.test_remote import at_once, elsewhere, names  # noqa: F401
from tests.synthetic import write_run
from tests.test_experiment import history  # noqa: F401

DIRECTION = "diff_in_means"
SMALL = {"n_layers": 2, "steps": (1, 100), "prompts": 6, "d_model": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = write_run(tmp_path_factory.mktemp("sent") / "run", **SMALL, directions=[DIRECTION])
    with Run.writing(path) as writing:
        write_maps(writing, MapOptions(("pca",)))
    return path


def command(*words: object) -> dict:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sent(url: str) -> dict[str, bytes]:
    return {name: Bucket(url).read(name) for name in names(url)}


EXPORTS = {
    "a direction": ["export", "--direction", DIRECTION, "--format", "json"],
    "a direction without a suffix": ["export", "--direction", DIRECTION],
    "a log of each checkpoint": ["export", "--format", "inspect"],
    "maps": ["export", "--map"],
    "a card": ["report", "--card"],
}
NAMES = {"a direction": "out/refusal.json", "a log of each checkpoint": "out/logs", "a card": "out/card.md"}


@pytest.mark.parametrize("export", EXPORTS)
def test_a_url_gets_the_files_that_a_path_gets_and_never_others_in_their_place(run, bucket, tmp_path, export):
    (verb, *options), name = EXPORTS[export], NAMES.get(export, "out/new")
    place, url = (command(verb, run, *options, "--out", f"{home}/{name}")["path"] for home in (tmp_path, bucket))
    assert url == place.replace(str(tmp_path), bucket)
    assert sent(f"{bucket}/out") == content(tmp_path / "out")
    with pytest.raises(UsageError, match=f"{bucket}/out/.* is already there"):
        command(verb, run, *options, "--out", f"{bucket}/{name}")


def test_a_report_replaces_the_one_before(run, bucket):
    Bucket(bucket).write("mine.html", b"before")
    about = command("report", run, "--out", f"{bucket}/mine.html")
    assert about["report"] == f"{bucket}/mine.html"
    page = Bucket(bucket).read("mine.html")
    assert (len(page), page[-8:]) == (about["bytes"], b"</html>\n")


def test_a_packed_run_opens_from_where_it_was_sent(run, bucket, elsewhere, tmp_path, monkeypatch):  # noqa: F811
    order, put = [], Bucket.put
    monkeypatch.setattr(Bucket, "put", lambda self, files, report: (order.extend(files), put(self, files, report)))
    url = f"{bucket}/packed"
    about = command("pack", run, "--out", url)
    assert about["run"] == url
    assert order[-1] == MANIFEST
    command("pack", run, "--out", tmp_path / "packed")
    assert sent(url) == content(tmp_path / "packed")
    elsewhere()
    assert Run(url).manifest == Run(tmp_path / "packed").manifest
    with pytest.raises(UsageError, match=f"{url} is already there"):
        command("pack", run, "--out", url)


def test_what_cannot_be_sent_whole_is_not_there_at_all(bucket, lost_after_one):
    with pytest.raises(UnreachableError):
        write_two(f"{bucket}/two")
    assert not names(bucket)


def test_what_was_not_finished_is_not_sent(bucket, tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(FileExistsError):
        write_two(f"{bucket}/two", then=tmp_path / "one")
    assert not names(bucket)


def write_two(url: str, then: Path | None = None) -> None:
    with outgoing(url) as target:
        target.path.mkdir()
        for name in ("one", "two"):
            (target.path / name).write_text(name)
        if then is not None:
            then.mkdir()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_bucket_that_is_not_there_is_refused_before_the_work(bucket, overwrite):
    with (
        pytest.raises(RemoteError, match="There is no such bucket"),
        outgoing("s3://no-such-bucket-at-all/run", overwrite=overwrite),
    ):
        pytest.fail("it works")


def test_arms_are_trained_on_a_history_behind_a_url(history, bucket, elsewhere, tmp_path):  # noqa: F811
    with Run.writing(f"{bucket}/demo") as writing:
        shutil.copytree(history, local_folder(f"{bucket}/demo") / "checkpoints")
        writing.finish()
    words = "--arms", "baseline", "--final-step-only"
    expected = command("arms", history, *words, "--out", tmp_path / "arms")["arms"]
    for _ in range(2):  # the second time, on a machine that has seen nothing of it
        elsewhere()
        assert command("arms", f"{bucket}/demo", *words, "--out", f"{bucket}/arms")["arms"] == expected
    assert Run(f"{bucket}/arms").lineage.aligned.model == f"{bucket}/demo/checkpoints/aligned"
    assert Run(f"{bucket}/arms").lineage.trajectories[0].checkpoints[-1].step == TINY.benign.steps
