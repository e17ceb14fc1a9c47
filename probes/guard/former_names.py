"""Former names of arguments, which go on working with a notice for one version."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from probes.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])


def accept_former_names(**names: str) -> Callable[[Function], Function]:
    """Let a function be called, or a record be made, with former names of its arguments, too.

    Args:
        names: former name → name now.

    Raises:
        UsageError: when it is called with both.
    """

    def declare(function: Function) -> Function:
        if isinstance(function, type):
            function.__init__ = declare(function.__init__)  # type: ignore[misc]
            return function

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for former in names.keys() & kwargs.keys():
                current = names[former]
                if current in kwargs:
                    raise UsageError("One argument is given twice", got=f"{former} and {current}")
                message = f"{former}= is called {current}= now; the former name goes with the next version."
                warnings.warn(message, FutureWarning, stacklevel=2)
                kwargs[current] = kwargs.pop(former)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return declare
