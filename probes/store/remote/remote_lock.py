"""Who writes to a run behind a URL, said in a file beside it: one writer at a time, as far as a store can promise."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import secrets
import time
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from probes.errors import GravityError
from probes.store.documents import parse_json
from probes.store.remote.bucket import Bucket
from probes.store.remote.refusals import RemoteError

LOCK = ".gravity-probe.lock"


class Owner(BaseModel):
    """Who holds it: the user, the machine, the process, since when, and a mark that no other has."""

    user: str
    host: str
    process: int
    time: str
    mark: str

    @classmethod
    def this(cls) -> Owner:
        """This process."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return cls(user=_user(), host=platform.node(), process=os.getpid(), time=moment, mark=secrets.token_hex(8))

    @property
    def is_gone(self) -> bool:
        """Whether it was a process of this machine that has ended; of another machine nobody can know."""
        if self.host != platform.node():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def __str__(self) -> str:
        return f"{self.user} on {self.host} (process {self.process}), since {self.time}"


@contextlib.contextmanager
def writing_alone(bucket: Bucket) -> Iterator[None]:
    """Hold the lock of a run; one whose process on this machine was killed is taken over.

    Raises:
        RemoteError: another process holds it.
    """
    if not bucket.has_lock:
        yield
        return
    content = json.dumps(Owner.this().model_dump()).encode()
    if not bucket.create(LOCK, content):
        _refuse_living(bucket)
        bucket.write(LOCK, content)
    try:
        yield
    finally:
        if bucket.read(LOCK) == content:
            bucket.delete([LOCK])


def holder(bucket: Bucket) -> Owner | None:
    """Who holds the lock of a run; None where nobody does."""
    content = bucket.read(LOCK) if bucket.has_lock else None
    if content is None:
        return None
    try:
        return Owner.model_validate(parse_json(content.decode("utf-8", "replace"), f"{bucket.url}/{LOCK}"))
    except (GravityError, ValidationError):
        return Owner(user="somebody", host="an unknown machine", process=0, time="an unknown time", mark="")


def unlock(bucket: Bucket) -> Owner | None:
    """Take the lock away from whoever holds it; who that was."""
    owner = holder(bucket)
    if owner is not None:
        bucket.delete([LOCK])
    return owner


def _refuse_living(bucket: Bucket) -> None:
    owner = holder(bucket)
    if owner is not None and not owner.is_gone:
        raise RemoteError(
            f"Another process is writing to {bucket.url}",
            got=str(owner),
            next_step=f"Wait for it. If it is gone for good: gravity-probe status {bucket.url} --unlock.",
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "a user without a name"
