"""The stages of a run, in order: one file each, named as what it leaves in the run folder.

`@stage` declares what one is made from, and skips it where the run holds it already, whole.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from probes.run import Run
from probes.store import fingerprint

NOT_INPUTS = ("run", "model", "report", "member", "fitted", "rows")  # arguments that a stage's other inputs stand for


def stage(
    name: str, *, version: int, needs: Sequence[str] = (), settings: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Stage]:
    """Declare a function that writes one stage of a run.

    It is called where the run does not hold the stage, made from the same inputs and whole, and skipped elsewhere. Its
    inputs are the stages it needs, the settings it names, and its own arguments but for those in `NOT_INPUTS`.

    Args:
        name: of the stage; `{argument}` stands for one of the function's arguments, here and in `needs`.
        version: raised when a change of the code alters what is written.
        needs: stages that it reads; `activations` is those of every member, `measured` of those that are kept.
        settings: names of the run's settings that decide what is written.
    """

    def declare(write: Callable[..., None]) -> Stage:
        return Stage(write, name, version, tuple(needs), frozenset(settings))

    return declare


class Stage:
    """A function that writes one stage of a run; called, it does so where the run does not hold it."""

    def __init__(
        self, write: Callable[..., None], name: str, version: int, needs: tuple[str, ...], settings: frozenset[str]
    ) -> None:
        functools.update_wrapper(self, write)
        self._write, self._signature = write, inspect.signature(write)
        self._name, self._version, self._needs, self._settings = name, version, needs, settings

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Write the stage, unless the run holds it."""
        bound = self._bind(args, kwargs)
        run: Run = bound.arguments["run"]
        place, made_from = self._name.format(**bound.arguments), self._fingerprint(bound)
        if not run.holds(place, made_from):
            with run.stage(place, made_from):
                self._write(*bound.args, **bound.kwargs)

    def made_from(self, *args: Any, **kwargs: Any) -> str:
        """The fingerprint of what a call with these arguments would be made from."""
        return self._fingerprint(self._bind(args, kwargs))

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound

    def _fingerprint(self, bound: inspect.BoundArguments) -> str:
        run: Run = bound.arguments["run"]
        inputs = {name: _plain(value) for name, value in bound.arguments.items() if name not in NOT_INPUTS}
        needs = [run.input_of(need.format(**bound.arguments)) for need in self._needs]
        settings = run.settings.model_dump(include=set(self._settings)) if self._settings else {}
        return fingerprint([self._version, needs, settings, inputs])


def _plain(value: Any) -> Any:
    """An argument of a stage as JSON; what has a hash of its own stands for its content."""
    if hasattr(value, "sha256"):
        grouping = getattr(value, "grouping_sha256", None)  # prompts: topics decide the folds
        return value.sha256 if grouping is None else [value.sha256, grouping]
    if hasattr(value, "document"):
        return value.document()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
