"""A page in two parts: what is looked at first, and the rest once the browser has painted that.

Plotly draws all the pictures that a page has before the browser paints any of them. So a page that is opened and has
more than fits a window ends after its first picture or table, with a button that nobody sees; `SCRIPT` presses it
when that is painted, and the page runs again, to its end. Whatever is chosen on it then is drawn in one.
"""

from __future__ import annotations

import streamlit as st

_PAGE, IS_WHOLE = "page-opened", "page-is-whole"
# This asks for the rest of a page once its first part is painted, or cannot be, and again should the answer not come;
# never while the page runs, which would begin anew, nor on the way to another page, from which it would call back.
SCRIPT = """
<script>
(() => {
  if (window.gravityRest) return;
  window.gravityRest = true;
  const patience = 3000;
  let button = null, seen = 0, asked = -patience, left = -patience;
  const leave = () => { left = performance.now(); };
  const isBusy = () => {
    const state = document.querySelector("[data-testid=stApp]").dataset.testScriptState;
    return state === "running" || /Requested$/.test(state);
  };
  const look = () => {
    const own = document.querySelector("[class*='st-key-draw-rest'] button"), now = performance.now();
    if (own !== button) [button, seen, asked, left] = [own, now, -patience, -patience];
    if (!own || document.hidden || now - Math.max(asked, left) < patience || isBusy()) return;
    const charts = Array.from(document.querySelectorAll("[class*='st-key-chart-']"));
    const areDrawn = charts.every(chart => chart.querySelector(".main-svg"));
    const isAwaited = document.querySelector("[data-testid=stMain] [data-testid=stSkeleton]");  // by a table
    if ((!areDrawn || isAwaited) && now - seen < patience) return;
    asked = now;
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (own === button && performance.now() - left >= patience) own.click();
    }));
  };
  document.addEventListener("click", event => event.target.closest && event.target.closest("a") && leave(), true);
  window.addEventListener("popstate", leave);
  setInterval(look, 50);
})();
</script>
"""


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
