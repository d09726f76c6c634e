"""The phases of `labkit.up` as bars: what came when, and what took the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matplotlib.figure import Figure

from labkit.errors import ConfigError
from labkit.plots.style import BLUE, INK, ORANGE, headline, house, panels


class Bar(Protocol):
    """A phase with its begin and duration in seconds."""

    @property
    def name(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def begin_s(self) -> float: ...
    @property
    def seconds(self) -> float: ...


@house
def phases_figure(bars: Sequence[Bar], *, title: str = "", subtitle: str = "") -> Figure:
    """Each phase from its begin to its end; the longest one stands out.

    Raises:
        ConfigError: there is nothing to draw.
    """
    if not bars:
        raise ConfigError("There are no phases to draw.", "They are told while the cluster is brought up.")
    end = max(bar.begin_s + bar.seconds for bar in bars)
    longest = max(bars, key=lambda bar: bar.seconds)
    figure, (axis,) = panels([0.34 * len(bars)], right=0.97, left=0.17)
    for place, bar in enumerate(bars):
        colour = ORANGE if bar is longest else BLUE
        axis.barh(place, max(bar.seconds, end * 0.004), left=bar.begin_s, height=0.6, color=colour)
        text = bar.text if len(bar.text) <= 56 else bar.text[:55] + "…"
        at, align, room = _place(bar, end)
        axis.annotate(
            f"{bar.seconds:.1f} s   {text}", (at, place), xytext=(room, 0), textcoords="offset points",
            va="center", ha=align, fontsize=8.5, color=INK,
        )  # fmt: skip
    axis.set_yticks(range(len(bars)), [bar.name for bar in bars], color=INK, fontsize=9)
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.set_xlim(0, end * 1.02)
    axis.grid(visible=False)
    axis.set_xlabel("seconds since the begin")
    headline(
        figure,
        title or f"A cluster in {end:.1f} s; the longest phase was “{longest.name}”",
        subtitle or "each bar is a phase; those side by side ran at the same time",
        left=0.03,
    )
    return figure


def _place(bar: Bar, end: float) -> tuple[float, str, int]:
    """Where a bar's words begin (or end), their alignment, and their distance in points."""
    if bar.begin_s + bar.seconds < (0.6 if len(bar.text) < 36 else 0.5) * end:
        return bar.begin_s + bar.seconds, "left", 6
    if bar.begin_s > 0.5 * end:
        return bar.begin_s, "right", -6
    return bar.begin_s, "left", 6
