"""Figures of requests by who answered them: versions during a rollout, pods behind a Service."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.errors import ConfigError
from labkit.load import LoadResult
from labkit.plots.style import (
    GREEN,
    GREY,
    INK,
    RED,
    SERIES,
    heading,
    headline,
    house,
    label_right,
    panels,
    text_on,
)

_FEW = 8


@house
def rollout_figure(
    load: LoadResult, *, by: str = "version", marks: Mapping[str, float] | None = None, title: str = ""
) -> Figure:
    """Who answered during a rollout: answered requests per version, stacked, failed ones in red, and latency.

    Args:
        load: a load during which the rollout happened.
        by: the column that tells versions apart.
        marks: text → seconds since the load began, drawn as vertical lines ("kubectl apply": 5.2).
        title: the message; by default what the data say.
    """
    good = _answered(load, by)
    window = 0.5
    table = _counts(good, by, window, load.profile.duration_s) / window
    failed = load.requests[load.requests["failed"]]
    figure, axes = panels([2.4, 0.4, 1.2])
    top, middle, bottom = axes
    top.set_xlim(0, load.profile.duration_s)
    colours = _colours(list(table.columns))
    areas = [colours[name] for name in table.columns]
    top.stackplot(table.index + window / 2, table.T.to_numpy(), colors=areas, linewidth=0)
    top.set_ylim(0, 1.2 * max(1.0, float(table.sum(axis=1).max())))
    heading(top, "answered requests per second, by version")
    _failures(middle, failed, window, load.profile.duration_s)
    _name_areas(top, table, colours, window)
    _latency(bottom, load, window)
    _marks(axes, marks or {})
    bottom.set_xlabel("seconds since the load began")
    headline(
        figure,
        title or _rollout_message(good, by, len(failed)),
        f"{len(load.requests):,} requests at {len(load.requests) / load.profile.duration_s:.0f} per second",
    )
    return figure


@house
def requests_per_pod(
    load: LoadResult, *, by: str = "pod", marks: Mapping[str, float] | None = None, title: str = ""
) -> Figure:
    """How requests spread over pods: per second over time (stacked), and in all as bars."""
    good = _answered(load, by)
    window = 1.0
    table = _counts(good, by, window, load.profile.duration_s) / window
    totals = good[by].value_counts().reindex(table.columns)
    figure, axes = panels([2.3], right=0.60)
    over_time = axes[0]
    colours = _colours(list(table.columns))
    over_time.set_xlim(0, load.profile.duration_s)
    over_time.stackplot(
        table.index + window / 2, table.T.to_numpy(), colors=[colours[c] for c in table.columns], linewidth=0
    )
    over_time.set_ylim(0, float(table.sum(axis=1).max()) * 1.15)
    over_time.set_xlabel("seconds since the load began")
    heading(over_time, "answered requests per second, by pod")
    _marks(axes, marks or {})
    box = over_time.get_position()
    bars = figure.add_axes((0.80, box.y0, 0.17, box.height))
    bars.barh(
        range(len(totals)), totals.to_numpy(), color=[colours[pod] for pod in totals.index], height=0.72
    )
    bars.set_yticks(range(len(totals)), [str(pod) for pod in totals.index], color=INK, fontsize=8)
    bars.set_xticks([])
    bars.grid(visible=False)
    bars.spines["bottom"].set_visible(False)
    for place, count in enumerate(totals):
        bars.annotate(
            f"{count}",
            (count, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    mean = totals.mean()
    bars.axvline(mean, color=GREY, linewidth=1, linestyle=(0, (3, 2)))
    heading(bars, f"in all (even: {mean:.0f})")
    few, many = int(totals.min()), int(totals.max())
    spread = f"{few} to {many} each" if few != many else f"{few} each"
    noun = "pod answers" if len(totals) == 1 else "pods share"
    failed = int(load.requests["failed"].sum())
    headline(
        figure,
        title or f"{len(totals)} {noun} {len(good)} requests: {spread}",
        f"{failed} of {len(load.requests)} requests failed",
    )
    return figure


def _answered(load: LoadResult, by: str) -> pd.DataFrame:
    frame = load.requests[~load.requests["failed"]]
    if by not in frame or not (frame[by] != "").any():
        raise ConfigError(
            f"No answer tells its {by}.", f"The service must send a header that is collected as {by!r}."
        )
    return frame


def _bins(times: pd.Series[float], window: float, duration_s: float) -> pd.Series[float]:
    edges = np.arange(0, duration_s + window, window)
    counts, _ = np.histogram(times, edges)
    return pd.Series(counts.astype(float), index=edges[:-1])


def _counts(frame: pd.DataFrame, by: str, window: float, duration_s: float) -> pd.DataFrame:
    """Requests per window (index) and value of `by` (columns), by first appearance."""
    order = frame.drop_duplicates(by)[by].tolist()
    return pd.DataFrame(
        {name: _bins(frame.loc[frame[by] == name, "t_scheduled_s"], window, duration_s) for name in order}
    )


def _colours(names: list[str]) -> dict[str, str]:
    safe = [colour for colour in SERIES if colour != RED]
    return {name: safe[place % len(safe)] for place, name in enumerate(names)}


def _failures(axis: Axes, failed: pd.DataFrame, window: float, duration_s: float) -> None:
    """Failed requests as bars, each at its time; none is said in words."""
    axis.set_yticks([])
    axis.grid(visible=False)
    if failed.empty:
        heading(axis, "failed requests")
        axis.set_ylim(0, 1)
        axis.annotate(
            "none",
            (0, 0.5),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=GREEN,
            fontweight="bold",
        )
        return
    counts = _bins(failed["t_scheduled_s"], window, duration_s)
    kinds = (
        failed["error"].where(failed["error"] != "", "HTTP " + failed["status"].astype(str)).value_counts()
    )
    what = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
    heading(axis, f"failed requests: {what}")
    axis.bar(counts.index + window / 2, counts, window, color=RED)
    axis.set_ylim(0, float(counts.max()) * 1.1)


def _name_areas(axis: Axes, table: pd.DataFrame, colours: dict[str, str], window: float) -> None:
    """Each area's name in its middle, where it is thickest."""
    below = table.cumsum(axis=1).shift(axis=1, fill_value=0)
    for name in list(table.columns)[:_FEW]:
        column = table[name].rolling(5, center=True, min_periods=1).mean()
        thick = column[column > 0.9 * column.max()]
        if not column.max():
            continue
        at = thick.index[len(thick) // 2]
        axis.annotate(
            str(name), (at + window / 2, below[name][at] + table[name][at] / 2), ha="center", va="center",
            color=text_on(colours[name]), fontsize=11, fontweight="bold",
        )  # fmt: skip


def _latency(axis: Axes, load: LoadResult, window: float) -> None:
    table = load.over_time(window * 2).dropna(subset=["p50_ms"])
    t = table["t_seconds"] + window
    axis.plot(t, table["p95_ms"], color=GREY)
    axis.plot(t, table["p50_ms"], color=INK)
    axis.set_ylim(0, float(table["p95_ms"].max()) * 1.15 if len(table) else 1)
    heading(axis, "latency from scheduled arrival, milliseconds")
    if len(table):
        label_right(
            axis,
            [(float(table["p95_ms"].iloc[-1]), "p95", GREY), (float(table["p50_ms"].iloc[-1]), "p50", INK)],
        )


def _marks(axes: list[Axes], marks: Mapping[str, float]) -> None:
    for text, at in marks.items():
        for axis in axes:
            axis.axvline(at, color=INK, linewidth=1, linestyle=(0, (2, 2)))
        axes[0].annotate(
            text, (at, 1), xytext=(4, -4), xycoords=("data", "axes fraction"), textcoords="offset points",
            va="top", fontsize=8.5, color=INK,
        )  # fmt: skip


def _rollout_message(good: pd.DataFrame, by: str, failed: int) -> str:
    order = good.drop_duplicates(by)[by].tolist()
    lost = "no request failed" if not failed else f"{failed} request{'s' * (failed > 1)} failed"
    if len(order) < 2:
        return f"{order[0]} answered everything: {lost}"
    route = good.loc[good[by] != good[by].shift(), by].tolist()
    way = [name for place, name in enumerate(order)]
    if route[-1] != order[-1]:
        way.append(route[-1])
    return f"{' → '.join(way)} under load: {lost}"
