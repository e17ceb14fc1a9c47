"""Every page by axe-core: nothing serious or critical, light and dark."""

from importlib.resources import files

import pytest

from tests.app.serving import CHROMIUM, MAIN, PATIENCE, settle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)"),
]
GRAVE = ("serious", "critical")
PAGES = sorted(path.stem for path in (MAIN.parent / "views").glob("[a-z]*.py"))


@pytest.fixture(scope="module")
def page(served_demo, browser):
    shown = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
    shown.set_default_timeout(PATIENCE)
    shown.goto(f"{served_demo}/?run=demo-run")
    return shown


def _findings(page):
    """The grave findings of the page as it stands, as rule and element."""
    if not page.evaluate("'axe' in window"):
        page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    result = page.evaluate("async () => await axe.run(document, {resultTypes: ['violations']})")
    return [
        (violation["id"], node["target"], node["failureSummary"])
        for violation in result["violations"]
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_grave_finding_light_or_dark(page, name):
    page.emulate_media(color_scheme="light")
    page.get_by_role("link", name=name.capitalize(), exact=True).click()
    page.locator(".gp-kicker").get_by_text(name.capitalize(), exact=True).wait_for()
    page.get_by_text("Save figures as").wait_for()
    settle(page)
    light = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    assert _findings(page) == []
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "was => getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor !== was", arg=light
    )
    settle(page)
    assert _findings(page) == []


def test_a_grave_finding_is_found(page):
    settle(page)
    page.evaluate(
        "document.querySelector('[data-testid=stMainBlockContainer]')"
        ".insertAdjacentHTML('afterbegin', '<p style=\"color:#bbb;background:#fff\">pale</p>')"
    )
    assert any(rule == "color-contrast" for rule, _, _ in _findings(page))
