"""The page, rendered on the server: one HTML document, no script, nothing to fetch."""

from __future__ import annotations

import uuid
import zlib
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from chassis.settings import Settings
from frontend.shop import Window
from frontend.upstream import Answer

# Okabe and Ito's colours, which people with any colour vision tell apart: v1 blue, v2 orange, v3 green …
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
}


class Page:
    """Renders; knows of this pod what the page shows of it."""

    def __init__(self, settings: Settings) -> None:
        self._me = Answer("frontend", 200, pod=settings.pod, version=settings.version)
        templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        templates.filters |= {"euros": euros, "colour": colour}
        self._window, self._message = (
            templates.get_template("window.html"),
            templates.get_template("message.html"),
        )

    def window(self, window: Window, receipt: Answer | None) -> HTMLResponse:
        """The shop window; 503 where there is nothing to sell."""
        notices = []
        if not window.catalog.ok:
            notices.append(("The catalogue does not answer, so there is nothing to show.", window.catalog))
        elif not window.pricing.ok:
            notices.append(("Live prices are missing, so list prices hold. Ordering works.", window.pricing))
        if not window.orders.ok:
            notices.append(("Orders cannot be taken at the moment.", window.orders))
        html = self._window.render(
            me=self._me,
            window=window,
            receipt=receipt,
            notices=notices,
            key=uuid.uuid4().hex,
            answers=[self._me, window.catalog, window.pricing, window.orders],
        )
        return HTMLResponse(html, 200 if window.catalog.ok else 503, HEADERS)

    def message(self, status: int, text: str) -> HTMLResponse:
        """A page that says what went wrong and leads back."""
        return HTMLResponse(self._message.render(me=self._me, text=text), status, HEADERS)


def euros(cents: int) -> str:
    """1250 → "€12.50"."""
    return f"€{cents // 100:,}.{cents % 100:02d}"


def colour(version: Any) -> str:
    """The colour of a version: v1, v2, … in order, any other name by its checksum."""
    digits = str(version).removeprefix("v").partition(".")[0]
    number = int(digits) - 1 if digits.isdigit() else zlib.crc32(str(version).encode())
    return COLOURS[number % len(COLOURS)]
