"""The HPA figure: load, CPU utilization, replicas, what held them, and latency, on one time axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from labkit.errors import ConfigError
from labkit.kube import dig
from labkit.load import LoadResult
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
    text_on,
    whole_numbers,
)
from labkit.plots.why import LANES, Held, holds, tolerances
from labkit.record import Recording

_LANE_NAMES = {
    "tolerance": "tolerance",
    "stabilization": "stabilization",
    "policy": "policies",
    "limit": "min / max",
}
_LANE_COLOURS = {"tolerance": SKY, "stabilization": ORANGE, "policy": PINK, "limit": "#BBBBBB"}


@house
def hpa_figure(
    recording: Recording,
    load: LoadResult | None,
    hpa: Mapping[str, Any],
    *,
    predicted: pd.DataFrame | None = None,
    title: str = "",
) -> Figure:
    """What an autoscaler saw and did.

    Args:
        recording: of a time in which the HPA was recorded.
        load: sent meanwhile; None leaves its panels out.
        hpa: the HPA object or its manifest.
        predicted: columns t_seconds (as in the recording) and replicas: a model's, drawn as a dashed line.
        title: the message; by default what the data say.

    Raises:
        ConfigError: the HPA is not in the recording.
    """
    name, namespace = dig(hpa, "metadata.name"), dig(hpa, "metadata.namespace")
    rows = recording.hpas[recording.hpas["name"] == name]
    if namespace:
        rows = rows[rows["namespace"] == namespace]
    if rows.empty:
        raise ConfigError(
            f"The recording has no HPA {name!r}.", "Start the Recorder in its namespace, before."
        )
    zero = load.started_at - recording.started_at if load else 0.0
    rows = rows.assign(t=rows["t_seconds"] - zero)
    held = holds(rows.assign(t_seconds=rows["t"]), hpa)
    figure, axes = panels([1.15, 1.5, 1.7, 0.95, 1.15] if load else [1.5, 1.7, 0.95])
    begin, end = float(rows["t"].min()), float(rows["t"].max())
    axes[0].set_xlim(begin, max(end, begin + 1))
    rest = iter(axes)
    if load:
        _load_panel(next(rest), load)
    _utilization_panel(next(rest), rows, hpa)
    _replica_panel(next(rest), rows, recording, hpa, zero, predicted)
    _why_panel(next(rest), held)
    if load:
        _latency_panel(next(rest), load)
        axes[-1].set_xlabel("seconds since the load began")
    for axis in axes:
        for at, _, _ in _changes(rows):
            axis.axvline(at, color="#E3E8EC", linewidth=0.8, zorder=0)
    headline(figure, title or _message(rows, load), f"HorizontalPodAutoscaler {name}: {_rules(hpa)}")
    return figure


def _load_panel(axis: Axes, load: LoadResult) -> None:
    table = load.over_time(2.0)
    t = table["t_seconds"] + 1.0
    answered = table["offered_rps"] - table["failed_rps"]
    axis.fill_between(t, table["offered_rps"], color="#D9E8F2", linewidth=0)
    axis.plot(t, answered, color=BLUE)
    failed = table[table["failed_rps"] > 0]
    axis.bar(failed["t_seconds"] + 1.0, failed["failed_rps"], 2.0, color=RED)
    axis.set_ylim(0, 1.25 * max(float(table["offered_rps"].max()), 1.0))
    heading(axis, "load, requests per second")
    count = int(load.requests["failed"].sum())
    labels = [(float(answered.iloc[-1]), "answered", BLUE)]
    if count:
        labels.append((0.0, f"{count} failed", RED))
    rates = [rate for _, rate in load.profile.points]
    at = load.profile.points[int(np.argmax(rates))][0]
    axis.annotate(
        f"offered: up to {max(rates):.0f}/s", (at, max(rates)), xytext=(0, 12), textcoords="offset points",
        fontsize=8, color=GREY,
    )  # fmt: skip
    label_right(axis, labels)


def _utilization_panel(axis: Axes, rows: pd.DataFrame, hpa: Mapping[str, Any]) -> None:
    used, target = rows["cpu_utilization_percent"].astype(float), float(rows["cpu_target_percent"].iloc[-1])
    down, up = tolerances(hpa)
    axis.axhspan(target * (1 - down), target * (1 + up), color=SKY, alpha=0.25, linewidth=0)
    axis.axhline(target, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axis.step(rows["t"], used, where="post", color=ORANGE)
    top = max(target * 1.6, float(used.max()) * 1.12 if used.notna().any() else 0)
    axis.set_ylim(0, top)
    heading(axis, "CPU utilization as the HPA saw it, % of the pods' requests")
    band = f"±{down:.0%}" if down == up else f"−{down:.0%} +{up:.0%}"
    labels = [(target, f"target {target:.0f} %\n({band} tolerated)", INK)]
    if used.notna().any():
        labels.append((float(used.dropna().iloc[-1]), f"now {used.dropna().iloc[-1]:.0f} %", ORANGE))
    label_right(axis, labels)


def _replica_panel(
    axis: Axes,
    rows: pd.DataFrame,
    recording: Recording,
    hpa: Mapping[str, Any],
    zero: float,
    predicted: pd.DataFrame | None,
) -> None:
    low, high = int(rows["min_replicas"].iloc[-1]), int(rows["max_replicas"].iloc[-1])
    for limit in (low, high):
        axis.axhline(limit, color="#AAAAAA", linewidth=1, linestyle=(0, (1, 2)))
    desired = rows["desired_replicas"].astype(float)
    axis.step(rows["t"], desired, where="post", color=BLUE, linewidth=2.2)
    labels = [
        (float(desired.iloc[-1]), "desired", BLUE),
        (high, f"max {high}", GREY),
        (low, f"min {low}", GREY),
    ]
    ready = _ready(recording, hpa)
    if not ready.empty:
        axis.fill_between(
            ready["t_seconds"] - zero,
            ready["ready_replicas"],
            step="post",
            color=GREEN,
            alpha=0.22,
            linewidth=0,
        )
        axis.step(
            ready["t_seconds"] - zero, ready["ready_replicas"], where="post", color=GREEN, linewidth=1.4
        )
        labels.append((float(ready["ready_replicas"].iloc[-1]), "ready", GREEN))
    if predicted is not None and len(predicted):
        axis.step(
            predicted["t_seconds"] - zero,
            predicted["replicas"],
            where="post",
            color=INK,
            linewidth=1.2,
            linestyle=(0, (3, 2)),
        )
        labels.append((float(predicted["replicas"].iloc[-1]), "predicted", INK))
    axis.set_ylim(0, high * 1.18)
    whole_numbers(axis)
    for at, before, after in _changes(rows):
        up = after > before
        axis.annotate(
            f"{'+' if up else '−'}{abs(after - before)}", (at, max(after, before)), xytext=(0, 3),
            textcoords="offset points", ha="center", fontsize=8.5, color=BLUE, fontweight="bold",
        )  # fmt: skip
    heading(axis, "replicas")
    label_right(axis, labels)


def _ready(recording: Recording, hpa: Mapping[str, Any]) -> pd.DataFrame:
    table = recording.deployments
    return table[table["name"] == dig(hpa, "spec.scaleTargetRef.name")] if "name" in table else table


def _changes(rows: pd.DataFrame) -> list[tuple[float, int, int]]:
    """(time, before, after) of each change of the desired replicas."""
    desired = [int(value) for value in rows["desired_replicas"]]
    pairs = zip(rows["t"].tolist()[1:], desired, desired[1:], strict=False)
    return [(at, before, after) for at, before, after in pairs if before != after]


def _why_panel(axis: Axes, held: list[Held]) -> None:
    """One lane per kind of rule; a bar where it decided, with its words where they fit."""
    begin, end = axis.get_xlim()
    pixels = axis.get_window_extent().width / max(end - begin, 1e-9)
    for lane, name in enumerate(LANES):
        y = len(LANES) - 1 - lane
        bars = [bar for bar in held if bar.lane == name]
        if not bars:
            _write(axis, begin, y, "did not come into play", "#999999")
        said = set[str]()
        for bar, following in zip(bars, [*bars[1:], None][: len(bars)], strict=True):
            free_until = following.begin_s if following else end
            axis.barh(y, bar.seconds, left=bar.begin_s, height=0.78, color=_LANE_COLOURS[name], linewidth=0)
            inside, beside = bar.seconds * pixels, (free_until - bar.end_s) * pixels
            if _wide(bar.text) < inside:
                _write(axis, bar.begin_s, y, bar.text, text_on(_LANE_COLOURS[name]))
            elif _wide(bar.text) < beside and bar.text not in said:
                _write(axis, bar.end_s, y, bar.text, INK)
            elif _wide(bar.short) < inside:
                _write(axis, bar.begin_s, y, bar.short, text_on(_LANE_COLOURS[name]))
            said.add(bar.text)
    axis.set_ylim(-0.55, len(LANES) - 0.45)
    axis.set_yticks([])
    axis.grid(visible=False)
    heading(axis, "what kept the replicas from following the metric, and when")
    for lane, name in enumerate(LANES):
        height = (len(LANES) - lane - 0.45) / len(LANES)
        axis.annotate(
            _LANE_NAMES[name], (1, height), xytext=(6, 0), xycoords="axes fraction",
            textcoords="offset points", va="center", fontsize=8.5, color=GREY, annotation_clip=False,
        )  # fmt: skip


def _wide(text: str) -> float:
    """Pixels that a text of 8 points takes, about."""
    return 5.6 * len(text) + 8


def _write(axis: Axes, x: float, y: float, text: str, colour: str) -> None:
    axis.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, color=colour
    )


def _latency_panel(axis: Axes, load: LoadResult) -> None:
    table = load.over_time(2.0).dropna(subset=["p50_ms"])
    t = table["t_seconds"] + 1.0
    axis.fill_between(t, table["p50_ms"], table["p95_ms"], color=PINK, alpha=0.18, linewidth=0)
    axis.plot(t, table["p95_ms"], color=PINK)
    axis.plot(t, table["p50_ms"], color=INK, linewidth=1.2)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high / low < 30:  # hardly a power of ten in the picture
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.minorticks_off()
    heading(axis, "latency from scheduled arrival, milliseconds (log scale)")
    if len(table):
        label_right(
            axis,
            [(float(table["p95_ms"].iloc[-1]), "p95", PINK), (float(table["p50_ms"].iloc[-1]), "p50", INK)],
        )


def _message(rows: pd.DataFrame, load: LoadResult | None) -> str:
    """The figure's message, from the data."""
    changes = _changes(rows)
    ups = [(at, after) for at, before, after in changes if after > before]
    if not ups:
        return (
            "The autoscaler changed nothing" if not changes else f"Scaled down to {changes[-1][2]} replicas"
        )
    first, most = ups[0][0], max(after for _, after in ups)
    onset = _onset(load) if load else None
    low = changes[0][1]
    if onset is not None and first > onset:
        return f"{first - onset:.0f} s after the load rose, the HPA scaled up: {low} → {most} replicas"
    return f"The HPA scaled {low} → {most} replicas"


def _onset(load: LoadResult) -> float | None:
    """When the load's profile rose most within 5 s."""
    grid = np.arange(0, load.profile.duration_s, 0.5)
    rises = load.profile.rate(grid + 5) - load.profile.rate(grid)
    if not len(grid) or rises.max() <= 0:
        return 0.0
    begin = int(np.argmax(rises > 0.9 * rises.max()))
    climbing = np.flatnonzero(np.diff(load.profile.rate(grid[begin:])) > 0)
    return float(grid[begin] + (grid[1] - grid[0]) * (climbing[0] + 1 if len(climbing) else 0))


def _rules(hpa: Mapping[str, Any]) -> str:
    rules = []
    for word, way in (("up", "scaleUp"), ("down", "scaleDown")):
        window = dig(hpa, f"spec.behavior.{way}.stabilizationWindowSeconds")
        if window is not None:
            rules.append(f"{word} window {window} s")
    limits = f"{dig(hpa, 'spec.minReplicas', 1)} to {dig(hpa, 'spec.maxReplicas')} replicas"
    return ", ".join(
        [
            f"{dig(hpa, 'spec.scaleTargetRef.kind', '')} {dig(hpa, 'spec.scaleTargetRef.name', '')}",
            limits,
            *rules,
        ]
    )
