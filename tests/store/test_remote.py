"""Runs behind a URL: the same bytes as in a folder, never half of a change, and one writer at a time."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from probes.errors import RunFolderError, UsageError
from probes.run import Run
from probes.store import MANIFEST, RunFolder, activations_stage
from probes.store.exclusive import holding_mirror
from probes.store.remote import Mirror, local_folder, mirror_folder, mirror_of, mirrors_of_root
from probes.store.remote.bucket import Bucket, whole_url
from probes.store.remote.index import LISTING
from probes.store.remote.refusals import ConflictError, RemoteError
from probes.store.remote.remote_lock import LOCK
from tests.processes import gravity_probe
from tests.processes import run as run_process
from tests.synthetic import write_run
from tests.test_store import measure_activations


def write(url: str | Path, number: int, stage: str = "drift") -> None:
    with RunFolder.writing(url, name="study") as run, run.stage(stage, f"from {number}"):
        run.write_table(stage, pd.DataFrame({"value": [number]}))


def value(url: str | Path, table: str = "drift") -> int:
    return int(RunFolder(url).read_table(table)["value"].iloc[0])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.store.remote.mirror._PAUSE", 0.0)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Go to another machine: one with an empty cache; calling it again goes back."""
    places = [str(tmp_path / "cache"), str(tmp_path / "another-cache")]

    def go() -> None:
        places.reverse()
        monkeypatch.setenv("XDG_CACHE_HOME", places[0])

    return go


def names(url: str) -> set[str]:
    return set(Bucket(url).list())


def test_what_one_machine_writes_another_reads(bucket, elsewhere):
    write(f"{bucket}/runs/study", 1)
    assert names(f"{bucket}/runs/study") == {MANIFEST, "drift.parquet", LISTING}
    elsewhere()
    assert value(f"{bucket}/runs/study") == 1
    write(f"{bucket}/runs/study", 2)
    elsewhere()
    assert value(f"{bucket}/runs/study") == 2


def test_activations_come_when_they_are_opened(bucket, elsewhere):
    url = f"{bucket}/study"
    with RunFolder.writing(url) as run:
        rows = measure_activations(run, "aligned", "k")
    elsewhere()
    run = RunFolder(url)
    assert not run.activations_path("aligned").exists()
    assert run.has_activations("aligned")
    assert not run.has_activations("witness")
    assert run.holds(activations_stage("aligned"), "k")
    assert np.array_equal(run.activation_file("aligned").layer(0), rows[1])
    assert run.activations_path("aligned").exists()
    local_folder(url)
    assert run.activations_path("aligned").exists(), "it was brought, and has not changed"


def test_what_a_stage_forgets_goes_there_too_and_what_was_only_not_here_stays(bucket, elsewhere):
    url = f"{bucket}/study"
    with RunFolder.writing(url) as run:
        for checkpoint in ("aligned", "witness"):
            measure_activations(run, checkpoint, "k")
    elsewhere()
    with RunFolder.writing(url) as run:
        run.activation_file("witness")
        run.forget(activations_stage("witness"))
    assert names(url) == {MANIFEST, LISTING, "activations/aligned.safetensors"}


def test_only_what_has_changed_is_sent(bucket, monkeypatch):
    url, sent = f"{bucket}/study", []
    write(url, 1, "nulls")
    put = Bucket.put
    monkeypatch.setattr(Bucket, "put", lambda self, files, report: (sent.append([*files]), put(self, files, report)))
    write(url, 1)
    assert sent == [["drift.parquet", MANIFEST, LISTING]]


def test_many_stages_are_sent_together_where_sending_takes_long(bucket, clock, monkeypatch):
    url, sent, put = f"{bucket}/study", [], Bucket.put

    def put_slowly(self, files, report):
        clock.sleep(0.2)
        sent.append([*files])
        put(self, files, report)

    monkeypatch.setattr(Bucket, "put", put_slowly)
    with RunFolder.writing(url) as run:
        for number in range(5):
            with run.stage(f"part-{number}", "k"):
                run.write_json(f"part-{number}", number)
    assert [len(names) for names in sent] == [3, 6], "the first stage at once, the others at the end"
    assert len(RunFolder(url).manifest.stages) == 5


def test_a_reader_never_sees_a_manifest_without_its_files(bucket, elsewhere, monkeypatch):
    url, seen = f"{bucket}/study", []
    write(url, 1)
    put = Bucket.put

    def put_and_look(self, files, report):
        """After every file that is sent, open the run as another machine does."""
        for name, source in files.items():
            put(self, {name: source}, report)
            elsewhere()
            try:
                seen.append(value(url))
            except RemoteError as error:
                seen.append(str(error))
            elsewhere()

    monkeypatch.setattr(Bucket, "put", put_and_look)
    with RunFolder.writing(url) as run:
        run.write_table("nulls", pd.DataFrame({"value": [3]}))
        with run.stage("drift", "anew"):
            run.write_table("drift", pd.DataFrame({"value": [2]}))
    assert {1, 2} <= set(seen)
    assert all(state in (1, 2) or "is being written to right now" in state for state in seen)
    assert seen[-1] == 2


def test_a_second_writer_is_refused_by_name_and_can_be_let_in(bucket, elsewhere):
    url = f"{bucket}/study"
    write(url, 1)
    with Mirror.of_url(url).session():
        elsewhere()
        with pytest.raises(RemoteError, match=r"Another process is writing to s3.* on .* since .*--unlock"):
            write(url, 2)
        assert value(url) == 1
    write(url, 2)
    Bucket(url).write(
        LOCK,
        json.dumps(
            {"user": "eve", "host": "far-away", "process": 1, "time": "2026-01-01T00:00:00Z", "mark": "x"}
        ).encode(),
    )
    with pytest.raises(RemoteError, match="eve on far-away"):
        write(url, 3)
    assert Mirror.of_url(url).unlock().startswith("eve on far-away")
    write(url, 3)


def test_between_writings_that_are_held_together_nobody_else_writes(bucket, elsewhere):
    url = f"{bucket}/study"
    folder = local_folder(url, new=True)
    with holding_mirror(folder):
        write(folder, 1)
        assert value(url) == 1, "who reads on this machine reads what is here"
        elsewhere()
        with pytest.raises(RemoteError, match="Another process is writing"):
            write(url, 2)
        elsewhere()
        write(folder, 3)
    assert LOCK not in names(url)
    elsewhere()
    assert value(url) == 3


def test_of_two_that_have_changed_a_run_the_second_is_refused(bucket, elsewhere):
    url = f"{bucket}/study"
    write(url, 1)
    folder = mirror_folder(url)
    (folder / ".remote.json").rename(folder / "aside")
    write(folder, 2)  # as a process does that is killed before it has sent anything
    (folder / "aside").rename(folder / ".remote.json")
    elsewhere()
    write(url, 3)
    elsewhere()
    with pytest.raises(ConflictError, match=f"Delete {folder}"):
        value(url)
    shutil.rmtree(folder)
    assert value(url) == 3


def test_a_push_that_is_refused_in_the_middle_of_the_work_says_so(bucket, elsewhere):
    url = f"{bucket}/study"
    write(url, 1)
    with pytest.raises(ConflictError, match="Somebody else has changed"):
        write_while(url, elsewhere)
    elsewhere()
    assert value(url) == 3


def write_while(url: str, elsewhere) -> None:
    """Write while another machine does, which has taken the lock away."""
    with RunFolder.writing(url) as run:
        elsewhere()
        Bucket(url).delete([LOCK])
        write(url, 3)
        elsewhere()
        with run.stage("drift", "from 2"):
            run.write_table("drift", pd.DataFrame({"value": [2]}))


@pytest.mark.parametrize(("at", "left"), [("drift.parquet", "1"), (MANIFEST, "2"), (LISTING, "2")])
def test_what_a_killed_push_has_left_the_next_command_sends(bucket, elsewhere, at, left):
    """A real process is killed just before a file is sent; another machine can be let in, or waits."""
    url = f"{bucket}/study"
    write(url, 1)
    assert run_process(write_and_die, url, at).returncode == -9
    as_if_far_away(url)
    elsewhere()
    if left == "2":
        with pytest.raises(RemoteError, match=r"is being written to right now; got .* on far-away"):
            value(url)
    shown = run_process(gravity_probe, "status", url, "--unlock")
    assert "it was held by" in shown.stderr
    assert shown.returncode == 0, shown.stderr
    assert str(value(url)) == left
    assert ("drift" in RunFolder(url).manifest.stages) == (at == LISTING)
    elsewhere()
    shown = run_process(gravity_probe, "status", url)
    assert shown.returncode == 0, shown.stderr
    elsewhere()
    assert value(url) == 2
    assert "drift" in RunFolder(url).manifest.stages
    write(url, 4)
    assert value(url) == 4


def as_if_far_away(url: str) -> None:
    owner = json.loads(Bucket(url).read(LOCK))
    Bucket(url).write(LOCK, json.dumps({**owner, "host": "far-away"}).encode())


def write_and_die(url: str, at: str) -> None:
    put = Bucket.put

    def put_until(self, files, report):
        if "drift.parquet" not in files:
            return put(self, files, report)
        for name, source in files.items():
            if name == at:
                os.kill(os.getpid(), 9)
            put(self, {name: source}, report)

    Bucket.put = put_until
    write(url, 2)


def test_a_process_killed_behind_the_listing_has_sent_all(bucket, elsewhere):
    url = f"{bucket}/study"
    write(url, 1)
    mirror = mirror_of(mirror_folder(url))
    before = (mirror.path / ".remote.json").read_bytes()
    write(url, 2)
    (mirror.path / ".remote.json").write_bytes(before)
    assert value(url) == 2
    write(url, 3)
    elsewhere()
    assert value(url) == 3


def test_while_this_machine_writes_its_readers_read_what_is_here(bucket):
    url = f"{bucket}/study"
    write(url, 1)
    with FileLock(mirror_folder(url) / ".lock"):
        Bucket(url).write(LISTING, b"not even JSON")
        assert value(url) == 1


def test_a_run_that_other_tools_have_copied_there_is_read_whole(bucket, tmp_path):
    url = f"{bucket}/runs"
    folder = write_run(tmp_path / "run", n_layers=2, steps=(1,), arms=("baseline",), prompts=4, d_model=8)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    Bucket(f"{url}/demo").put(files)
    assert mirrors_of_root(url) == [mirror_folder(f"{url}/demo")] == mirrors_of_root(f"{url}/demo")
    assert {path.name for path in mirror_folder(f"{url}/demo").iterdir()} == {MANIFEST, ".remote.json", ".remote.lock"}
    run = Run(f"{url}/demo")
    assert run.drift().equals(Run(folder).drift())
    assert not run.activations_path("aligned").exists()
    assert np.array_equal(run.activations("aligned", 1), Run(folder).activations("aligned", 1))


def test_refusals_are_sentences(bucket, monkeypatch):
    with pytest.raises(RunFolderError, match=f"There is no run at {bucket}/nothing"):
        RunFolder(f"{bucket}/nothing")
    with pytest.raises(RemoteError, match="There is no such bucket: s3://no-such-bucket-at-all/run"):
        RunFolder("s3://no-such-bucket-at-all/run")
    with pytest.raises(RemoteError, match="There is no such bucket"):
        write("s3://no-such-bucket-at-all/run", 1)
    with pytest.raises(UsageError, match=r"pip install 'gravity-probe\[gcs\]'"):
        RunFolder("gs://bucket/run")
    with pytest.raises(UsageError, match="expected s3://"):
        RunFolder("ftp://bucket/run")
    with pytest.raises(UsageError, match="no URL"):
        whole_url("s3://bucket/../../etc")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials .*AWS_PROFILE"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached.*AWS_ENDPOINT_URL"),
    ],
)
def test_a_store_that_cannot_be_asked_is_a_sentence(bucket, monkeypatch, settings, sentence):
    import s3fs

    for name, text in {**settings, "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, text)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RemoteError, match=sentence):
        RunFolder(f"{bucket}/run")


def test_a_path_that_has_lost_a_slash_is_a_url_again():
    assert whole_url(Path("s3://bucket/run/")) == "s3://bucket/run"
