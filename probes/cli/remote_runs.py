"""URLs where a verb takes a run folder: the run is brought before the verb begins, and sent once it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from probes.errors import UsageError
from probes.store.remote import Mirror, is_url, mirror_folder, mirror_of, whole_url

_RUNS, _OUT = ("run", "runs", "against"), "out"  # parameters that name run folders, and one that may
_HISTORY = "history"  # may name a demo run, of which every weight is needed
_LOCAL = (_OUT, "figures", "cache")  # what is written where these say, unless --out is a run or a model
_MAKERS = ("measure", "demo", "arms", "train")  # verbs whose --out is a run that is worked on
_SENDERS = ("restore", "pack", "report", "export")  # verbs that send what they have written


def bring_runs(verb: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a verb's parameters with the local copy of each run in place of its URL.

    Args:
        verb: its name.
        values: by parameter, as given.

    Raises:
        UsageError: a URL stands where only a local path can.
        RemoteError: the store refuses, or does not answer.
    """
    if values.get("unlock"):
        _unlock(values["run"])
    names = [name for name in (*_RUNS, _HISTORY, *_LOCAL) if name in values]
    return {**values, **{name: _bring_each(verb, name, values[name]) for name in names}}


def send_runs(values: Mapping[str, Any]) -> None:
    """Send what a verb has left in mirrors beside what its stages have sent, such as a report."""
    folders = [folder for name in (*_RUNS, _OUT) for folder in _places_in(values.get(name)) if isinstance(folder, Path)]
    for mirror in filter(None, map(mirror_of, folders)):
        _pull(mirror)


def _unlock(place: str | Path) -> None:
    """Take the lock of a run behind a URL away, before anything else is asked of it."""
    mirror = Mirror.of_url(str(place)) if is_url(place) else mirror_of(Path(place))
    if mirror is None:
        raise UsageError("--unlock is for a run behind a URL", got=str(place))
    owner = mirror.unlock()
    typer.echo("Nobody held its lock." if owner is None else f"Unlocked; it was held by {owner}.", err=True)


def _places_in(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _bring_each(verb: str, name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_bring(verb, name, place) for place in value)
    return _bring(verb, name, value)


def _bring(verb: str, name: str, place: Any) -> Any:
    """The folder of a run, up to date: of a URL, or of a mirror that is given by its path."""
    makes_run = name == _OUT and verb in _MAKERS
    if not is_url(place):
        mirror = mirror_of(Path(place)) if place is not None and (name in _RUNS or makes_run) else None
        if mirror is not None:
            _pull(mirror, weights=makes_run)
        return place
    if name not in (*_RUNS, "cache") and verb in _SENDERS:
        return place
    if name == _OUT and verb == "plan":
        return mirror_folder(str(place))  # where the disk has to have room
    if name not in (*_RUNS, _HISTORY) and not makes_run:
        raise UsageError(
            f"--{name} of {verb} takes a path of this machine",
            got=whole_url(place),
            next_step="URLs stand for runs and models.",
        )
    mirror = Mirror.of_url(str(place))
    _pull(mirror, weights=makes_run or name == _HISTORY)
    if not makes_run:
        mirror.check_run()
    return mirror.path


def _pull(mirror: Mirror, *, weights: bool = False) -> None:
    from probes.terminal import progress_display

    with progress_display() as report:
        mirror.pull(report, weights=weights)
