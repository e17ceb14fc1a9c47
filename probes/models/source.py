"""From a checkpoint reference to a folder on this machine, by way of the hub or another store where needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.errors import CheckpointError
from probes.store.documents import read_object
from probes.store.remote import download_checkpoint, fetch_weights, is_url

CONFIG = "config.json"
_CARD = ["config.json", "adapter_config.json", "README.md"]
_DESCRIPTION = ["*.json", "*.jinja", "tokenizer*", "vocab*", "merges.txt", "*.model"]
_SAFE_WEIGHTS = ["model*.safetensors", "adapter_model.safetensors"]
_PICKLED_WEIGHTS = ["pytorch_model*.bin", "adapter_model.bin"]


def folder_of(place: str, revision: str | None, *, allow_pickle: bool) -> Path:
    """The folder of a checkpoint or adapter: itself (or a GGUF file) if local, else its copy from the hub or a URL.

    Args:
        place: a folder, a hub id, or a URL.
        revision: branch, tag or commit on the hub.
        allow_pickle: whether pickled weights may be fetched where no safetensors are.

    Raises:
        CheckpointError: the hub cannot be reached, or does not have it, and the cache does not either.
        RemoteError: likewise for a URL.
    """
    return _fetch(place, revision, _DESCRIPTION + _SAFE_WEIGHTS + (_PICKLED_WEIGHTS if allow_pickle else []))


def fetch_description(place: str, revision: str | None) -> Path:
    """As `folder_of`, with nothing but the card and the configuration fetched.

    Raises:
        CheckpointError: as `folder_of`.
    """
    return _fetch(place, revision, _CARD)


def _fetch(place: str, revision: str | None, patterns: list[str]) -> Path:
    if is_url(place):
        return download_checkpoint(place, tuple(patterns))
    if Path(place).is_dir():
        fetch_weights(Path(place))
        return Path(place)
    if place.endswith(".gguf") and Path(place).is_file():
        return Path(place)
    # Imported here: a lineage of local folders needs no hub.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(place, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise CheckpointError(
            f"{place} is neither a folder nor a hub id", next_step="Check the path; a hub id is like org/name."
        ) from error
    except LocalEntryNotFoundError as error:
        raise _not_reached(place, revision) from error
    except HfHubHTTPError as error:
        raise _not_given(place, revision, error) from error
    except OSError as error:
        # Connection errors of the hub's client are OSErrors of several libraries.
        raise _not_reached(place, revision) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint's folder.

    Raises:
        CheckpointError: the file is absent or no JSON object.
    """
    if not path.exists():
        raise CheckpointError(
            f"{path.parent} is no checkpoint",
            got=f"a folder without {path.name}",
            expected="a folder as save_pretrained or the Trainer writes it",
        )
    return read_object(path, kind="file of a checkpoint", error=CheckpointError, finite=False)


def _hub_error(place: str, revision: str | None) -> str:
    return f"{place}@{revision}" if revision else place


def _not_reached(place: str, revision: str | None) -> CheckpointError:
    return CheckpointError(
        f"{_hub_error(place, revision)} is not in the local cache, and the hub cannot be reached",
        next_step="Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a folder that holds it.",
    )


def _not_given(place: str, revision: str | None, error: Exception) -> CheckpointError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    steps = {
        401: "Check the id; if it is private or gated, accept its terms and log in with `hf auth login`.",
        403: "Accept the model's terms on the hub, and log in with `hf auth login`.",
        404: "Check the id and the revision.",
    }
    return CheckpointError(
        f"The hub does not give {_hub_error(place, revision)}",
        got=f"{type(error).__name__} (status {status})",
        next_step=steps.get(status or 0, "Try again later, or check HF_ENDPOINT."),
    )
