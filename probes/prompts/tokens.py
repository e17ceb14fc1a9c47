"""A token as people can read it."""

from __future__ import annotations

_SIGNS = {"\n": "↵", "\r": "↵", "\t": "⇥"}


def visible(token: str) -> str:
    """The token with all of it to be seen, and nothing that a terminal would obey.

    A leading blank is ·, a line break ↵, a tab ⇥, nothing at all ∅; any other character that cannot be printed is
    written as Python escapes it.
    """
    shown = "".join(
        _SIGNS.get(character) or (character if character.isprintable() else repr(character)[1:-1])
        for character in token
    )
    return ("·" + shown[1:] if shown.startswith(" ") else shown) or "∅"
