"""Small HTML for notebooks: a box with a headline, lines and tables, readable on light and dark pages.

Text and background are the page's own; lines are grey and half transparent, and only marks have a colour.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

GOOD, WARN, BAD = "#2a9d4a", "#c77d00", "#d1495b"
_COLOURS = {
    **dict.fromkeys(("running", "ready", "True", "ok"), GOOD),
    **dict.fromkeys(("degraded", "starting", "backoff", "stopped", "incomplete", "Unknown"), WARN),
    **dict.fromkeys(("failed", "damaged", "False"), BAD),
}
_EDGE = "rgba(128,128,128,.4)"
_CELL = f"padding:.15em .9em .15em 0;text-align:left;border-bottom:1px solid {_EDGE}"


def box(title: str, *parts: str, state: str = "") -> str:
    """A box.

    Args:
        title: its headline, as plain text.
        parts: what stands below it: HTML that the functions here give.
        state: one word, whose colour the mark beside the headline has.
    """
    edge = _COLOURS.get(state, _EDGE)
    style = f"border-left:4px solid {edge};padding:.4em .9em;margin:.3em 0;line-height:1.45;max-width:60em"
    head = f"<strong>{html.escape(title)}</strong>"
    return f'<div class="labkit-box" style="{style}">{head}{"".join(parts)}</div>'


def line(text: str, *, warning: bool = False) -> str:
    """A line of plain text, which may have several."""
    style = f"color:{WARN};font-weight:600" if warning else "opacity:.85"
    return f'<div style="{style};white-space:pre-wrap">{html.escape(text)}</div>' if text else ""


def bullets(texts: Iterable[str]) -> str:
    """A list of plain texts."""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
    return f'<ul style="margin:.2em 0 .2em 1.2em;padding:0">{items}</ul>' if items else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of plain values; a word that names a state has its colour."""
    body = "".join(
        f"<tr>{_cell(row[0], ';white-space:nowrap')}{''.join(map(_cell, row[1:]))}</tr>" for row in rows
    )
    if not body:
        return ""
    titles = columns if any(columns) else ()
    head = "".join(f'<th style="{_CELL};opacity:.7;font-weight:400">{html.escape(c)}</th>' for c in titles)
    style = "border-collapse:collapse;background:none;color:inherit;font:inherit;margin:.3em 0"
    return f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(value: object, style: str = "") -> str:
    text = str(value)
    if text in _COLOURS:
        style += f";color:{_COLOURS[text]};font-weight:600"
    return f'<td style="{_CELL}{style}">{html.escape(text)}</td>'
