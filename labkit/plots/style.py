"""The house style: light, colour-blind-safe (the palette of Okabe and Ito), labels at the lines."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import wraps
from html import escape
from textwrap import shorten
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

P = ParamSpec("P")

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PINK, YELLOW, INK, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#222222", "#6E6E6E"
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, INK)
"""Colours of series whose order has no meaning; RED otherwise means failure."""

WIDTH_IN, DPI = 9.0, 100
_ALT_LETTERS = 600
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": GREY,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "ytick.left": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
}


class LabFigure(Figure):
    """A Figure that notebooks show at 900 pixels, sharp on dense screens, whatever backend is chosen."""

    @property
    def alt(self) -> str:
        """The figure in words, for whoever cannot see it: its headline, then the labels in it."""
        words = [" ".join(text.get_text().split()) for text in self.texts]
        labels = [" ".join(t.get_text().split()) for axis in self.axes for t in axis.texts]
        told = ". ".join(word.rstrip(".") for word in words if word)
        shown = "; ".join(label for label in labels if label)
        return shorten(f"{told}. {shown}".strip(". "), _ALT_LETTERS, placeholder=" …") or "A figure"

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        png, size = self._repr_png_()
        data = base64.b64encode(png).decode()
        style = f"width:{size['width']}px;max-width:100%;height:auto"
        picture = f'<img src="data:image/png;base64,{data}" alt="{escape(self.alt)}" style="{style}">'
        return {"text/html": picture, "image/png": data, "text/plain": self.alt}, {"image/png": size}

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * DPI)
        width, height = self.get_size_inches()
        return buffer.getvalue(), {"width": round(width * DPI), "height": round(height * DPI)}


def house(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorator: draw in the house style, and leave matplotlib's settings as they were."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return styled


def panels(heights: list[float], right: float = 0.86, left: float = 0.075) -> tuple[LabFigure, list[Axes]]:
    """A figure of stacked panels with one x-axis; `heights` in inches."""
    gap, top, bottom = 0.42, 0.95, 0.5
    total = sum(heights) + gap * (len(heights) - 1) + top + bottom
    figure = LabFigure(figsize=(WIDTH_IN, total))
    FigureCanvasAgg(figure)
    axes: list[Axes] = []
    y = total - top
    for height in heights:
        box = (left, (y - height) / total, right - left, height / total)
        axes.append(figure.add_axes(box, sharex=axes[0] if axes else None))
        y -= height + gap
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False, bottom=False)
    axes[-1].set_xlabel("seconds")
    return figure, axes


def headline(figure: Figure, title: str, subtitle: str = "", left: float = 0.075) -> None:
    """The message, and what it is about."""
    height = figure.get_size_inches()[1]
    figure.text(left, 1 - 0.3 / height, title, fontsize=13, fontweight="bold", color=INK, va="center")
    if subtitle:
        figure.text(left, 1 - 0.55 / height, subtitle, fontsize=9, color=GREY, va="center")


def heading(axis: Axes, text: str) -> None:
    """What a panel shows and its unit, above its left end."""
    axis.annotate(
        text,
        (0, 1),
        xytext=(0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        color=INK,
        fontsize=9,
    )


def label_right(axis: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Direct labels (y in data units, text, colour) beyond the right end, moved apart where they touch."""
    low, high = axis.get_ylim()
    height_px = axis.get_window_extent().height
    transform = axis.transData
    places = sorted(
        (
            (transform.transform((0, min(max(y, low), high)))[1], text, colour)
            for y, text, colour in labels
            if np.isfinite(y)
        ),
        key=lambda place: place[0],
    )
    bottom = axis.get_window_extent().y0
    lines = [1 + text.count("\n") for _, text, _ in places]
    ys = spread([y - bottom for y, _, _ in places], [13.0 * count for count in lines])
    for y, (_, text, colour) in zip(ys, places, strict=True):
        axis.annotate(
            text, (1, y / height_px), xytext=(6, 0), xycoords="axes fraction", textcoords="offset points",
            color=colour, fontsize=8.5, va="center", annotation_clip=False, linespacing=1.1,
        )  # fmt: skip


def spread(ys: list[float], sizes: list[float]) -> list[float]:
    """Places as near to `ys` (ascending) as possible so that things of these sizes do not overlap."""
    placed = list(ys)
    for _ in range(50):
        moved = False
        for i in range(len(placed) - 1):
            overlap = (sizes[i] + sizes[i + 1]) / 2 - (placed[i + 1] - placed[i])
            if overlap > 0.01:
                placed[i] -= overlap / 2
                placed[i + 1] += overlap / 2
                moved = True
        if not moved:
            break
    if placed and placed[0] < 0:
        placed = [y - placed[0] for y in placed]
    return placed


def whole_numbers(axis: Axes) -> None:
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def text_on(colour: str) -> str:
    """Black or white, whichever reads better on a colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else INK
