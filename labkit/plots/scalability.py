"""The scalability figure: work done against replicas, the law fitted to it, and what would be ideal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from labkit.hpa.measure import Scalability
from labkit.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    heading,
    headline,
    house,
    label_right,
    panels,
    whole_numbers,
)


@house
def scalability_figure(
    measured: Mapping[int, float],
    law: Scalability,
    *,
    machine_rps: float | None = None,
    title: str = "",
) -> Figure:
    """How much more work more replicas do.

    Args:
        measured: replicas → requests/s they answered when offered more than that.
        law: fitted to it; drawn as a curve, with its ideal line.
        machine_rps: requests/s that all CPUs of the machine together could do, drawn as a ceiling.
        title: the message; by default what the data say.
    """
    counts = sorted(measured)
    most = counts[-1]
    grid = np.linspace(0, most * 1.04, 200)[1:]
    ideal = law.rate * grid
    fitted = np.array([law.throughput(n) for n in np.maximum(grid, 1.0)]) * np.minimum(grid, 1.0)
    figure, (axis,) = panels([3.2])
    axis.set_xlim(0, most * 1.04)
    axis.set_ylim(0, 1.08 * max(float(ideal[-1]), *measured.values()))
    axis.fill_between(grid, fitted, ideal, color=ORANGE, alpha=0.14, linewidth=0)
    axis.plot(grid, ideal, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    axis.plot(grid, fitted, color=BLUE)
    axis.plot(counts, [measured[n] for n in counts], "o", color=INK, markersize=6, zorder=3)
    labels = [
        (float(ideal[-1]), "ideal: each\nas good as\nthe first", GREY),
        (float(fitted[-1]), "the law,\nfitted", BLUE),
    ]
    if machine_rps is not None and machine_rps < axis.get_ylim()[1]:
        axis.axhline(machine_rps, color=ORANGE, linewidth=1.2)
        labels.append((machine_rps, "all CPUs of\nthis machine", ORANGE))
    for n in counts:
        axis.annotate(
            f"{measured[n]:.0f}/s", (n, measured[n]), xytext=(0, -15), textcoords="offset points",
            ha="center", fontsize=8.5, color=INK,
        )  # fmt: skip
    heading(axis, "requests answered per second, with more offered than that")
    axis.set_xlabel("replicas")
    whole_numbers(axis)
    axis.set_xticks(range(most + 1))
    label_right(axis, labels)
    times = measured[most] / measured[counts[0]] * counts[0]
    ideal_percent = 100 * times / most
    said = title or f"{most} replicas did {times:.1f} times the work of one: {ideal_percent:.0f} % of ideal"
    headline(figure, said, describe(law))
    return figure


def describe(law: Scalability) -> str:
    """The law's numbers in words."""
    peak = law.peak_replicas
    best = f"; most work with {peak:.0f} replicas" if np.isfinite(peak) and peak < 1000 else ""
    return (
        f"Universal Scalability Law: {law.rate:.1f}/s for one, contention {100 * law.contention:.1f} %, "
        f"coherency {100 * law.coherency:.2f} %{best} (R² {law.r_squared:.3f})"
    )
