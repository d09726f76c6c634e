"""Figures about load balancer addresses: who has which, and how an address moves to another node."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from labkit.load import LoadResult
from labkit.plots.rollouts import _bins
from labkit.plots.style import BLUE, GREEN, GREY, INK, RED, heading, headline, house, panels, text_on

_ROW = 0.62


@house
def address_pool_figure(assignments: pd.DataFrame, title: str = "") -> Figure:
    """Addresses of a pool, each with the Services on it, and the Services that wait for one.

    Args:
        assignments: as `MetalLB.assignments` returns: pool, address, service and ports.
        title: the message; by default what the data say.
    """
    pooled = assignments[assignments["address"] != ""]
    waiting = assignments[assignments["address"] == ""]
    addresses = list(dict.fromkeys(pooled["address"]))
    rows = len(addresses) + len(waiting)
    figure, [axis] = panels([max(1, rows) * _ROW], right=0.97)
    axis.set_xlim(0, 10)
    axis.set_ylim(rows, 0)
    axis.axis("off")
    free = 0
    for place, address in enumerate(addresses):
        held = pooled[(pooled["address"] == address) & (pooled["service"] != "")]
        free += _count(address) if held.empty else 0
        _box(axis, 0, place, 2.6, address, GREY if held.empty else INK)
        _holders(axis, place, held)
    for place, row in enumerate(waiting.itertuples(), start=len(addresses)):
        axis.text(1.3, place + 0.5, "no address", ha="center", va="center", color=RED, fontsize=9)
        name = str(row.service).rpartition("/")[2]
        _box(axis, 3.2, place, 6.52, f"{name}: pending", "white", edge=RED, ink=RED)
    total = sum(map(_count, addresses))
    headline(figure, title or _pool_message(total, free, len(waiting)), _names(pooled))
    return figure


def _count(address: str) -> int:
    """How many addresses a row has: one, or those of a run such as 192.0.2.20-192.0.2.99."""
    first, _, last = address.partition("-")
    return int(ip_address(last or first)) - int(ip_address(first)) + 1


def _holders(axis: Axes, place: int, held: pd.DataFrame) -> None:
    if held.empty:
        axis.text(3.3, place + 0.5, "free", va="center", color=GREEN, fontsize=9, fontweight="bold")
        return
    width = 6.6 / len(held)
    for number, row in enumerate(held.itertuples()):
        text = f"{str(row.service).rpartition('/')[2]}  :{row.ports}"
        _box(axis, 3.2 + number * width, place, width - 0.08, text, BLUE)


def _box(
    axis: Axes, x: float, place: int, width: float, text: str, fill: str, *, edge: str = "none", ink: str = ""
) -> None:
    shape: Any = FancyBboxPatch(
        (x, place + 0.12), width, 0.76, boxstyle="round,pad=0,rounding_size=0.08", facecolor=fill,
        edgecolor=edge, linewidth=1.4, linestyle="--" if edge != "none" else "-",
    )  # fmt: skip
    axis.add_patch(shape)
    colour = ink or text_on(fill)
    axis.text(x + width / 2, place + 0.5, text, ha="center", va="center", color=colour, fontsize=9)


def _pool_message(addresses: int, free: int, waiting: int) -> str:
    noun = "address" if addresses == 1 else "addresses"
    if waiting:
        return f"{addresses} {noun}, all taken: {waiting} Service{'s' * (waiting > 1)} must wait"
    return f"{addresses} {noun}, {free or 'none'} free"


def _names(pooled: pd.DataFrame) -> str:
    pools = ", ".join(dict.fromkeys(pooled["pool"]))
    return f"pool {pools}: address, and the Services (with their ports) that have it" if pools else "no pool"


@house
def fail_over_figure(
    load: LoadResult, *, lost_s: float, moved_s: float, before: str, after: str, title: str = ""
) -> Figure:
    """Answered and failed requests while an address moves from a lost node to another one.

    Args:
        load: sent to the address.
        lost_s, moved_s: when its node was lost, and when another one announced it, in seconds of the load.
        before, after: the nodes.
    """
    window = 0.5
    span = load.profile.duration_s
    figure, axes = panels([1.6, 0.9])
    good, bad = load.requests[~load.requests["failed"]], load.requests[load.requests["failed"]]
    for axis, frame, colour, text in (
        (axes[0], good, BLUE, "answered requests per second"),
        (axes[1], bad, RED, "failed requests per second"),
    ):
        counts = _bins(frame["t_scheduled_s"], window, span) / window
        axis.bar(counts.index + window / 2, counts, window, color=colour)
        axis.axvspan(lost_s, moved_s, color="#F3E3DC", zorder=0)
        axis.set_ylim(0, max(1.0, float(counts.max())) * 1.25)
        heading(axis, text)
    axes[0].set_xlim(0, span)
    for at, text, side in ((lost_s, f"{before} lost", "right"), (moved_s, f"{after} announces", "left")):
        axes[0].annotate(
            text, (at, 1), xytext=(-4 if side == "right" else 4, -3), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha=side, va="top", fontsize=8.5, color=INK,
        )  # fmt: skip
    axes[1].set_xlabel("seconds since the load began")
    message = f"The address moved to {after} in {moved_s - lost_s:.1f} s; {len(bad)} requests failed"
    headline(
        figure,
        title or message,
        f"{len(load.requests)} requests, one every {span / len(load.requests):.2f} s",
    )
    return figure
