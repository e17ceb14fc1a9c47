"""A restored model is sent to a URL whole or not at all, and opens from there like any checkpoint."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from probes.cli import app
from probes.errors import UsageError
from probes.lineage import CheckpointRef
from probes.models.identity import weights_sha256
from probes.models.source import folder_of
from probes.store.remote import download_checkpoint
from probes.store.remote.bucket import Bucket
from probes.store.remote.refusals import RemoteError, UnreachableError
from probes.tasks.restore import restore
from tests.store.test_remote import at_once, elsewhere, names  # noqa: F401
from tests.test_restore import history  # noqa: F401


def test_a_restored_model_is_there_as_it_would_be_here(history, bucket, elsewhere, tmp_path, monkeypatch):  # noqa: F811
    url, sent, put = f"{bucket}/models/restored", [], Bucket.put
    monkeypatch.setattr(Bucket, "put", lambda self, files, report: (sent.extend(files), put(self, files, report)))
    words = ["restore", history.tuned.model, "--aligned", history.aligned.model, "--witness", history.witness.model]
    done = CliRunner().invoke(app, [*words, "--out", url, "--json"])
    assert done.exit_code == 0, done.output
    assert f'"out": "{url}"' in done.stdout
    assert sent[-1] == "config.json"
    assert set(sent) == names(url)

    expected = weights_sha256(CheckpointRef.parse(str(restore(history, tmp_path / "restored").out)))
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "get", lambda *_: pytest.fail("it is here already"))
        folder_of(url, None, allow_pickle=False)
    elsewhere()
    download_checkpoint.cache_clear()
    assert weights_sha256(CheckpointRef.parse(url)) == expected
    with pytest.raises(UsageError, match=f"{url} is already there"):
        restore(history, url)


def test_what_cannot_be_sent_whole_is_not_there_at_all(history, bucket, lost_after_one):  # noqa: F811
    with pytest.raises(UnreachableError, match=r"The model is in .*models/restored"):
        restore(history, f"{bucket}/models/restored")
    assert not names(f"{bucket}/models")


def test_a_bucket_that_is_not_there_is_refused_before_the_work(history, bucket, monkeypatch):  # noqa: F811
    monkeypatch.setattr("probes.tasks.restore.merged_weights", lambda *_: pytest.fail("it works"))
    with pytest.raises(RemoteError, match="There is no such bucket"):
        restore(history, "s3://no-such-bucket-at-all/restored")
