"""The figure of an alert: how fast the error budget burnt, and when the alert rang."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from labkit.plots.style import BLUE, GREY, INK, RED, SKY, heading, headline, house, label_right, panels

_BAND = "#F1F1EE"


@house
def alert_figure(
    rates: pd.DataFrame,
    limit: float,
    alarms: Sequence[tuple[float, float]],
    outcomes: pd.DataFrame,
    titles: Mapping[int, str],
) -> Figure:
    """Burn rates over an alert's two windows, with its limit, the incidents, and the times it rang.

    Args:
        rates: t_seconds, long and short: burn rates over the windows before each moment.
        limit: the burn rate above which it rings.
        alarms: begin and end of each time it rang.
        outcomes: number, struck_s and recovered_s of incidents.
        titles: number → what the incident was.
    """
    figure, (burn, bell) = panels([2.2, 0.5], right=0.84)
    end = float(rates["t_seconds"].max()) if len(rates) else 1.0
    burn.set_xlim(0, end)
    for row in outcomes.dropna(subset=["struck_s"]).to_dict("records"):
        until = end if math.isnan(row["recovered_s"]) else row["recovered_s"]
        for axis in (burn, bell):
            axis.axvspan(row["struck_s"], until, color=_BAND, linewidth=0, zorder=0)
        burn.annotate(
            f"{row['number']} {titles.get(int(row['number']), '')}", (row["struck_s"], 1), xytext=(2, -4),
            xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8, color=GREY, va="top",
        )  # fmt: skip
    lines = {"short": SKY, "long": BLUE}
    for name, colour in lines.items():
        burn.plot(rates["t_seconds"], rates[name], color=colour, linewidth=1.4, zorder=3)
    burn.axhline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=3)
    top = max((float(rates[name].max()) for name in lines), default=limit) if len(rates) else limit
    burn.set_ylim(0, 1.25 * max(top, limit))
    heading(burn, "burn rate: how many times too fast the budget was spent")
    last = {name: float(rates[name].iloc[-1]) for name in lines} if len(rates) else {}
    labels = [(limit, f"limit {limit:g}", INK)]
    labels += [(value, f"{name} window", lines[name]) for name, value in last.items()]
    label_right(burn, labels)
    for begin, until in alarms:
        bell.axvspan(begin, max(until, begin + end / 200), ymin=0.15, ymax=0.85, color=RED, linewidth=0)
    bell.set_yticks([])
    bell.grid(visible=False)
    heading(bell, "the alert rings")
    bell.set_xlabel("seconds since the shop opened")
    times = "once" if len(alarms) == 1 else f"{len(alarms)} times"
    headline(figure, f"Your alert rang {times}" if alarms else "Your alert kept silent")
    return figure
