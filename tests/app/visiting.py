"""A visitor of the front end without a browser."""

from streamlit.testing.v1 import AppTest

from app import in_turn
from tests.app.serving import MAIN


def visitor(query=None, timeout=120):
    """The app before its first run, at an address; its first page is drawn to its end at once."""
    at = AppTest.from_file(str(MAIN), default_timeout=timeout)
    at.session_state[in_turn.IS_WHOLE] = True
    for name, value in (query or {}).items():
        at.query_params[name] = value
    return at


def turn_to(at, page):
    """Another page, drawn to its end, as a browser asks for it."""
    return draw_rest(at.switch_page(page).run())


def draw_rest(at):
    """The same page to its end, where it has ended after its first pictures."""
    for button in at.button:
        if str(button.key).startswith("draw-rest"):
            return button.click().run()
    return at
