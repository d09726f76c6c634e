"""A figure about a tunnel: what visitors and connectors went through while the edge was away."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.load import LoadResult
from labkit.plots.rollouts import _bins
from labkit.plots.style import BLUE, GREEN, INK, ORANGE, RED, heading, headline, house, panels, whole_numbers

_MARKS = {"registered": (GREEN, "o"), "lost": (INK, "x"), "failed": (RED, "|"), "refused": (RED, "X")}
_AWAY = "#F3E3DC"


@house
def reconnect_figure(
    load: LoadResult, events: pd.DataFrame, *, stopped_s: float, started_s: float, title: str = ""
) -> Figure:
    """Visitors' requests, and each connector's attempts to come back, while an edge is restarted.

    Args:
        load: sent to the edge.
        events: as `Tunnel.events` returns: pod, at (unix time) and event.
        stopped_s, started_s: when the edge went and came back, in seconds of the load.
        title: the message; by default what the data say.
    """
    window, span = 0.5, load.profile.duration_s
    during = events.assign(t=events["at"] - load.started_at)
    during = during[(during["t"] >= 0) & (during["t"] <= span)]
    pods = list(dict.fromkeys(during["pod"]))
    figure, axes = panels([1.9, 0.5 * max(1, len(pods))], left=0.08, right=0.97)
    axes[0].set_xlim(0, span)
    failed = load.requests["failed"]
    nobody = failed & (load.requests["status"] == 0)
    kinds = (
        (~failed, BLUE, "answered"),
        (nobody, RED, "edge away"),
        (failed & ~nobody, ORANGE, "no connector"),
    )
    bottom = pd.Series(0.0, index=_bins(load.requests["t_scheduled_s"], window, span).index)
    for chosen, colour, _ in kinds:
        counts = _bins(load.requests.loc[chosen, "t_scheduled_s"], window, span) / window
        axes[0].bar(counts.index + window / 2, counts, window, bottom=bottom, color=colour)
        bottom = bottom + counts
    axes[0].set_ylim(0, float(bottom.max()) * 1.45)
    whole_numbers(axes[0])
    heading(axes[0], "requests per second")
    _legend(axes[0], [(colour, f"{text} ({int(chosen.sum())})") for chosen, colour, text in kinds])
    _attempts(axes[1], during, pods)
    for axis in axes:
        axis.axvspan(stopped_s, started_s, color=_AWAY, zorder=0)
    axes[1].set_xlabel("seconds since the load began")
    headline(
        figure,
        title or _message(during, started_s),
        f"{len(load.requests)} requests; the edge was away for {started_s - stopped_s:.0f} s",
        left=0.08,
    )
    return figure


def _attempts(axis: Axes, during: pd.DataFrame, pods: list[str]) -> None:
    heading(axis, "connectors:  × connection lost   | attempt failed   ● registered again")
    axis.set_ylim(len(pods) - 0.4, -0.6)
    axis.set_yticks(range(len(pods)), [f"pod {number + 1}" for number in range(len(pods))], color=INK)
    axis.grid(visible=False)
    for place, pod in enumerate(pods):
        axis.axhline(place, color="#E6E6E6", linewidth=0.8, zorder=0)
        for event, (colour, marker) in _MARKS.items():
            mine = during[(during["pod"] == pod) & (during["event"] == event)]
            axis.plot(mine["t"], [place] * len(mine), marker, color=colour, markersize=8, markeredgewidth=2)


def _legend(axis: Axes, entries: list[tuple[str, str]]) -> None:
    for place, (colour, text) in enumerate(entries):
        axis.annotate(
            text, (0.01 + 0.22 * place, 0.9), xycoords="axes fraction", color=colour, fontsize=9,
            fontweight="bold", va="center",
        )  # fmt: skip


def _message(during: pd.DataFrame, started_s: float) -> str:
    back = during[(during["event"] == "registered") & (during["t"] > started_s)]["t"]
    if back.empty:
        return "The edge came back, the connectors did not yet"
    return f"The edge came back; {back.min() - started_s:.1f} s later a connector did too, by itself"
