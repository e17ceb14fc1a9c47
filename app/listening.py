"""What the browser tells the app of a picture: how it has been turned, zoomed or played there (`look.CAMERAS`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

_LISTEN = """
export default function ({data, setTriggerValue}) {
  let waiting;
  const hear = event => {
    if (event.detail.picture !== data.picture) return;
    clearTimeout(waiting);
    waiting = setTimeout(() => setTriggerValue("view", event.detail.view), data.wait);
  };
  document.addEventListener(data.event, hear);
  return () => {
    clearTimeout(waiting);
    document.removeEventListener(data.event, hear);
  };
}
"""
_listener = st.components.v2.component("gravity_listener", js=_LISTEN)


def listen(kind: str, picture: str, keep: Callable[[Any], None], *, wait: int = 300) -> None:
    """Call `keep` with what the browser says of a picture, as it was sent, once it has said nothing else for a while.

    Args:
        kind: of view: `camera`, `zoom` or `frame`.
        picture: its name.
        keep: called before the page is drawn anew.
        wait: for how long, in milliseconds.
    """
    key = f"{kind}-{picture}"

    def forward() -> None:
        keep((st.session_state.get(key) or {}).get("view"))

    _listener(key=key, data={"event": f"gravity-{kind}", "picture": picture, "wait": wait}, on_view_change=forward)
