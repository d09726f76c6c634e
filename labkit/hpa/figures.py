"""Figures of simulations: settings side by side, cost against misses, prediction against measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from labkit.hpa.errors import ObservationError
from labkit.hpa.simulate import Run
from labkit.hpa.sketch import Line, Panel, Sketch
from labkit.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    heading,
    headline,
    house,
    panels,
)

COLOURS = (BLUE, ORANGE, GREEN)


def whatif(runs: Mapping[str, Run], targets: Mapping[str, float] | None = None) -> Sketch:
    """Up to three runs of the same load: requests, replicas, utilization, misses.

    Args:
        runs: name of the setting → its run.
        targets: name → its target in per cent, drawn as a dashed line.
    """
    if not 1 <= len(runs) <= len(COLOURS):
        raise ObservationError("runs", f"found {len(runs)}", "Give one to three runs.")
    frames = [(name, c, run.frame) for (name, run), c in zip(runs.items(), COLOURS, strict=False)]
    first = frames[0][2]
    short = first["t_seconds"].iloc[-1] < 3 * 3600
    x = (first["t_seconds"] / (60 if short else 3600)).to_numpy()
    levels = [(targets[name], colour) for name, colour, _ in frames if targets and name in targets]

    def lines(column: str, how: str, named: bool = True, width: float = 1.8) -> list[Line]:
        return [Line(n if named else "", c, f[column].to_numpy(), how, width) for n, c, f in frames]

    panels = [
        Panel("Load (requests/s)", [Line("", GREY, first["arrival_rps"].to_numpy())], 70),
        Panel("Replicas", lines("replicas", "steps", width=2.2), 160, whole=True),
        Panel(
            "CPU utilization (% of the request); dashed: the target",
            lines("utilization_percent", "line", width=1.0),
            110,
            levels=levels,
        ),
        Panel(
            "Requests slower than the objective, or lost (%)",
            lines("slo_miss_percent", "area", named=False),
            70,
            top=max(1.0, *(float(f["slo_miss_percent"].max()) * 1.06 for _, _, f in frames)),
        ),
    ]
    subtitle = "The same load for each; a replica costs for every second it exists."
    return Sketch(_verdict(runs), subtitle, x, "minutes" if short else "hours", panels)


def _verdict(runs: Mapping[str, Run]) -> str:
    """The message: what each setting costs and misses."""
    parts = [
        f"{name}: {run.totals['replica_seconds'] / 3600:.3g} replica-hours, "
        f"{run.totals['slo_miss_percent']:.2g} % missed"
        for name, run in runs.items()
    ]
    return " · ".join(parts)


def frontier(
    table: pd.DataFrame, cost: str = "mean_replicas", harm: str = "slo_miss_percent"
) -> pd.Series[bool]:
    """Which rows no other row beats in both columns (the Pareto frontier)."""
    order = table.sort_values([cost, harm])
    best = order[harm].cummin().shift(fill_value=np.inf)
    return (order[harm] < best).reindex(table.index)


@house
def pareto_figure(
    table: pd.DataFrame, labels: str = "setting", marked: Mapping[str, int] | None = None
) -> Figure:
    """Cost against misses: one point per row of a sweep; the frontier is joined and named.

    Args:
        table: totals as from `sweep`, with a column of names.
        labels: that column.
        marked: name → row, for settings to point out.
    """
    figure, (axis,) = panels([4.2], right=0.95)
    best = frontier(table)
    x, y = table["mean_replicas"], table["slo_miss_percent"].clip(lower=1e-3)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.scatter(x[~best], y[~best], s=14, color="#BBBBBB", linewidths=0)
    line = table[best].sort_values("mean_replicas")
    missed = line["slo_miss_percent"].clip(lower=1e-3)
    axis.plot(line["mean_replicas"], missed, "o-", color=BLUE, markersize=5)
    axis.margins(x=0.08, y=0.1)
    for i in _apart(axis, line["mean_replicas"].to_numpy(), missed.to_numpy()):
        row = line.iloc[i]
        last = row["mean_replicas"] > axis.get_xlim()[1] * 0.8
        axis.annotate(
            row[labels],
            (row["mean_replicas"], missed.iloc[i]),
            xytext=(-6, 7) if last else (7, 5),
            textcoords="offset points",
            ha="right" if last else "left",
            fontsize=8,
            color=BLUE,
        )
    for (name, index), colour in zip((marked or {}).items(), (ORANGE, GREEN, RED), strict=False):
        axis.scatter(x[index], y[index], s=70, color=colour, zorder=3)
        axis.annotate(name, (x[index], y[index]), xytext=(9, -4), textcoords="offset points", color=colour)
    heading(axis, "Requests slower than the objective, or lost (%)")
    axis.set_xlabel("replicas on average: what it costs")
    cheapest, safest = line.iloc[0], line.iloc[-1]
    title = (
        f"From {cheapest['slo_miss_percent']:.2g} % missed to {safest['slo_miss_percent']:.2g} %: "
        f"{cheapest['mean_replicas']:.2g} to {safest['mean_replicas']:.2g} replicas"
    )
    headline(figure, title, f"{len(table)} settings; no other one is better in both than those in blue.")
    return figure


def _apart(axis: Axes, x: NDArray[Any], y: NDArray[Any], pixels: float = 26.0) -> list[int]:
    """Points whose names do not overlap: both ends, and between them those far enough from the last."""
    heights = axis.transData.transform(np.column_stack([x, y]))[:, 1]
    chosen = [0]
    for i in range(1, len(heights) - 1):
        if heights[chosen[-1]] - heights[i] > pixels and heights[i] - heights[-1] > pixels:
            chosen.append(i)
    return [*chosen, len(heights) - 1] if len(heights) > 1 else chosen
