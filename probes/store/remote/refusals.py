"""What a store answers when something is wrong, as one sentence with what to do."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator

from probes.errors import RunFolderError

_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # faults of this machine, which have sentences of their own
# Errors of the libraries below fsspec that are no OSError; looked up only once one of them is loaded.
_FOREIGN = (
    ("botocore.exceptions", ("BotoCoreError", "ClientError")),
    ("aiohttp", ("ClientError",)),
    ("httpx", ("HTTPError",)),
    ("httpx2", ("HTTPError",)),
    ("google.auth.exceptions", ("GoogleAuthError",)),
    ("gcsfs.retry", ("HttpError",)),
    ("huggingface_hub.errors", ("HfHubHTTPError", "HFValidationError")),
)
_LOG_IN = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; FSSPEC_S3_ANON=true reads a public bucket.",
    "gs": "Log in with `gcloud auth application-default login`; FSSPEC_GS_TOKEN=anon reads a public bucket.",
    "hf": "Log in with `hf auth login`, or set HF_TOKEN.",
}
_REACH = {
    "s3": "Check the network, and AWS_ENDPOINT_URL for a store that is not Amazon's.",
    "gs": "Check the network.",
    "hf": "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE.",
}
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "Forbidden", "Unauthorized")


class RemoteError(RunFolderError):
    """A place behind a URL that is not there, or may not be read or written."""


class UnreachableError(RemoteError):
    """A store that does not answer; the work goes on without it, and is sent later."""


class ConflictError(RemoteError):
    """Somebody else has changed what this machine is about to change."""


def client_errors() -> tuple[type[BaseException], ...]:
    """Every error that a store's client may raise, of the libraries that are loaded."""
    loaded = [(sys.modules[module], names) for module, names in _FOREIGN if module in sys.modules]
    return OSError, *(getattr(module, name) for module, names in loaded for name in names if hasattr(module, name))


@contextlib.contextmanager
def in_sentences(url: str) -> Iterator[None]:
    """Turn what a client raises into a `RemoteError` about `url`; an absent file is left to who asks for one.

    Raises:
        RemoteError: there are no credentials, access is denied, or the store does not answer.
    """
    try:
        yield
    except (RunFolderError, FileNotFoundError, FileExistsError):
        raise
    except client_errors() as error:
        if isinstance(error, OSError) and error.errno in _LOCAL:
            raise
        raise refusal_of(url, error) from error


def refusal_of(url: str, error: BaseException) -> RemoteError:
    """The sentence for an error of a store's client."""
    protocol = "gs" if url.startswith("g") else url.partition(":")[0]
    name, text = type(error).__name__, " ".join(str(error).split())[:200]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if name in _NO_CREDENTIALS or status == 401:
        return RemoteError(f"There are no credentials for {url}", got=text or name, next_step=_LOG_IN[protocol])
    if isinstance(error, PermissionError) or status == 403 or any(word in f"{name} {text}" for word in _DENIED):
        return RemoteError(f"{url} may not be used with these credentials", got=text, next_step=_LOG_IN[protocol])
    if status == 404:
        return no_such_bucket(url, text)
    if status == 412:
        return ConflictError(f"Somebody else has just changed {url}", next_step="Start the same command again.")
    return UnreachableError(f"{url} cannot be reached", got=f"{name}: {text}", next_step=_REACH[protocol])


def no_such_bucket(url: str, text: str) -> RemoteError:
    """The sentence where not even the bucket, or the repository, is there."""
    kind, step = (
        ("repository", "Check the name, or create it: `hf repos create`.")
        if url.startswith("hf:")
        else ("bucket", "Check the name; buckets are not created here.")
    )
    return RemoteError(f"There is no such {kind}: {url}", got=text or None, next_step=step)
