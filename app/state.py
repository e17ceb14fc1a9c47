"""What is being looked at: one selection, kept while moving between pages and in the URL."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import streamlit as st

from probes.store import find_runs
from probes.store.remote import is_url, mirrors_of_root

DEFAULT_ROOT = "runs"
_SECONDS = 30  # between two looks at which runs are behind a URL
_SELECTION, _WRITTEN = "selection", "query-as-written"
_QUERY = "query"


@dataclass(frozen=True)
class Selection:
    """The run, and the place in it. None and an empty text mean: the run's own default.

    Attributes:
        first: of the two checkpoints that are compared, `one` in the address.
        second: `other` in the address.
        view: how pages draw the place, by the names in the address: `app.widgets`.
        unread: what is to be said of an address that cannot be read, a sentence each.
    """

    run: str = ""
    arm: str = ""
    seed: int | None = None
    step: int | None = None
    layer: int | None = None
    statistic: str = ""
    direction: str = ""
    first: str = field(default="", metadata={_QUERY: "one"})
    second: str = field(default="", metadata={_QUERY: "other"})
    view: tuple[tuple[str, str], ...] = field(default=(), metadata={_QUERY: ""})
    unread: tuple[str, ...] = field(default=(), metadata={_QUERY: ""})

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Selection:
        """Read a URL's query. What is no number where one belongs is left at its default, and noted."""
        place: dict[str, Any] = {}
        view, unread = [], []
        names = {_query_name(attribute): attribute for attribute in _place()}
        for name, text in query.items():
            attribute = names.get(name)
            if attribute is None:
                view.append((name, text))
            elif "int" not in str(attribute.type):
                place[attribute.name] = text
            elif text.removeprefix("-").isdecimal() and len(text) < 10:
                place[attribute.name] = int(text)
            elif text:
                unread.append(f"The address asks for {name}={text[:40]}, which is no number.")
        return cls(**place, view=tuple(view), unread=tuple(unread))

    def to_query(self) -> dict[str, str]:
        """The query of a URL that shows this; defaults are left out."""
        values = {_query_name(attribute): getattr(self, attribute.name) for attribute in _place()}
        return {name: str(value) for name, value in (*values.items(), *self.view) if value not in (None, "")}


def _place() -> list[Field[Any]]:
    return [attribute for attribute in fields(Selection) if _query_name(attribute)]


def _query_name(attribute: Field[Any]) -> str:
    return attribute.metadata.get(_QUERY, attribute.name)


def is_known_host(host: str | None) -> bool:
    """Whether a request's Host header is this machine's own name for itself, or one that was allowed.

    Any other page that a browser has open could point a name of its own at this machine and read what is served.
    """
    if host is None:
        return True
    allowed = {"localhost", "127.0.0.1", "[::1]", *filter(None, os.environ.get("GRAVITY_PROBE_HOSTS", "").split(","))}
    return re.sub(r":\d+$", "", host).lower() in allowed


def selection() -> Selection:
    """What is selected now."""
    return st.session_state.get(_SELECTION, Selection())


def change(**changes: Any) -> None:
    """Select something else; takes effect in this run of the script."""
    st.session_state[_SELECTION] = replace(selection(), **changes)


def view(name: str) -> str:
    """What is selected under a name of `app.widgets`; empty where that is left at its default."""
    return dict(selection().view).get(name, "")


def change_view(name: str, value: str) -> None:
    """Select something else under a name of `app.widgets`; empty for its default."""
    rest_of_view = tuple(entry for entry in selection().view if entry[0] != name)
    change(view=(*rest_of_view, (name, value)) if value else rest_of_view)


def note_unread(sentence: str) -> None:
    """Keep something to be said of the address until the user chooses something."""
    change(unread=(*selection().unread, sentence))


def forget_unread() -> None:
    """The user has chosen something: what the address had asked for in vain need not be said any more."""
    change(unread=())


def read_url() -> None:
    """Take the selection from the URL on the first visit, and when someone has changed the URL since."""
    query = st.query_params.to_dict()
    if _SELECTION not in st.session_state or (query and query != st.session_state.get(_WRITTEN)):
        st.session_state[_SELECTION] = Selection.from_query(query)


def write_url() -> None:
    """Put the selection into the URL, so that a link shows the same view."""
    query = selection().to_query()
    if query != st.query_params.to_dict():
        st.query_params.from_dict(query)
    st.session_state[_WRITTEN] = query


def root() -> str:
    """The folder, or the URL, that the app was started on."""
    return sys.argv[1] if len(sys.argv) > 1 else DEFAULT_ROOT


def runs(place: str | Path) -> dict[str, Path]:
    """The runs at a root by name, newest first; behind a URL, their local copies in the order of their names.

    Only what lies inside the root is listed, whatever a link in it or the URL says, and only what is listed is opened.
    """
    if is_url(place):
        return {path.name: path for path in _mirrors(str(place))}
    at = Path(place)
    inside = at.resolve()
    by_name = {}
    for path in find_runs(at):
        whole = path.resolve()
        if whole == inside or inside in whole.parents:
            by_name[whole.name] = path
    return by_name


@st.cache_data(show_spinner="Looking for runs …", ttl=_SECONDS, max_entries=4)
def _mirrors(url: str) -> list[Path]:
    """Local copies of the runs behind a URL, of which only the manifest has come."""
    return mirrors_of_root(url)
