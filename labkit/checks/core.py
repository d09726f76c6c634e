"""Findings, results, and the loop that repeats a check until its deadline."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from labkit.errors import CheckFailed, LabkitError

MIME = "application/vnd.labkit.check+json"
"""Media type under which a result travels in a notebook's outputs; the runner reads it from there."""

_PROVING: ContextVar[bool] = ContextVar("labkit_proving", default=False)


@dataclass(frozen=True)
class Finding:
    """One thing a check looked at.

    Attributes:
        text: what is expected, as a statement ("worker-3 is Ready").
        ok: whether it is so.
        hint: what was seen instead, and where to look; empty when ok.
        key: of an exercise's finding: which of its hints says what is wrong; "" when ok, or for none.
    """

    text: str
    ok: bool
    hint: str = ""
    key: str = ""


def expect(ok: bool, text: str, hint: str = "", key: str = "") -> Finding:
    """A finding; hint and key are dropped when the expectation is met."""
    return Finding(text, bool(ok), "" if ok else hint, "" if ok else key)


@dataclass(frozen=True)
class CheckResult:
    """What a check found at its last look.

    Attributes:
        seconds: from the first look to the last.
        attempts: how many times it looked.
    """

    id: str
    title: str
    findings: tuple[Finding, ...]
    attempts: int
    seconds: float

    @property
    def passed(self) -> bool:
        """True when there was at least one finding and every one is ok."""
        return bool(self.findings) and all(f.ok for f in self.findings)

    @property
    def hints(self) -> list[str]:
        """One line per finding that is not ok."""
        return [f"✘ {f.text}. {f.hint}".rstrip() for f in self.findings if not f.ok]

    @property
    def missing(self) -> list[str]:
        """Keys of what is not met, in the order of the findings."""
        return [f.key for f in self.findings if not f.ok and f.key]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form, as the runner and the report use it."""
        return {**asdict(self), "findings": [asdict(f) for f in self.findings], "passed": self.passed}

    def __str__(self) -> str:
        mark = "✔" if self.passed else "✘"
        lines = [f"{mark} {self.title} ({self.id}, {self.seconds:.1f} s)"]
        for finding in self.findings:
            lines.append(f"   {'✔' if finding.ok else '✘'} {finding.text}")
            if finding.hint:
                lines.append(f"     ↳ {finding.hint}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return _as_html(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {"text/plain": str(self), "text/html": self._repr_html_(), MIME: self.as_dict()}


class StepNotDone(CheckFailed):
    """A failure as a notebook shows it: the box above it has the details, so the traceback is one line."""

    def __init__(self, result: CheckResult) -> None:
        missing = sum(not f.ok for f in result.findings)
        super().__init__(
            f"{result.title}: {missing} of {len(result.findings)} not met after {result.seconds:.0f} s.",
            " ".join(result.hints),
        )
        self.result = result

    def _render_traceback_(self) -> list[str]:
        return [f"CheckFailed: {self.message} The box above says what was seen."]


def look(findings: Callable[[], Iterable[Finding]]) -> tuple[Finding, ...]:
    """Collect findings once; an error labkit raises on purpose becomes a finding that is not ok."""
    collected: list[Finding] = []
    try:
        collected.extend(findings())
    except LabkitError as error:
        said = f"{error.message} {error.hint}".strip()
        collected.append(Finding("the cluster answers the question", False, said))
    return tuple(collected)


def repeat(
    check_id: str,
    title: str,
    findings: Callable[[], Iterable[Finding]],
    *,
    deadline_s: float,
    every_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> CheckResult:
    """Look until all is well or `deadline_s` is over; while proving, look once."""
    started, attempts = clock(), 0
    limit = 0.0 if _PROVING.get() else deadline_s
    while True:
        attempts += 1
        found = look(findings)
        took = clock() - started
        result = CheckResult(check_id, title, found, attempts, round(took, 3))
        if result.passed or took + every_s > limit:
            return result
        sleep(every_s)


def is_proving() -> bool:
    """True inside `prove`: a check must raise when its step is not done."""
    return _PROVING.get()


@contextmanager
def proving() -> Iterator[None]:
    """Within it every check looks once and raises CheckFailed where it would have waited."""
    token = _PROVING.set(True)
    try:
        yield
    finally:
        _PROVING.reset(token)


def prove(source: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Execute a check's cell before its step is done, and tell whether it fails as it must.

    Args:
        source: the cell's Python source.
        namespace: the notebook's variables; not changed.

    Returns:
        {"fails": bool, "said": str, "missing": list[str]}: `fails` is True only for CheckFailed; neither
        success nor another error is a proof. `missing` are the keys of what is not met, see Finding.
    """
    with proving():
        try:
            exec(compile(source, "<check>", "exec"), dict(namespace))
        except CheckFailed as failure:
            missing = failure.result.missing if isinstance(failure, StepNotDone) else []
            return {"fails": True, "said": str(failure), "missing": missing}
        except Exception as error:
            return {"fails": False, "said": f"{type(error).__name__}: {error}", "missing": []}
    return {"fails": False, "said": "the check passes although its step is not done", "missing": []}


def prove_wrong(source: str, namespace: dict[str, Any], key: str, deadline_s: float) -> dict[str, Any]:
    """Execute a check's cell after a wrong answer, and tell whether it fails with the hint for it.

    What a wrong answer leads to may show late (a pod that crashes), so it looks until `deadline_s`.

    Args:
        key: of the hint; it must be the first of what is missing, as that is the one which a learner gets.

    Returns:
        As `prove` does; "fails" is True only with that hint.
    """
    end = time.monotonic() + deadline_s
    while True:
        found = prove(source, namespace)
        if found["fails"] and found["missing"][:1] == [key]:
            return found
        if time.monotonic() > end:
            drawn = found["missing"][:1]
            told = f"it drew the hint {drawn[0]!r}" if drawn else "it drew no hint"
            return {**found, "fails": False, "said": f"{told}, not {key!r}: {found['said']}"}
        time.sleep(0.5)


def prove_right(source: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Execute a check's cell once more, as a learner would.

    Returns:
        {"passes": bool, "said": str}.
    """
    try:
        exec(compile(source, "<check>", "exec"), dict(namespace))
    except Exception as error:
        return {"passes": False, "said": f"{type(error).__name__}: {error}"}
    return {"passes": True, "said": ""}


GOOD, BAD = "#2a9d4a", "#c05fb0"
BOX = "padding:.55em .9em;margin:.3em 0;border-radius:3px;line-height:1.45;max-width:60em"
"""Text has the page's colour, and grounds let the page shine through: both do on light and dark pages."""


def _as_html(result: CheckResult) -> str:
    edge, word = (GOOD, "done") if result.passed else (BAD, "not yet")
    rows = [f"<strong>{html.escape(result.title)}</strong>: {word}"]
    for finding in result.findings:
        colour, mark = (GOOD, "✔") if finding.ok else (BAD, "✘")
        rows.append(f'<div><span style="color:{colour}">{mark}</span> {html.escape(finding.text)}</div>')
        if finding.hint:
            rows.append(f'<div style="margin:0 0 .3em 1.5em;opacity:.85">{html.escape(finding.hint)}</div>')
    about = f"{html.escape(result.id)} · {result.seconds:.1f} s"
    rows.append(f'<div style="opacity:.7;font-size:.85em">{about}</div>')
    style = f"border-left:4px solid {edge};background:{edge}1c;{BOX}"
    return f'<div class="labkit-check" style="{style}">{"".join(rows)}</div>'
