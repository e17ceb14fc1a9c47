"""The pages' own colours, by WCAG's formula: small type at least 4.5 to 1, light and dark."""

import re
import tomllib
from pathlib import Path

import pytest

from app import look
from tests.plots.contrast import blend, contrast

APP = Path(__file__).parents[2] / "app"
THEME = tomllib.loads((APP / ".streamlit" / "config.toml").read_text())["theme"]
_TINT = 0.1  # of the primary colour, behind the name of a selected button


@pytest.mark.parametrize("ink", ["light", "dark"])
@pytest.mark.parametrize("page", ["backgroundColor", "secondaryBackgroundColor"])
def test_a_selected_button_can_be_read(ink, page):
    primary, background = THEME[ink]["primaryColor"], THEME[ink][page]
    assert contrast(primary, blend(primary, background, _TINT)) >= 4.5


@pytest.mark.parametrize("ink", ["light", "dark"])
def test_quiet_type_can_be_read(ink):
    faint = {float(share) for share in re.findall(r"opacity: ?(0?\.\d+)", look.CSS)}
    assert faint
    for opacity in faint:
        for page in ("backgroundColor", "secondaryBackgroundColor"):
            background = THEME[ink][page]
            assert contrast(blend(THEME[ink]["textColor"], background, opacity), background) >= 4.5, (opacity, page)


def test_no_table_has_a_header_without_words():
    for file in (APP / "views").glob("*.py"):
        assert "<th></th>" not in file.read_text()


def test_headings_leave_out_no_level():
    """A page has one title (h1); what stands below it is h2, and nothing skips to h3."""
    for file in [*APP.glob("*.py"), *(APP / "views").glob("*.py")]:
        assert "st.subheader(" not in file.read_text(), file.name
