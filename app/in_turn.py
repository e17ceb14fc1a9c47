"""A page in two parts: what is looked at first, and the rest once the browser has painted that.

Plotly draws all the pictures that a page has before the browser paints any of them. So a page that is opened and has
more than fits a window ends after its first picture or table, with a button that nobody sees; `look.REST` presses it
when that is painted, and the page runs again, to its end. Whatever is chosen on it then is drawn in one.
"""

from __future__ import annotations

import streamlit as st

_PAGE, IS_WHOLE = "page-opened", "page-is-whole"


def begin(page: str) -> None:
    """Forget that the page was whole where another one has been opened since."""
    if st.session_state.setdefault(_PAGE, page) != page:
        st.session_state[_PAGE] = page
        st.session_state.pop(IS_WHOLE, None)


def pause() -> None:
    """End the page here for now, unless its first part has been painted."""
    if not is_whole():
        st.button("Draw the rest of the page", key=f"draw-rest-{st.session_state[_PAGE]}", on_click=go_on)
        st.stop()


def is_whole() -> bool:
    """Whether the first part of this page has been painted, so that it is drawn to its end."""
    return bool(st.session_state.get(IS_WHOLE))


def go_on() -> None:
    """From now on, draw the whole page."""
    st.session_state[IS_WHOLE] = True
