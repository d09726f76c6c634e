"""A node's memory: what the scheduler may promise, beside what is really left."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from labkit.errors import ConfigError
from labkit.plots.style import BLUE, GREEN, GREY, INK, ORANGE, RED, SKY, headline, house, panels, text_on
from labkit.record.memory import NodeMemory

_RESERVED = "#BBBBBB"


@house
def memory_figure(states: Mapping[str, NodeMemory], *, title: str = "") -> Figure:
    """Two bars per state: the scheduler's books, and the machine. Both end at the eviction threshold.

    Args:
        states: what the state is called → the node's memory then.

    Raises:
        ConfigError: there is none.
    """
    if not states:
        raise ConfigError("There is no memory to draw.", "labkit.record.memory reads a node's.")
    figure, (axis,) = panels([0.95 * len(states)], right=0.97, left=0.2)
    width = max(one.capacity_mib - one.threshold_mib for one in states.values())
    width = max(width, *(one.used_mib for one in states.values()))
    axis.set_xlim(0, width * 1.04)
    ticks: list[tuple[float, str]] = []
    for place, (name, one) in enumerate(states.items()):
        books, machine = place * 2.6, place * 2.6 + 0.9
        ticks += [(books, f"{name}\nthe scheduler's books"), (machine, "the machine")]
        _stack(axis, books, [
            (one.requested_mib, "requested", BLUE), (one.promised_mib, "may still be requested", SKY),
            (one.reserved_mib, "reserved", _RESERVED),
        ])  # fmt: skip
        _stack(axis, machine, [
            (one.used_mib - one.system_mib, "used by pods with requests", BLUE),
            (max(one.free_mib, 0), "free", GREEN),
            (one.system_mib, "used by the system", ORANGE),
        ])  # fmt: skip
        edge = one.capacity_mib - one.threshold_mib
        axis.plot([edge, edge], [books - 0.5, machine + 0.5], color=RED, linewidth=2)
        axis.annotate(
            "eviction ", (edge, books - 0.52), ha="right", va="bottom", fontsize=8, color=RED,
            annotation_clip=False,
        )  # fmt: skip
    axis.set_yticks([at for at, _ in ticks], [text for _, text in ticks], color=INK, fontsize=8.5)
    axis.set_ylim(ticks[-1][0] + 0.7, -0.85)
    axis.grid(visible=False)
    axis.set_xlabel("MiB of memory above the eviction threshold", color=GREY)
    headline(figure, title or _message(states), "a request is a promise; a reservation keeps it", left=0.03)
    return figure


def _stack(axis: object, y: float, parts: list[tuple[float, str, str]]) -> None:
    left = 0.0
    high = axis.get_xlim()[1]  # type: ignore[attr-defined]
    pixels = axis.get_window_extent().width  # type: ignore[attr-defined]
    for amount, word, colour in parts:
        if amount <= 0.5:
            continue
        axis.barh(y, amount, left=left, height=0.72, color=colour, edgecolor="white", linewidth=1)  # type: ignore[attr-defined]
        room = amount / high * pixels
        options = (f"{word}  {amount:.0f}", f"{word.split()[-1]} {amount:.0f}", f"{amount:.0f}")
        text = next((one for one in options if room > 5.6 * len(one) + 6), "")
        axis.text(  # type: ignore[attr-defined]
            left + amount / 2, y, text, ha="center", va="center", fontsize=8.5, color=text_on(colour)
        )
        left += amount


def _message(states: Mapping[str, NodeMemory]) -> str:
    first, *_, last = [next(iter(states.values())), *states.values()]
    over = first.promised_mib - first.free_mib
    if len(states) == 1:
        return f"{first.node} promises {over:.0f} MiB more than it has"
    rest = max(0.0, last.promised_mib - last.free_mib)
    return f"{first.node} promised {over:.0f} MiB that it did not have; with a reservation, {rest:.0f} MiB"
