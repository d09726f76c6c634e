"""Small HTTP visits for notebooks: get, post, and a page shown as it looks."""

from __future__ import annotations

import html
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request

from labkit.errors import LabkitError
from labkit.kube.direct import opener

TIMEOUT_S = 10.0


class VisitError(LabkitError):
    """Nobody answered at a URL."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, whatever its status.

    Attributes:
        headers: by lower-case name.
    """

    url: str
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)

    def __repr__(self) -> str:
        return f"{self.status} {self.text.strip()}"


@dataclass(frozen=True)
class PageView:
    """A page in a frame of its own, so that neither its style nor its links reach the notebook."""

    answer: Answer
    height: int

    def __repr__(self) -> str:
        return f"{self.answer.status}, a page of {len(self.answer.text)} characters from {self.answer.url}"

    def _repr_html_(self) -> str:
        # Three quarters of its size: a notebook is narrower than a browser.
        frame = f"width:133.4%;height:{round(self.height / 0.75)}px;border:0"
        small = "transform:scale(.75);transform-origin:0 0"
        box = f"height:{self.height}px;overflow:hidden;border:1px solid #cfd5dd;border-radius:6px"
        page = html.escape(self.answer.text)
        return f'<div style="{box}"><iframe sandbox srcdoc="{page}" style="{frame};{small}"></iframe></div>'


def get(url: str, **headers: str) -> Answer:
    """GET; underscores in header names stand for hyphens.

    Raises:
        VisitError: no answer within 10 s.
    """
    return _visit(Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()}))


def post(url: str, body: Any) -> Answer:
    """POST a JSON body.

    Raises:
        VisitError: no answer within 10 s.
    """
    data = json.dumps(body).encode()
    return _visit(Request(url, data, {"Content-Type": "application/json"}, method="POST"))


def crash_again(url: str, times: int, limit_s: float = 300) -> list[float]:
    """Crash the program behind a URL as often, as soon as it answers; the seconds that each crash waited.

    Raises:
        VisitError: it does not answer within `limit_s`.
    """
    waited = []
    for _ in range(times):
        begin = time.monotonic()
        while not _answers(url):
            if time.monotonic() > begin + limit_s:
                raise VisitError(f"{url} has not answered for {limit_s:.0f} s.", "Is its pod Ready?")
            time.sleep(0.5)
        waited.append(round(time.monotonic() - begin, 1))
        with suppress(VisitError):
            get(f"{url}/crash")
    return waited


def _answers(url: str) -> bool:
    try:
        return get(url).status == 200
    except VisitError:
        return False


def show(url: str, height: int = 420, **headers: str) -> PageView:
    """A page as a browser shows it, as it is now; headers as for `get`.

    Raises:
        VisitError: no answer within 10 s.
    """
    return PageView(get(url, **headers), height)


def _visit(request: Request) -> Answer:
    try:
        response = opener(request.full_url).open(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        response = error
    except (URLError, OSError) as error:
        raise VisitError(f"{request.full_url} does not answer: {error}", "Is its pod Ready?") from None
    with response:
        text = response.read().decode(errors="replace")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(request.full_url, response.status, headers, text)
