"""Slides of lab 00 as a speaker uses them: keys, notes, a second window, light and dark. `make labs` has run the lab before."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from labkit.labs.slides import executed_lab, write_slides

ROOT = Path(__file__).resolve().parents[2]


def slides_of(lab: str, folder: Path) -> Path:
    """The slides of a lab of the report."""
    target = folder / f"{lab}.html"
    write_slides(executed_lab(lab, ROOT / "reports"), target, ROOT / "notebooks")
    return target


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slides of lab 00."""
    return slides_of("00", tmp_path_factory.mktemp("slides"))


@pytest.fixture
def shown(page: Page, slides: Path) -> Page:
    """Its first slide."""
    page.goto(slides.as_uri())
    return page


def place(page: Page) -> tuple[int, int]:
    number, _, total = page.inner_text("#place").partition(" / ")
    return int(number), int(total)


def ground(page: Page) -> int:
    """How light the page is, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))


@pytest.mark.parametrize("lab", ["00", "08"])
def test_keys_go_through_all_slides_each_of_which_fits_the_screen(
    lab: str, page: Page, tmp_path: Path
) -> None:
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(slides_of(lab, tmp_path).as_uri())
    _, total = place(page)
    assert total > 10
    for number in range(1, total + 1):
        assert place(page) == (number, total)
        slide = page.locator("section.now")
        assert slide.count() == 1 and (slide.inner_text().strip() or slide.locator("img").count())
        wide, tall = slide.evaluate("s => [s.scrollWidth - s.clientWidth, s.scrollHeight / s.clientHeight]")
        assert wide <= 0 and tall < 1.35, slide.inner_text()
        for image in slide.locator("img").all():
            assert image.get_attribute("alt") and image.evaluate("i => i.naturalWidth") > 100
        page.keyboard.press("ArrowRight")
    assert place(page)[0] == total


def test_keys_lead_back_and_a_reload_stays(shown: Page) -> None:
    shown.keyboard.press("Space")
    shown.keyboard.press("Space")
    shown.keyboard.press("ArrowLeft")
    assert place(shown)[0] == 2
    shown.reload()
    assert place(shown)[0] == 2
    shown.keyboard.press("End")
    assert place(shown)[0] == place(shown)[1]
    shown.keyboard.press("Home")
    assert place(shown)[0] == 1


def test_a_class_sees_neither_setup_nor_solutions(shown: Page) -> None:
    text = shown.locator("#slides").evaluate(
        "m => { const c = m.cloneNode(true); c.querySelectorAll('aside').forEach(a => a.remove()); return c.textContent; }"
    )
    assert "import labkit" not in text and "Clean up" not in text and "BEGIN SOLUTION" not in text
    assert "YOUR TURN" in text and "targetPort: 8080" not in text


def test_notes_and_the_speakers_window_follow_the_slides(shown: Page) -> None:
    shown.keyboard.press("n")
    while "YOUR TURN" not in shown.inner_text("section.now"):
        assert "No notes" in shown.inner_text("#panel")
        shown.keyboard.press("ArrowRight")
    assert "targetPort: 8080" in shown.inner_text("#panel")
    with shown.expect_popup() as opened:
        shown.keyboard.press("s")
    speaker = opened.value
    assert "Usual mistakes" in speaker.inner_text("#notes")
    before = place(shown)[0]
    speaker.keyboard.press("ArrowRight")
    assert place(shown)[0] == before + 1
    assert speaker.inner_text("#now").startswith(f"{before + 1} / ")


def test_light_and_dark_follow_the_system_and_a_key(slides: Path, page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(slides.as_uri())
    assert ground(page) < 60
    page.keyboard.press("d")
    assert ground(page) > 200
    page.keyboard.press("d")
    assert ground(page) < 60


def test_the_outline_leads_to_a_section(shown: Page) -> None:
    shown.keyboard.press("o")
    links = shown.locator("#list a")
    assert links.count() > 5
    last = links.last
    number = int((last.get_attribute("href") or "#0")[1:])
    last.focus()
    shown.keyboard.press("Enter")
    assert place(shown)[0] == number and not shown.locator("#list").is_visible()


def test_a_small_window_can_read_it(shown: Page) -> None:
    shown.set_viewport_size({"width": 420, "height": 800})
    assert shown.evaluate("document.documentElement.scrollWidth") <= 420
    shown.click("#bar [data-act=next]")
    assert place(shown)[0] == 2
