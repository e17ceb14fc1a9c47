"""A figure as a PDF: the browser sends the SVG that it drew, the app's Chromium prints it, the browser saves it.

The PDF is of what is on the screen, its zoom and its camera with it, and carries the fonts that it uses.
"""

from __future__ import annotations

import base64
from typing import Any

import streamlit as st

from app import components, widgets
from probes.plots.browser import find_browser, to_pdf

AS_PDF = "as-pdf"  # `look.FONTS` looks for it
NO_BROWSER = (
    "A PDF is printed by a Chromium or Chrome on the machine that runs the app, and there is none; an SVG is saved "
    "instead. It holds the same lines and the same fonts."
)
_KEY, _SENT = "pdf-printer", "pdf-sent"
_PRINTER = """
export default function ({data, setTriggerValue}) {
  const printed = window.gravityPrinted = window.gravityPrinted || new Set();
  if (data && data.pdf && !printed.has(data.number)) {
    printed.add(data.number);
    const content = Uint8Array.from(atob(data.pdf), sign => sign.charCodeAt(0));
    const detail = {content, name: `${data.name}.pdf`, type: "application/pdf"};
    document.dispatchEvent(new CustomEvent("gravity-file", {detail}));
  }
  const send = event => setTriggerValue("drawing", {...event.detail, number: `${Date.now()}`});
  document.addEventListener("gravity-svg", send);
  return () => document.removeEventListener("gravity-svg", send);
}
"""
_printer = st.components.v2.component("gravity_pdf", js=_PRINTER)


def choose_pdf() -> None:
    """Where PDF is chosen in the sidebar, have the figures' own buttons save one, or say why they cannot."""
    if widgets.SAVE.chosen() != "pdf":
        return
    if find_browser() is None:
        components.note(NO_BROWSER)
        return
    with st.container(key=AS_PDF):
        _print()


@st.fragment
def _print() -> None:
    """Print what the browser has sent, and send it back once."""
    drawing = st.session_state.pop(_SENT, None)
    page: dict[str, Any] = {}
    if drawing is not None:
        with st.spinner("Printing the PDF …", show_time=False):
            pdf = to_pdf(str(drawing.get("svg")), find_browser() or "")
        if pdf:
            page = {
                "pdf": base64.b64encode(pdf).decode(),
                "name": str(drawing.get("name")),
                "number": str(drawing.get("number")),
            }
        else:
            st.warning("The PDF could not be printed; save the figure as SVG.")
    _printer(key=_KEY, data=page, on_drawing_change=_keep_drawing)


def _keep_drawing() -> None:
    drawing: Any = (st.session_state.get(_KEY) or {}).get("drawing")
    if isinstance(drawing, dict):
        st.session_state[_SENT] = drawing
