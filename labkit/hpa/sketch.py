"""Time series as SVG, in the labs' style: drawn in a few milliseconds, so that sliders can redraw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from labkit.plots.style import GREY, INK

WIDTH: Final = 900
LEFT, RIGHT, GAP, HEAD, FOOT = 62, 76, 34, 74, 40


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One series; `how` is line, steps (held until the next point) or area (down to zero)."""

    name: str
    colour: str
    y: NDArray[Any]
    how: str = "line"
    width: float = 1.8


@dataclass(frozen=True, slots=True)
class Panel:
    """Series that share a y-axis from zero; `levels` are dashed horizontal lines (y, colour)."""

    heading: str
    lines: Sequence[Line]
    height: int = 120
    top: float | None = None
    whole: bool = False
    levels: Sequence[tuple[float, str]] = field(default=())

    @property
    def limit(self) -> float:
        """The y-axis' upper end."""
        if self.top is not None:
            return self.top
        peaks = [float(np.nanmax(line.y)) for line in self.lines] + [y for y, _ in self.levels]
        return max([*peaks, 1e-9]) * 1.06


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """Stacked panels over one x-axis; notebooks show it as it is.

    Args:
        x: the points' places on the x-axis, rising.
        x_label: what `x` is, with its unit.
    """

    title: str
    subtitle: str
    x: NDArray[Any]
    x_label: str
    panels: Sequence[Panel]

    def _repr_svg_(self) -> str:
        return self.svg()

    def svg(self) -> str:
        """The picture as SVG text."""
        body, y = [], HEAD
        for panel in self.panels:
            body.append(self._panel(panel, y))
            y += panel.height + GAP
        height = y - GAP + FOOT
        body.append(self._x_axis(y - GAP))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'style="max-width:100%;background:white" role="img" font-family="DejaVu Sans, sans-serif" '
            f'font-size="12" aria-label="{escape(self.title)}">'
            f"{_text(LEFT, 26, self.title, INK, size=17, weight='bold')}"
            f"{_text(LEFT, 46, self.subtitle, GREY)}{''.join(body)}</svg>"
        )

    def _column(self, x: NDArray[Any]) -> NDArray[Any]:
        first, last = float(self.x[0]), float(self.x[-1])
        span = (last - first) or 1.0
        return LEFT + (np.asarray(x, dtype=float) - first) / span * (WIDTH - LEFT - RIGHT)

    def _panel(self, panel: Panel, top: int) -> str:
        bottom, limit, end = top + panel.height, panel.limit, WIDTH - RIGHT
        parts = [_text(LEFT, top - 8, panel.heading, INK)]
        for tick in MaxNLocator(nbins=4, integer=panel.whole, steps=[1, 2, 5, 10]).tick_values(0, limit):
            if 0 <= tick <= limit * 1.001:
                y = bottom - tick / limit * panel.height
                parts.append(_rule(LEFT, end, y, "#999999" if tick == 0 else "#E6E6E6"))
                parts.append(_text(LEFT - 8, y + 4, f"{tick:g}", GREY, anchor="end"))
        for level, colour in panel.levels:
            y = bottom - level / limit * panel.height
            parts.append(_rule(LEFT, end, y, colour, dashes="5 4"))
        for line in panel.lines:
            parts.append(self._line(line, bottom, panel.height / limit))
        return "".join([*parts, self._names(panel, bottom)])

    def _names(self, panel: Panel, bottom: float) -> str:
        """The series' names at their ends, moved apart where they would touch."""
        scale = panel.height / panel.limit
        named = [line for line in panel.lines if line.name]
        ends = sorted(((bottom - float(line.y[-1]) * scale, line) for line in named), key=lambda end: end[0])
        parts, last = [], -1e9
        for y, line in ends:
            last = max(y, last + 14)
            parts.append(_text(WIDTH - RIGHT + 7, last + 4, line.name, line.colour))
        return "".join(parts)

    def _line(self, line: Line, bottom: float, scale: float) -> str:
        x, y = _thin(self._column(self.x), np.nan_to_num(line.y), line.how)
        y = bottom - np.clip(y, 0, None) * scale
        if line.how == "area":
            shape = f"M{x[0]:.1f} {bottom:.1f}{_path(x, y, 'L')}L{x[-1]:.1f} {bottom:.1f}Z"
            return f'<path d="{shape}" fill="{line.colour}" fill-opacity="0.45"/>'
        if line.how == "steps":
            x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
        return (
            f'<path d="{_path(x, y)}" fill="none" stroke="{line.colour}" stroke-width="{line.width}" '
            'stroke-linejoin="round"/>'
        )

    def _x_axis(self, y: int) -> str:
        first, last = float(self.x[0]), float(self.x[-1])
        parts = []
        for tick in MaxNLocator(nbins=9, steps=[1, 2, 3, 5, 6, 10]).tick_values(first, last):
            if first <= tick <= last:
                place = float(self._column(np.array([tick]))[0])
                parts.append(_text(place, y + 17, f"{tick:g}", GREY, anchor="middle"))
        return "".join(
            [*parts, _text((LEFT + WIDTH - RIGHT) / 2, y + 34, self.x_label, GREY, anchor="middle")]
        )


def _thin(x: NDArray[Any], y: NDArray[Any], how: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The points that can be seen: changes of steps; lowest and highest of each column of pixels."""
    if how == "steps":
        keep = np.concatenate([[True], np.diff(y) != 0])
        keep[-1] = True
        return x[keep], y[keep]
    per_pixel = len(x) // (WIDTH - LEFT - RIGHT)
    if per_pixel < 3:
        return x, y
    whole = len(x) // per_pixel * per_pixel
    rows = y[:whole].reshape(-1, per_pixel)
    seen = np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1).ravel()
    places = np.repeat(x[:whole].reshape(-1, per_pixel)[:, 0], 2)
    return np.append(places, x[-1]), np.append(seen, y[-1])


def _path(x: NDArray[Any], y: NDArray[Any], begin: str = "M") -> str:
    points = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    return begin + points


def _rule(left: float, right: float, y: float, colour: str, dashes: str = "") -> str:
    style = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="M{left} {y:.1f}H{right}" stroke="{colour}"{style}/>'


def _text(
    x: float, y: float, text: str, colour: str, anchor: str = "start", size: int = 12, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
