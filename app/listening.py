"""What the browser tells the app of a picture: how it has been turned or zoomed there (`look.CAMERAS`)."""

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
    waiting = setTimeout(() => setTriggerValue("view", event.detail.view), 300);
  };
  document.addEventListener(data.event, hear);
  return () => {
    clearTimeout(waiting);
    document.removeEventListener(data.event, hear);
  };
}
"""
_listener = st.components.v2.component("gravity_listener", js=_LISTEN)


def listen(kind: str, picture: str, keep: Callable[[Any], None]) -> None:
    """Call `keep` with what the browser says of a picture's `kind` of view, `camera` or `zoom`, as it was sent."""
    key = f"{kind}-{picture}"

    def forward() -> None:
        keep((st.session_state.get(key) or {}).get("view"))

    _listener(key=key, data={"event": f"gravity-{kind}", "picture": picture}, on_view_change=forward)
