"""Whether a chat template is so plain that its time and its output are bounded, whatever the prompt says.

A template is a program. One that loops over the turns of a chat, joins texts and compares them can be run where we are;
any other is run in a process of its own, which can be stopped (`chat`). What is plain is listed, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeGuard

from jinja2 import Environment, TemplateError, nodes

_TURNS = frozenset({"messages"})  # at most two
_ABSENT = frozenset(
    {"tools", "custom_tools", "builtin_tools", "documents"}
)  # a template may ask for them; we give none
_MAX_NESTED_LOOPS = 3
_MAX_LENGTH = 1 << 17
_PLAIN = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.Break, nodes.Continue),
    *(nodes.Name, nodes.NSRef, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Compare, nodes.Operand),
    *(nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Test, nodes.CondExpr, nodes.Add, nodes.Sub, nodes.Concat),
    *(nodes.Keyword, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair),
)
_SHORTENING = frozenset({"trim", "length", "count", "first", "last", "default"})
_FILTERS = _SHORTENING | {"lower", "upper", "tojson", "string"}
_FUNCTIONS = frozenset({"raise_exception", "namespace"})
_METHODS = frozenset(
    {"strip", "lstrip", "rstrip", "split", "rsplit", "startswith", "endswith", "items", "keys", "values", "get"}
)
_CONTAINERS = (nodes.List, nodes.Tuple, nodes.Dict)
_JOINING = (nodes.Add, nodes.Concat, nodes.Call, *_CONTAINERS)


@lru_cache(maxsize=32)
def is_plain(template: str) -> bool:
    """Whether the time and the output of a template are bounded by its own length times that of the chat."""
    if len(template) > _MAX_LENGTH:
        return False
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
        return _is_plain(tree)
    except (TemplateError, RecursionError, ValueError):  # no template; whoever runs it will say why
        return False


def _is_plain(tree: nodes.Template) -> bool:
    assigned = {assign.target.name for assign in tree.find_all(nodes.Assign) if isinstance(assign.target, nodes.Name)}
    turns, absent = _aliases(tree, _TURNS), _aliases(tree, _ABSENT)
    targets = {name.name for loop in tree.find_all(nodes.For) for name in _nodes(loop.target) if _is_name(name)}
    if targets & (turns | absent | {"loop"}) or assigned & (_FUNCTIONS | {"loop", "strftime_now"}):
        return False
    return all(
        depth <= _MAX_NESTED_LOOPS and _is_plain_node(node, turns, assigned)
        for node, depth in _live_nodes(tree, absent, assigned)
    )


def _live_nodes(
    node: nodes.Node, absent: set[str], assigned: set[str], depth: int = 0
) -> Iterator[tuple[nodes.Node, int]]:
    """Every node that can be run, and in how many loops it stands: a loop over what is absent runs nothing."""
    if isinstance(node, nodes.For) and _runs_nothing(node, absent, assigned):
        return
    yield node, depth
    for child in node.iter_child_nodes():
        yield from _live_nodes(child, absent, assigned, depth + isinstance(node, nodes.For))


def _runs_nothing(loop: nodes.For, absent: set[str], assigned: set[str]) -> bool:
    if isinstance(loop.iter, nodes.Name):
        return loop.iter.name in absent and not loop.else_
    owner = loop.iter.node if isinstance(loop.iter, nodes.Getattr | nodes.Getitem) else None
    return _is_name(owner) and owner.name not in assigned and _key(loop.iter) == "tool_calls" and not loop.else_


def _is_plain_node(node: nodes.Node, turns: set[str], assigned: set[str]) -> bool:
    match node:
        case nodes.For():
            return not node.recursive and _is_alias(node.iter, turns)
        case nodes.Assign():
            return _grows_slowly(node, assigned)
        case nodes.Filter():
            return node.name in _FILTERS
        case nodes.Mod():  # of texts it is formatting
            return isinstance(node.right, nodes.Const) and _is_of_loop(node.left)
        case nodes.Call(node=nodes.Getattr() as method):
            return method.attr in _METHODS
        case nodes.Call(node=nodes.Name() as function):
            constant = all(isinstance(argument, nodes.Const) for argument in node.args)
            return function.name in _FUNCTIONS or (function.name == "strftime_now" and constant)
    return isinstance(node, _PLAIN)


def _aliases(tree: nodes.Template, names: frozenset[str]) -> set[str]:
    """Names that can hold nothing but what these names hold, or a slice of it."""
    assigned = [(node.target.name, node.node) for node in tree.find_all(nodes.Assign) if _is_name(node.target)]
    aliases = set(names) | {name for name, _ in assigned}
    while unsafe := {name for name, value in assigned if not _is_alias(value, aliases)} & aliases:
        aliases -= unsafe
    return aliases


def _is_alias(value: nodes.Node, aliases: set[str]) -> bool:
    if isinstance(value, nodes.Getitem) and isinstance(value.arg, nodes.Slice):
        return _is_alias(value.node, aliases)
    if isinstance(value, nodes.Const):
        return value.value is None
    return isinstance(value, nodes.Name) and value.name in aliases


def _grows_slowly(assign: nodes.Assign, assigned: set[str]) -> bool:
    """Whether what is assigned is no longer than one earlier value, the chat and the template together."""
    if isinstance(assign.target, nodes.Tuple):
        return False
    inner = list(_nodes(assign.node))
    earlier = [node for node in inner if _is_name(node) and node.name in assigned]
    if not earlier:
        return True
    filters = {node.name for node in inner if isinstance(node, nodes.Filter)}
    if any(isinstance(node, _CONTAINERS) for node in inner) or not filters <= _SHORTENING:
        return False
    return len(earlier) == 1 or not any(isinstance(node, _JOINING) for node in inner)


def _nodes(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    yield from node.find_all(nodes.Node)


def _is_name(node: nodes.Node | None) -> TypeGuard[nodes.Name]:
    return isinstance(node, nodes.Name)


def _is_of_loop(value: nodes.Expr) -> bool:
    return isinstance(value, nodes.Getattr) and _is_name(value.node) and value.node.name == "loop"


def _key(value: nodes.Node) -> object:
    return value.attr if isinstance(value, nodes.Getattr) else getattr(getattr(value, "arg", None), "value", None)
