"""Every page, on a desk and on a phone, in light and in dark: nothing serious by axe-core, and it fits its width."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import AXE, Visit

PAGES = ("", "monitor", "dataset?folder=sample:quickstart", "recipe", "playground", "export")
SERIOUS = ("serious", "critical")


def findings(tab: Any) -> list[str]:
    """Return what axe-core finds serious: the rule, and where."""
    # Evaluated, not added as a script: the page's own policy lets no other script in.
    tab.evaluate(AXE.read_text("utf-8"))
    result = tab.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']} ({each['impact']}): {node['target']} {node['html'][:160]}"
        for each in result["violations"]
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: make test fetches it where npm is")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: Callable[..., Visit], scheme: str, finished_run: Callable[..., Any]) -> None:
    page = visit(scheme=scheme)
    finished_run(page.folder)
    found = []
    for place in PAGES:
        page.open(place)
        page.tab.wait_for_timeout(2500)
        found += [f"/{place}: {finding}" for finding in findings(page.tab)]
    assert not found, "\n".join(found)


def test_nothing_is_wider_than_a_phone(visit: Callable[..., Visit], finished_run: Callable[..., Any]) -> None:
    page = visit(width=390, height=844)
    finished_run(page.folder)
    for place in PAGES:
        page.open(place)
        page.tab.wait_for_timeout(2000)
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 390, place
