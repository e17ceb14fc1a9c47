"""The checks of types at run time: shapes by jaxtyping, and what has no shape in its signature by beartype alone.

jaxtyping binds the arguments of each call and checks them twice, which takes a judge of answers as long as judging.
"""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray, config
from jaxtyping import _decorator as decorator

_WHOLE = decorator.jaxtyped


def check_shapes_where_there_are_any() -> None:
    """Put `_check` in jaxtyping's place, before it decorates a module."""
    jaxtyping.jaxtyped = decorator.jaxtyped = _check


def _check(function: Any = decorator._sentinel, **options: Any) -> Any:
    """Check a function as jaxtyping does, which decorates classes and methods by this too."""
    if not isinstance(function, FunctionType):
        return _WHOLE(function, **options)
    written = function.__annotations__
    hints = {name: decorator._destring_annotation(hint, function.__globals__) for name, hint in written.items()}
    if any(map(_has_shape, hints.values())):
        return _WHOLE(function, **options)
    function.__annotations__ = hints  # beartype refuses what only a type checker imports; jaxtyping takes it for Any
    checked = beartype(function)
    function.__annotations__ = checked.__annotations__ = written
    return checked


def _has_shape(hint: Any) -> bool:
    """Whether a shape stands anywhere in a type."""
    if isinstance(hint, list):  # arguments of a Callable
        return any(map(_has_shape, hint))
    return (inspect.isclass(hint) and issubclass(hint, AbstractArray)) or any(map(_has_shape, typing.get_args(hint)))


@contextlib.contextmanager
def no_type_checks() -> Iterator[None]:
    """Leave those of shapes out, where the same functions have just run with them: a third of a simulation's time."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)
