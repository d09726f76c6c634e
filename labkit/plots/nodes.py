"""Figures of nodes: how one joins, and how one is lost and comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import pandas as pd
from matplotlib.axes import Axes
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
    heading,
    headline,
    house,
    panels,
    text_on,
)
from labkit.record import Recording

_STATE_COLOURS = {
    "Ready": GREEN,
    "NotReady": ORANGE,
    "NotReady (Unknown)": RED,
    "running": SKY,
    "not ready": ORANGE,
    "terminating": "#BBBBBB",
    "waiting": "#E3E3E3",
}
_MAX_PODS = 14


class Step(Protocol):
    """A step that ended at a time."""

    @property
    def name(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def t_seconds(self) -> float: ...


@house
def join_figure(steps: Sequence[Step], *, title: str = "") -> Figure:
    """The steps of a node's join as a waterfall: each bar is the time from the step before to this one."""
    if not steps:
        raise ConfigError("There are no steps to draw.")
    figure, (axis,) = panels([0.42 * len(steps)], right=0.97, left=0.19)
    end = steps[-1].t_seconds
    before = 0.0
    longest = max(steps, key=lambda step: step.t_seconds - _previous(steps, step))
    for place, step in enumerate(steps):
        took = step.t_seconds - before
        axis.barh(
            place, max(took, end * 0.003), left=before, height=0.62, color=ORANGE if step is longest else BLUE
        )
        roomy = step.t_seconds < 0.6 * end
        axis.annotate(
            f"{took:.2f} s   {_short(step.text)}", (step.t_seconds if roomy else before, place),
            xytext=(6 if roomy else -6, 0), textcoords="offset points", va="center",
            ha="left" if roomy else "right", fontsize=8.5, color=INK,
        )  # fmt: skip
        before = step.t_seconds
    axis.set_yticks(range(len(steps)), [step.name for step in steps], color=INK, fontsize=9)
    axis.set_ylim(len(steps) - 0.4, -0.6)
    axis.set_xlim(0, end * 1.02)
    axis.grid(visible=False)
    axis.set_xlabel("seconds since the join began")
    message = title or f"A worker joined in {end:.1f} s; the longest step was “{longest.name}”"
    headline(figure, message, "each bar is the time since the step before", left=0.03)
    return figure


def _previous(steps: Sequence[Step], step: Step) -> float:
    place = list(steps).index(step)
    return steps[place - 1].t_seconds if place else 0.0


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


@house
def node_timeline(
    recording: Recording,
    node: str,
    *,
    marks: Mapping[str, float] | None = None,
    title: str = "",
    namespace: str = "",
) -> Figure:
    """A node's failure and recovery: its condition, its taints, its pods and those that replaced them.

    Args:
        recording: of the whole time; exact times are taken from its transitions.
        node: the node's name.
        marks: text → t_seconds, such as when the fault was made; the first one is where times count from.
        namespace: show the pods of this namespace only.
    """
    changes = recording.transitions
    own = changes[(changes["kind"] == "Node") & (changes["name"] == node)]
    if own.empty:
        raise ConfigError(f"The recording has no node {node!r}.", "Nodes are recorded by every Recorder.")
    marks = dict(marks or {})
    zero = next(iter(marks.values()), 0.0)
    end = float(recording.nodes["t_seconds"].max()) - zero
    pods = changes[(changes["kind"] == "Pod") & ((changes["namespace"] == namespace) | (namespace == ""))]
    lanes = _pod_lanes(pods, node, zero, end)
    figure, (top, bottom) = panels([0.75, 0.24 * max(len(lanes), 2) + 0.1], right=0.97, left=0.21)
    status = _runs(own[own["what"] == "ready"], _node_word, zero, end)
    taints = _runs(own[own["what"] == "taints"], str, zero, end)
    top.set_xlim(-min(zero, max(2.0, end * 0.06)), end)
    for begin, until, word in status:
        _bar(top, 1, begin, until, word, _STATE_COLOURS.get(word, GREY))
    for begin, until, word in taints:
        if word and word != "None":
            _bar(top, 0, begin, until, word.replace("node.kubernetes.io/", "").replace(",", "  "), "#DDDDDD")
    top.set_yticks([1, 0], [f"node {node}", "taints"], color=INK)
    top.set_ylim(-0.55, 1.55)
    for place, (label, bars) in enumerate(lanes):
        for begin, until, word in bars:
            _bar(bottom, place, begin, until, word, _STATE_COLOURS[word])
        bottom.annotate(
            label, (0, place), xytext=(-6, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="center", fontsize=8, color=INK,
        )  # fmt: skip
    bottom.set_yticks([])
    bottom.set_ylim(max(len(lanes), 2) - 0.4, -0.6)
    heading(bottom, "pods that were on it, and those that replaced them")
    for axis in (top, bottom):
        axis.grid(visible=False)
        for at in marks.values():
            axis.axvline(at - zero, color=INK, linewidth=1.2, linestyle=(0, (2, 2)))
    for text, at in marks.items():
        top.annotate(
            text, (at - zero, 1), xytext=(3, 4), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8.5, color=INK,
        )  # fmt: skip
    bottom.set_xlabel(f"seconds since “{next(iter(marks))}”" if marks else "seconds")
    headline(figure, title or _node_message(node, status, lanes), "as the API server saw it", left=0.03)
    return figure


Bar = tuple[float, float, str]


def _node_word(status: object) -> str:
    return {"True": "Ready", "False": "NotReady"}.get(str(status), "NotReady (Unknown)")


def _runs(changes: pd.DataFrame, word: object, zero: float, end: float) -> list[Bar]:
    """(begin, end, word) between changes of one fact."""
    times = [float(t) - zero for t in changes["t_seconds"]]
    words = [word(value) for value in changes["after"]]  # type: ignore[operator]
    return list(zip(times, [*times[1:], end], words, strict=True))


def _pod_lanes(pods: pd.DataFrame, node: str, zero: float, end: float) -> list[tuple[str, list[Bar]]]:
    """Label and bars of the pods on a node, and of those that were made after it failed elsewhere."""
    nodes = pods[(pods["what"] == "node") & (pods["after"] != "")].drop_duplicates("name", keep="last")
    on = dict(zip(nodes["name"], nodes["after"], strict=True))
    appeared = pods[(pods["what"] == "exists") & (pods["after"] == True)].groupby("name")["t_seconds"].min()  # noqa: E712
    here = [name for name in appeared.index if on.get(name) == node and appeared[name] <= zero]
    later = [name for name in appeared.index if appeared[name] > zero]
    names = sorted(here) + sorted(later, key=lambda name: float(appeared[name]))
    return [
        (f"{name} · {on.get(name, 'no node')}", _pod_bars(pods[pods["name"] == name], zero, end))
        for name in names[:_MAX_PODS]
    ]


def _pod_bars(changes: pd.DataFrame, zero: float, end: float) -> list[Bar]:
    facts: dict[str, object] = {}
    points: list[tuple[float, str]] = []
    for t, same in changes.groupby("t_seconds", sort=True):
        facts.update(zip(same["what"], same["after"], strict=True))
        gone = facts.get("exists") is False
        word = (
            ""
            if gone
            else "terminating"
            if facts.get("terminating")
            else "running"
            if facts.get("ready")
            else ""
        )
        if not gone and not word:
            word = "not ready" if facts.get("phase") == "Running" else "waiting"
        if not points or points[-1][1] != word:
            points.append((float(str(t)) - zero, word))
    ends = [*(at for at, _ in points[1:]), end]
    return [(at, until, word) for (at, word), until in zip(points, ends, strict=True) if word]


def _bar(axis: Axes, y: float, begin: float, end: float, text: str, colour: str) -> None:
    axis.barh(y, end - begin, left=begin, height=0.74, color=colour, linewidth=0)
    left, right = axis.get_xlim()
    seen = min(end, right) - max(begin, left)
    if seen / (right - left) * axis.get_window_extent().width > 5.6 * len(text) + 6:
        axis.text(
            max(begin, left), y, f" {text}", va="center", fontsize=8, color=text_on(colour), clip_on=True
        )


def _node_message(node: str, status: list[Bar], lanes: list[tuple[str, list[Bar]]]) -> str:
    lost = next((begin for begin, _, word in status if word != "Ready" and begin > 0), None)
    back = next(
        (begin for begin, _, word in status if word == "Ready" and lost is not None and begin > lost), None
    )
    if lost is None:
        return f"{node} stayed Ready"
    evicted = [
        begin for _, bars in lanes for begin, _, word in bars if word == "terminating" and begin > lost
    ]
    parts = [f"{node}: noticed after {lost:.0f} s"]
    parts += [f"pods evicted after {min(evicted):.0f} s"] if evicted else []
    parts += [f"Ready again after {back:.0f} s"] if back is not None else []
    return ", ".join(parts)
