"""The report of the labs as a person sees it: the index, and each lab it links to. `make labs` has written it before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page

REPORTS = Path(__file__).resolve().parents[2] / "reports"


@pytest.fixture
def index(page: Page) -> Page:
    """The report's first page."""
    path = REPORTS / "index.html"
    if not path.exists():
        pytest.fail("There is no report; run `make labs` first.")
    page.goto(path.as_uri())
    return page


def test_index_names_every_lab_and_shows_its_figures(index: Page) -> None:
    summary = json.loads((REPORTS / "summary.json").read_text())
    text = index.inner_text("body")
    for lab in summary["labs"]:
        assert lab["title"] in text
    images = index.locator("img")
    assert images.count() > 0
    for i in range(images.count()):
        images.nth(i).scroll_into_view_if_needed()
        assert images.nth(i).evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


def test_every_lab_opens_from_the_index(index: Page) -> None:
    links = [a.get_attribute("href") or "" for a in index.locator("a[href$='.html']").all()]
    assert links
    for href in dict.fromkeys(links):
        index.goto((REPORTS / "index.html").as_uri())
        index.locator(f"a[href='{href}']").first.click()
        assert index.locator("h1").first.inner_text()
        assert index.evaluate("document.documentElement.scrollWidth") <= 1200, (
            f"{href} is wider than the window"
        )


def test_a_narrow_window_needs_no_scrolling_to_the_side(index: Page) -> None:
    index.set_viewport_size({"width": 420, "height": 800})
    assert index.evaluate("document.documentElement.scrollWidth") <= 420
