"""Figures of a game day: the whole shift, where the error budget went, and the autoscaler's work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from labkit.errors import ConfigError
from labkit.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    RED,
    SKY,
    heading,
    headline,
    house,
    label_right,
    panels,
    whole_numbers,
)

_VERDICTS = {"good": "#BFDCEE", "slow": PINK, "degraded": ORANGE, "failed": RED}
Row = dict[str, Any]
_UNNOTICED, _KNOWN = "#F0C97A", "#7FA8C9"
_BAND = "#F1F1EE"


@house
def shift_figure(
    per_second: pd.DataFrame,
    outcomes: pd.DataFrame,
    spent: pd.DataFrame,
    replicas: pd.DataFrame,
    titles: Mapping[int, str],
    *,
    budget: float,
    objective: str = "",
    nodes: pd.DataFrame | None = None,
    title: str = "",
) -> Figure:
    """A shift: customers, error budget, incidents, replicas and nodes, on one time axis.

    Args:
        per_second: t_seconds and requests per second by verdict: good, slow, degraded, failed.
        outcomes: number, struck_s, detected_s, acted_s, recovered_s, state.
        spent: t_seconds, bad: bad requests so far.
        replicas: t_seconds, ready, needed of the autoscaled service.
        titles: number → what the incident was.
        budget: how many bad requests the objective allows.
        objective: in words, for the subtitle.
        nodes: t_seconds, ready (how many nodes are Ready) and all of them; None leaves it out.

    Raises:
        ConfigError: there was no request.
    """
    if per_second.empty:
        raise ConfigError("There were no customers, so there is nothing to draw.")
    lanes = max(len(outcomes), 1)
    figure, axes = panels([1.7, 0.8, 0.34 * lanes + 0.1, 1.0], right=0.845, left=0.185)
    customers, left, incidents, below = axes
    end = float(per_second["t_seconds"].max()) + 1
    customers.set_xlim(0, end)
    _bands(axes, outcomes, end)
    _customers(customers, per_second)
    _budget(left, spent, budget, end)
    _incidents(incidents, outcomes, titles, end)
    _replicas(below, replicas)
    axes[-1].set_xlabel("seconds since the shop opened")
    if nodes is not None and len(nodes):
        _nodes(below, nodes)
    subtitle = f"promised: {objective}" if objective else ""
    headline(figure, title or _message(outcomes), subtitle, left=0.03)
    return figure


def _rows(table: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _message(outcomes: pd.DataFrame) -> str:
    over = int((outcomes["state"] == "recovered").sum())
    slowest = outcomes["recover_s"].max()
    tail = f", the slowest after {slowest:.0f} s" if over else ""
    return f"{over} of {len(outcomes)} incidents are over{tail}"


def _bands(axes: list[Axes], outcomes: pd.DataFrame, end: float) -> None:
    """The time in which each incident was open, behind everything."""
    for row in _rows(outcomes.dropna(subset=["struck_s"])):
        until = end if math.isnan(row["recovered_s"]) else row["recovered_s"]
        for axis in axes:
            axis.axvspan(row["struck_s"], until, color=_BAND, linewidth=0, zorder=0)
        axes[0].annotate(
            f"{row['number']}", (row["struck_s"], 1), xytext=(2, -4), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=9, fontweight="bold", color=GREY, va="top",
        )  # fmt: skip


def _customers(axis: Axes, table: pd.DataFrame) -> None:
    t = table["t_seconds"]
    values = [table[name] for name in _VERDICTS]
    axis.stackplot(t, values, colors=list(_VERDICTS.values()), linewidth=0, step="mid", zorder=2)
    top = float(sum(values).max())  # type: ignore[union-attr]
    axis.set_ylim(0, 1.2 * max(top, 1.0))
    heading(axis, "customers' requests per second")
    step = float(t.diff().median()) if len(t) > 1 else 1.0
    seen = [name for name in _VERDICTS if table[name].sum() > 0]
    base = 0.0
    labels: list[tuple[float, str, str]] = []
    for name in seen:
        count = round(float(table[name].sum()) * step)
        base += 0.16 * axis.get_ylim()[1] if labels else 0.1 * axis.get_ylim()[1]
        labels.append((base, f"{count} {name}", BLUE if name == "good" else _VERDICTS[name]))
    label_right(axis, labels)


def _budget(axis: Axes, spent: pd.DataFrame, budget: float, end: float) -> None:
    t = np.concatenate([[0.0], spent["t_seconds"], [end]])
    bad = np.concatenate([[0], spent["bad"], spent["bad"].tail(1)])
    axis.fill_between(t, bad, step="post", color=RED, alpha=0.3, linewidth=0, zorder=2)
    axis.step(t, bad, where="post", color=RED, linewidth=1.4, zorder=3)
    axis.axhline(budget, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=3)
    axis.set_ylim(0, 1.3 * max(float(bad[-1]), budget, 1.0))
    whole_numbers(axis)
    heading(axis, "error budget: bad requests so far")
    label_right(axis, [(float(bad[-1]), f"{bad[-1]:.0f} spent", RED), (budget, f"budget {budget:.1f}", INK)])


def _incidents(axis: Axes, outcomes: pd.DataFrame, titles: Mapping[int, str], end: float) -> None:
    for place, row in enumerate(_rows(outcomes)):
        axis.annotate(
            f"{row['number']}  {titles.get(int(row['number']), '')}", (0, place), xytext=(-6, 0),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", va="center",
            fontsize=8.5, color=INK,
        )  # fmt: skip
        if math.isnan(row["struck_s"]):
            continue
        over = end if math.isnan(row["recovered_s"]) else row["recovered_s"]
        noticed = over if math.isnan(row["detected_s"]) else row["detected_s"]
        axis.barh(
            place, noticed - row["struck_s"], left=row["struck_s"], height=0.6, color=_UNNOTICED, zorder=2
        )
        axis.barh(place, over - noticed, left=noticed, height=0.6, color=_KNOWN, zorder=2)
        if not math.isnan(row["acted_s"]):
            axis.plot([row["acted_s"]], [place - 0.4], marker="v", color=INK, markersize=5, zorder=4)
        _duration(axis, row, place, over, end)
    axis.set_ylim(max(len(outcomes), 1) - 0.4, -0.6)
    axis.set_yticks([])
    axis.grid(visible=False)
    heading(axis, "incidents, and how long until each was over")
    legend = [("not noticed", "#B37A10"), ("noticed", "#3A6E99"), ("▼ repair", INK)]
    for place, (text, colour) in enumerate(legend):
        axis.annotate(
            text, (1, 1), xytext=(6, -6 - 13 * place), xycoords="axes fraction",
            textcoords="offset points", fontsize=8.5, color=colour, va="center",
        )  # fmt: skip


def _duration(axis: Axes, row: Row, place: int, over: float, end: float) -> None:
    """How long an incident took: in its bar where there is room, else beside it."""
    done = not math.isnan(row["recovered_s"])
    text = f"{row['recover_s']:.0f} s" if done else "still open"
    if over - row["struck_s"] > 0.12 * end:
        at, align, shift, colour = over, "right", -4, INK
    elif over + 0.1 * end < end:
        at, align, shift, colour = over, "left", 5, INK
    else:
        at, align, shift, colour = row["struck_s"], "right", -4, INK
    axis.annotate(
        text, (at, place), xytext=(shift, 0), textcoords="offset points", va="center", ha=align,
        fontsize=8.5, color=colour if done else RED, fontweight="bold", zorder=5,
    )  # fmt: skip


def _replicas(axis: Axes, table: pd.DataFrame) -> None:
    if table.empty:
        return
    t, ready, needed = table["t_seconds"], table["ready"], table["needed"]
    axis.step(t, ready, where="mid", color=GREEN, zorder=3)
    axis.step(t, needed, where="mid", color=INK, linewidth=1.1, linestyle=(0, (3, 2)), zorder=3)
    axis.set_ylim(0, 1.25 * max(float(ready.max()), float(needed.max()), 1.0))
    whole_numbers(axis)
    heading(axis, "replicas of pricing")
    label_right(axis, [(float(ready.iloc[-1]), "ready", GREEN), (float(needed.iloc[-1]), "ideal", INK)])


def _nodes(axis: Axes, nodes: pd.DataFrame) -> None:
    missing = nodes[nodes["ready"] < nodes["all"]]
    for at in missing["t_seconds"]:
        axis.axvspan(at, at + 1, ymin=0, ymax=0.06, color=RED, linewidth=0, zorder=4)
    if len(missing):
        axis.annotate(
            "a node is NotReady", (float(missing["t_seconds"].iloc[0]), 0), xytext=(2, 6),
            textcoords="offset points", fontsize=8, color=RED,
        )  # fmt: skip


@house
def budget_figure(
    outcomes: pd.DataFrame, titles: Mapping[int, str], *, bad: int, budget: float, title: str = ""
) -> Figure:
    """Where the error budget went: bad requests by the incident during which they were sent.

    Args:
        outcomes: number, bad_requests.
        bad: bad requests in all.
        budget: how many the objective allows.
    """
    rows = [
        (f"{int(row['number'])}  {titles.get(int(row['number']), '')}", int(row["bad_requests"]))
        for row in _rows(outcomes)
    ]
    rest = bad - sum(count for _, count in rows)
    rows += [("at other times", rest)] if rest > 0 else []
    figure, (axis,) = panels([0.36 * max(len(rows), 1)], right=0.93, left=0.24)
    top = max([budget, *(count for _, count in rows), 1.0])
    for place, (_, count) in enumerate(rows):
        axis.barh(place, count, height=0.62, color=RED if count > budget else ORANGE)
        axis.annotate(
            f"{count}",
            (count, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axis.axvline(budget, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axis.annotate(
        f"the whole budget: {budget:.1f}", (budget, 1), xytext=(3, 4), xycoords=("data", "axes fraction"),
        textcoords="offset points", fontsize=8.5, color=INK,
    )  # fmt: skip
    axis.set_yticks(range(len(rows)), [name for name, _ in rows], color=INK, fontsize=9)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 1.12 * top)
    axis.grid(visible=False)
    axis.set_xlabel("requests that were not good")
    worst = max(rows, key=lambda row: row[1], default=("", 0))
    said = (
        f"Most of it was spent on incident {worst[0].partition('  ')[0]}: {worst[0].partition('  ')[2]}"
        if worst[1]
        else "Nothing was spent"
    )
    headline(
        figure,
        title or said,
        "each bad request counts for the latest incident that was open when it was sent",
        left=0.03,
    )
    return figure


@house
def efficiency_figure(
    frame: pd.DataFrame, *, percent: float, too_many_s: float, too_few_s: float, title: str = ""
) -> Figure:
    """An autoscaler's replicas against the ideal: what was spare, and what was missing.

    Args:
        frame: t_seconds, ready, needed.
        percent: work per replica-second as a share of the ideal.
        too_many_s, too_few_s: replica-seconds above and below the ideal.
    """
    figure, (axis,) = panels([2.1], right=0.85)
    t, ready, needed = frame["t_seconds"], frame["ready"], frame["needed"]
    axis.fill_between(t, needed, ready, where=ready >= needed, step="mid", color=SKY, alpha=0.45, linewidth=0)
    axis.fill_between(t, needed, ready, where=ready < needed, step="mid", color=RED, alpha=0.45, linewidth=0)
    axis.step(t, ready, where="mid", color=GREEN)
    axis.step(t, needed, where="mid", color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
    axis.set_xlim(0, float(t.max()))
    axis.set_ylim(0, 1.2 * max(float(ready.max()), float(needed.max()), 1.0))
    whole_numbers(axis)
    axis.set_xlabel("seconds since the shop opened")
    heading(axis, "replicas")
    label_right(axis, [(float(ready.iloc[-1]), "ready", GREEN), (float(needed.iloc[-1]), "ideal", INK)])
    handles = [
        Patch(color=SKY, alpha=0.45, label=f"spare: {too_many_s:.0f} replica-seconds"),
        Patch(color=RED, alpha=0.45, label=f"missing: {too_few_s:.0f} replica-seconds"),
    ]
    axis.legend(handles=handles, loc="upper right", frameon=False, fontsize=8.5)
    headline(
        figure,
        title or f"A replica-second did {percent:.0f} % of the work that it ideally does",
        "ideal: knows the load beforehand, starts pods at once, each works just at the HPA's target",
    )
    return figure
