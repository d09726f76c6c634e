"""A node's failure, side by side with the same one after tuning: what was waited for, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from labkit.errors import ConfigError
from labkit.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    SKY,
    WIDTH_IN,
    LabFigure,
    headline,
    house,
    text_on,
)
from labkit.record.outage import Outage

_POD = {"ready": SKY, "not ready": ORANGE, "terminating": "#BBBBBB"}
_SHORT = {"terminating": "ending"}
_WORDS = {"True": "Ready", "False": "NotReady", "Unknown": "NotReady (Unknown)"}
_GONE = "#F3D3C4"
_LANE_IN = 0.19
_LEFT, _RIGHT, _BETWEEN = 0.115, 0.985, 0.03


@house
def outage_figure(outages: Mapping[str, Outage], *, title: str = "") -> Figure:
    """One column per outage on the same time axis: the gaps with what explains them, node, pods, capacity.

    Args:
        outages: column title → outage; two read best.

    Raises:
        ConfigError: there is none.
    """
    if not outages:
        raise ConfigError("There is no outage to draw.", "labkit.record.outage reads one out of a recording.")
    end = max(each.end_s for each in outages.values())
    begin = min(
        -0.09 * end, *(each.heartbeat_s - 1 for each in outages.values() if not isnan(each.heartbeat_s))
    )
    lanes = max(len(_lanes(each)) for each in outages.values())
    heights = [0.78, 0.62, _LANE_IN * max(lanes, 2), 0.85]
    top, gap, bottom = 1.05, 0.24, 0.5
    total = top + sum(heights) + gap * (len(heights) - 1) + bottom
    figure = LabFigure(figsize=(WIDTH_IN, total))
    FigureCanvasAgg(figure)
    width = (_RIGHT - _LEFT - _BETWEEN * (len(outages) - 1)) / len(outages)
    for place, (name, one) in enumerate(outages.items()):
        left, y, axes = _LEFT + place * (width + _BETWEEN), total - top, []
        for height in heights:
            axis = figure.add_axes((left, (y - height) / total, width, height / total))
            axis.set_xlim(begin, end)
            axes.append(axis)
            y -= height + gap
        _column(axes, one, lanes, first=place == 0)
        figure.text(
            left,
            1 - 0.88 / total,
            name[:1].upper() + name[1:],
            fontsize=10.5,
            fontweight="bold",
            color=INK,
            va="center",
        )
    said = title or _message(outages)
    headline(figure, said, "the machine is lost at 0 s; times as the API server saw them", left=0.03)
    return figure


def _column(axes: list[Axes], one: Outage, lanes: int, *, first: bool) -> None:
    waits, node, pods, capacity = axes
    _waits(waits, one)
    _node(node, one, first=first)
    _pods(pods, one, lanes, first=first)
    _capacity(capacity, one, first=first)
    for axis in axes:
        axis.grid(visible=False)
        axis.axvline(0, color=INK, linewidth=1.1, linestyle=(0, (2, 2)))
        if not isnan(one.restored_s):
            axis.axvline(one.restored_s, color=GREEN, linewidth=1.1, linestyle=(0, (2, 2)))
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False, bottom=False)
        axis.spines["bottom"].set_visible(False)
    capacity.set_xlabel("seconds since the machine was lost")


def _waits(axis: Axes, one: Outage) -> None:
    """What is waited for, as a bar in parts."""
    grace, tolerated = f"{one.settings.grace_s:.0f} s", f"{one.settings.toleration_s:.0f} s"
    parts = [
        (0.0, one.noticed_s, RED, f"not noticed:\ngrace period {grace}"),
        (one.tainted_s, one.evicted_s, ORANGE, f"tolerated:\ntolerationSeconds {tolerated}"),
        (one.evicted_s, one.replaced_s, BLUE, "start"),
    ]
    axis.set_ylim(-1.6, 1.5)
    axis.set_yticks([])
    low, high = axis.get_xlim()
    pixels = axis.get_window_extent().width / (high - low)
    for begin, end, colour, why in parts:
        if isnan(begin) or isnan(end):
            continue
        axis.barh(0.4, end - begin, left=begin, height=0.95, color=colour, linewidth=0)
        room, middle = (end - begin) * pixels, (begin + end) / 2
        text = f"{end - begin:.0f} s" if room > 30 else f"{end - begin:.0f}" if room > 10 else ""
        axis.text(middle, 0.4, text, ha="center", va="center", fontsize=8.5, color=text_on(colour))
        if room > 4.9 * max(len(line) for line in why.splitlines()):
            axis.text(middle, -0.28, why, ha="center", va="top", fontsize=7.5, color=GREY, linespacing=1.15)
    if not isnan(one.replaced_s):
        said = f"all {one.replicas} pods serve again after {one.replaced_s:.0f} s"
        wide = one.replaced_s * pixels > 4.6 * len(said)
        axis.text(
            one.replaced_s if wide else 0, 1.02, said, ha="right" if wide else "left", va="bottom",
            fontsize=8, color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip


def _node(axis: Axes, one: Outage, *, first: bool) -> None:
    low, high = axis.get_xlim()
    for begin, end, status in one.conditions:
        colour = GREEN if status == "True" else RED if status == "Unknown" else ORANGE
        _bar(axis, 2, begin, end, _WORDS.get(status, status), colour)
    for begin, end, taints in one.taints:
        names = [
            part.removeprefix("node.kubernetes.io/") for part in taints.split(",") if part not in ("", "None")
        ]
        if names:
            _bar(axis, 1, begin, end, _shortened(names), "#DDDDDD")
    beats = [at for at in one.heartbeats if low <= at <= high]
    axis.plot(beats, [0] * len(beats), linestyle="none", marker="o", markersize=4.5, color=BLUE)
    if not isnan(one.heartbeat_s) and not isnan(one.noticed_s):
        axis.annotate(
            "", (one.noticed_s, 0), xytext=(one.heartbeat_s, 0),
            arrowprops={"arrowstyle": "->", "color": RED, "linewidth": 1.1, "shrinkA": 3, "shrinkB": 0},
        )  # fmt: skip
        silent = one.noticed_s - one.heartbeat_s
        axis.text(
            (one.noticed_s + one.heartbeat_s) / 2, 0, f"silent for {silent:.0f} s", va="center", ha="center",
            fontsize=7.5, color=RED, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    axis.set_ylim(-0.55, 2.5)
    labels = [f"{one.node}", "taints", "heartbeats"] if first else []
    axis.set_yticks([2, 1, 0] if first else [], labels, fontsize=8, color=INK)
    if not isnan(one.restored_s):
        axis.annotate(
            "machine is back", (one.restored_s, 1), xytext=(-3, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=7.5, color=GREEN, ha="right",
        )  # fmt: skip


def _shortened(names: list[str]) -> str:
    """Keys once, with their effects."""
    effects: dict[str, list[str]] = {}
    for name in names:
        key, _, effect = name.partition(":")
        effects.setdefault(key, []).append(effect)
    return "  ".join(f"{key}: {', '.join(sorted(found))}" for key, found in effects.items())


def _lanes(one: Outage) -> list[str]:
    """Pods that were there when the machine was lost, first those on it, then those that came later."""
    begins = one.pods.groupby("name")["begin_s"].min()
    ends = one.pods.groupby("name")["end_s"].max()
    on = one.pods.drop_duplicates("name").set_index("name")["node"]
    shown = [str(name) for name in begins.index if ends[name] > 0]
    return sorted(shown, key=lambda name: (begins[name] > 0, on[name] != one.node, float(begins[name]), name))


def _pods(axis: Axes, one: Outage, lanes: int, *, first: bool) -> None:
    for place, name in enumerate(_lanes(one)):
        own = one.pods[one.pods["name"] == name]
        for row in own.itertuples():
            begin, end, state = float(row.begin_s), float(row.end_s), str(row.state)  # type: ignore[arg-type]
            lost = row.node == one.node and begin < 0 <= end and state == "ready"
            _bar(axis, place, begin, min(end, 0) if lost else end, "" if lost else _on(row), _POD[state])
            if lost:
                _bar(axis, place, 0, end, f"lost · {row.node}", _GONE)
    axis.set_ylim(max(lanes, 2) - 0.45, -0.55)
    axis.set_yticks([])
    if first:
        axis.annotate(
            "pods", (0, 0.5), xytext=(-8, 0), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="center", fontsize=8, color=INK,
        )  # fmt: skip


def _on(row: object) -> str:
    state = _SHORT.get(row.state, str(row.state))  # type: ignore[attr-defined]
    return f"{state} · {row.node}" if row.node else state  # type: ignore[attr-defined]


def _capacity(axis: Axes, one: Outage, *, first: bool) -> None:
    """Pods that serve, and those that the Deployment's status counts."""
    steps = one.serving
    t = [max(float(at), axis.get_xlim()[0]) for at in steps["t_seconds"]] + [one.end_s]
    really = [*steps["really"], steps["really"].iloc[-1]]
    said = [*steps["said"], steps["said"].iloc[-1]]
    axis.fill_between(t, really, [one.replicas] * len(t), step="post", color=RED, alpha=0.22, linewidth=0)
    axis.step(t, said, where="post", color=GREY, linewidth=1.1, linestyle=(0, (3, 2)))
    axis.step(t, really, where="post", color=BLUE, linewidth=2)
    axis.set_ylim(-0.25, one.replicas * 1.28)
    axis.set_yticks(range(0, one.replicas + 1, max(1, one.replicas // 4)))
    if first:
        axis.annotate(
            "pods\nthat serve", (0, 0.5), xytext=(-22, 0), xycoords="axes fraction",
            textcoords="offset points", ha="right", va="center", fontsize=8, color=BLUE,
        )  # fmt: skip
    else:
        axis.tick_params(labelleft=False)
    nobody = f", nobody serves for {one.nobody_serves_s:.0f} s" if one.nobody_serves_s >= 1 else ""
    axis.text(
        0.3, one.replicas * 1.06, f" missing: {one.pod_seconds_lost:.0f} pod-seconds{nobody}", fontsize=8,
        color=RED, va="bottom",
    )  # fmt: skip
    pixels = axis.get_window_extent().width / (axis.get_xlim()[1] - axis.get_xlim()[0])
    if one.noticed_s * pixels > 85:
        axis.text(
            one.noticed_s / 2, one.replicas - 0.12, "what the API says", fontsize=7.5, color=GREY, va="top",
            ha="center",
        )  # fmt: skip


def _bar(axis: Axes, y: float, begin: float, end: float, text: str, colour: str) -> None:
    """A bar with its text in it, as far as there is room."""
    low, high = axis.get_xlim()
    begin, end = max(begin, low), min(end, high)
    if end <= begin:
        return
    axis.barh(y, end - begin, left=begin, height=0.78, color=colour, linewidth=0)
    room = (end - begin) / (high - low) * axis.get_window_extent().width
    for words in (text, text.partition(" (")[0], text.partition(" · ")[0], text.partition(":")[0]):
        if words and room > 5.0 * len(words) + 5:
            axis.text(begin, y, f" {words}", va="center", fontsize=7.5, color=text_on(colour), clip_on=True)
            return


def _message(outages: Mapping[str, Outage]) -> str:
    names, values = list(outages), list(outages.values())
    if len(values) == 1:
        return f"{values[0].node} was lost: all pods back after {values[0].replaced_s:.0f} s"
    before, after = values[0], values[-1]
    cost, later = f"{before.pod_seconds_lost:.0f}", f"{after.pod_seconds_lost:.0f}"
    only = "only " if after.pod_seconds_lost < before.pod_seconds_lost else ""
    return f"Losing a machine cost {cost} pod-seconds; {names[-1]}, {only}{later}"
