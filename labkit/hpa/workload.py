"""Load over time: shapes, and recorded traces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labkit.hpa.errors import TraceError, number

Floats = NDArray[np.floating[Any]]
MAX_STEPS: Final = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """Arrival rates in requests/s, one per step of `dt_s` seconds, from time zero.

    Loads of equal length and step can be added, and scaled by a number.
    """

    rates: Floats
    dt_s: float

    def __post_init__(self) -> None:
        number("dt_s", self.dt_s, above=True, kind=TraceError)
        if self.rates.ndim != 1 or not 0 < len(self.rates) <= MAX_STEPS:
            raise TraceError("rates", f"found {self.rates.shape} values", f"Give 1 to {MAX_STEPS:,} rates.")
        bad = np.flatnonzero(~np.isfinite(self.rates) | (self.rates < 0))
        if len(bad):
            problem = f"found {self.rates[bad[0]]} (and {len(bad) - 1} more like it)"
            raise TraceError(f"rates[{bad[0]}]", problem, "Rates are finite and not negative.")

    def __add__(self, other: Load) -> Load:
        if len(self.rates) != len(other.rates) or self.dt_s != other.dt_s:
            raise TraceError("rates", "loads of different length or step cannot be added")
        return Load(self.rates + other.rates, self.dt_s)

    def __mul__(self, factor: float) -> Load:
        return Load(self.rates * number("factor", factor, kind=TraceError), self.dt_s)

    @property
    def duration_s(self) -> float:
        return len(self.rates) * self.dt_s

    @property
    def frame(self) -> pd.DataFrame:
        """Columns `t_seconds` (each step's start) and `arrival_rps`."""
        return pd.DataFrame({"t_seconds": _times(len(self.rates), self.dt_s), "arrival_rps": self.rates})

    def arrivals(self, seed: int | None = None) -> Floats:
        """Requests per step: the expected number, or with a seed a Poisson draw around it."""
        expected: Floats = self.rates * self.dt_s
        if seed is None:
            return expected
        return np.random.default_rng(seed).poisson(expected) * 1.0


def _times(steps: int, dt_s: float) -> Floats:
    return np.arange(steps) * dt_s


def _steps(duration_s: float, dt_s: float) -> int:
    number("duration_s", duration_s, above=True, kind=TraceError)
    number("dt_s", dt_s, above=True, kind=TraceError)
    steps = math.ceil(duration_s / dt_s)
    if steps > MAX_STEPS:
        raise TraceError("duration_s", f"makes {steps:,} steps", f"At most {MAX_STEPS:,}: raise dt_s.")
    return steps


def constant(rps: float, duration_s: float, dt_s: float = 15.0) -> Load:
    """The same rate all the time."""
    return Load(np.full(_steps(duration_s, dt_s), number("rps", rps, kind=TraceError)), dt_s)


def step(low: float, high: float, at_s: float, until_s: float, duration_s: float, dt_s: float = 15.0) -> Load:
    """`high` from `at_s` to `until_s`, `low` before and after."""
    t = _times(_steps(duration_s, dt_s), dt_s)
    return Load(np.where((t >= at_s) & (t < until_s), float(high), float(low)), dt_s)


def ramp(low: float, high: float, at_s: float, until_s: float, duration_s: float, dt_s: float = 15.0) -> Load:
    """From `low` at `at_s` in a straight line to `high` at `until_s`, and on at `high`."""
    if not at_s < until_s:
        raise TraceError("until_s", f"found {until_s}, must be after at_s {at_s}")
    t = _times(_steps(duration_s, dt_s), dt_s)
    return Load(np.interp(t, [at_s, until_s], [low, high]), dt_s)


def sine(
    mean: float,
    amplitude: float,
    period_s: float = 86_400.0,
    duration_s: float = 86_400.0,
    dt_s: float = 15.0,
    phase_s: float = 0.0,
) -> Load:
    """A wave around `mean`, lowest at time zero (midnight of a day) unless shifted; never below zero."""
    number("period_s", period_s, above=True, kind=TraceError)
    t = _times(_steps(duration_s, dt_s), dt_s) - phase_s
    wave = mean - amplitude * np.cos(2 * np.pi * t / period_s)
    return Load(np.maximum(wave, 0.0), dt_s)


def spikes(
    base: float,
    height: float,
    every_s: float,
    width_s: float,
    duration_s: float,
    dt_s: float = 15.0,
    seed: int | None = None,
) -> Load:
    """`base`, and `height` more for `width_s` in each `every_s`; with a seed, each at a random moment."""
    number("every_s", every_s, above=True, kind=TraceError)
    number("width_s", width_s, above=True, kind=TraceError)
    t = _times(_steps(duration_s, dt_s), dt_s)
    starts = np.arange(math.ceil(duration_s / every_s)) * every_s
    room = max(every_s - width_s, 0.0)
    rng = np.random.default_rng(seed)
    starts = starts + (rng.uniform(0, room, len(starts)) if seed is not None else room / 2)
    inside = t - starts[np.minimum((t // every_s).astype(int), len(starts) - 1)]
    return Load(base + np.where((inside >= 0) & (inside < width_s), float(height), 0.0), dt_s)


def sampled(rate: Callable[[Floats], Any], duration_s: float, dt_s: float = 1.0) -> Load:
    """Any function of time as a load, such as the `rate` of a `labkit.load.Profile`.

    Args:
        rate: requests/s at each of an array of times in seconds.
    """
    t = _times(_steps(duration_s, dt_s), dt_s)
    return Load(np.broadcast_to(np.asarray(rate(t), dtype=float), t.shape).copy(), dt_s)


def trace(frame: pd.DataFrame, dt_s: float = 15.0, max_gap_s: float | None = None) -> Load:
    """A recorded load, held from each sample to the next.

    Args:
        frame: columns `t_seconds` (rising) and `arrival_rps`.
        max_gap_s: longest time allowed between samples; by default three times the median.

    Raises:
        TraceError: a column is missing, unsorted, has gaps, or holds NaN or negative rates.
    """
    for column in ("t_seconds", "arrival_rps"):
        if column not in frame:
            raise TraceError(column, "is missing", "The trace needs t_seconds and arrival_rps.")
    t, rates = (frame[c].to_numpy(dtype=float) for c in ("t_seconds", "arrival_rps"))
    if len(t) < 2:
        raise TraceError("t_seconds", f"found {len(t)} samples", "Give at least two.")
    _check_times(t, max_gap_s)
    bad = np.flatnonzero(~np.isfinite(rates) | (rates < 0))
    if len(bad):
        raise TraceError(f"arrival_rps[{bad[0]}]", f"found {rates[bad[0]]}", "Rates are not negative.")
    last = float(np.median(np.diff(t)))
    at = t[0] + _times(_steps(t[-1] - t[0] + last, dt_s), dt_s)
    return Load(rates[np.searchsorted(t, at + 1e-9, side="right") - 1], dt_s)


def _check_times(t: Floats, max_gap_s: float | None) -> None:
    if not np.isfinite(t).all():
        at = int(np.flatnonzero(~np.isfinite(t))[0])
        raise TraceError(f"t_seconds[{at}]", f"found {t[at]}")
    gaps = np.diff(t)
    if (gaps <= 0).any():
        at = int(np.flatnonzero(gaps <= 0)[0]) + 1
        problem = f"found {t[at]:g} after {t[at - 1]:g}"
        raise TraceError(f"t_seconds[{at}]", problem, "Sort the trace and drop samples of equal time.")
    limit = 3 * float(np.median(gaps)) if max_gap_s is None else max_gap_s
    if (gaps > limit + 1e-9).any():
        at = int(np.argmax(gaps)) + 1
        problem = f"a gap of {gaps[at - 1]:g} s before it (allowed: {limit:g} s)"
        raise TraceError(f"t_seconds[{at}]", problem, "Fill the gap, or raise max_gap_s.")


SHAPES: Final[Sequence[str]] = ("constant", "step", "ramp", "sine", "spikes")
