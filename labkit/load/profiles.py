"""Load profiles: requests per second over time, and the arrival times drawn from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from labkit.errors import ConfigError

Spacing = Literal["poisson", "uniform"]
Array = np.ndarray[Any, np.dtype[np.float64]]
MAX_REQUESTS = 500_000
_SINE_PIECES = 48


@dataclass(frozen=True)
class Profile:
    """A rate that is linear between points (t_seconds, requests per second); two points at one t are a jump.

    `a + b` is a then b; `a | b` is both at once; `a * 2` is twice the rate.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        values = np.array(self.points, dtype=float).reshape(-1, 2)
        if len(values) < 2 or not np.isfinite(values).all():
            raise ConfigError("A load profile needs a duration and finite rates.")
        if (np.diff(values[:, 0]) < 0).any() or values[-1, 0] <= 0 or values[0, 0] != 0:
            raise ConfigError(
                "A load profile's times must begin at 0 and increase.", "Durations are over 0 s."
            )
        if (values[:, 1] < 0).any():
            raise ConfigError("A load profile's rate is below 0.", "A sine's amplitude is at most its mean.")

    @property
    def duration_s(self) -> float:
        return self.points[-1][0]

    def rate(self, t_seconds: Any) -> Array:
        """Requests per second at times; at a jump the later value, 0 outside."""
        return self._at(np.asarray(t_seconds, dtype=float), "right")

    def until(self, seconds: float) -> Profile:
        """Its first `seconds`; all of it where it is not longer."""
        if seconds >= self.duration_s:
            return self
        kept = tuple(point for point in self.points if point[0] < seconds)
        return Profile((*kept, (seconds, float(self._at(np.asarray(seconds), "left")))))

    def expected_requests(self) -> float:
        """How many requests are to be expected in all."""
        return float(self._cumulative()[-1])

    def arrivals(self, spacing: Spacing = "poisson", seed: int = 0) -> Array:
        """Arrival times in seconds, ascending.

        Args:
            spacing: "poisson" for independent clients, "uniform" for a metronome that follows the rate.
            seed: the same seed gives the same times.
        """
        cumulative = self._cumulative()
        total = cumulative[-1]
        if total > MAX_REQUESTS:
            raise ConfigError(
                f"The profile has {total:,.0f} requests; at most {MAX_REQUESTS:,} are sent in one run.",
                "Lower the rate or the duration.",
            )
        if spacing == "uniform":
            marks = np.arange(0.5, total)
        else:
            enough = int(total + 10 * np.sqrt(total) + 50)
            marks = np.cumsum(np.random.default_rng(seed).exponential(size=enough))
        return self._inverse(marks[marks < total], cumulative)

    def _cumulative(self) -> Array:
        times, rates = np.array(self.points).T
        areas = np.diff(times) * (rates[1:] + rates[:-1]) / 2
        return np.concatenate([[0.0], np.cumsum(areas)])

    def _inverse(self, marks: Array, cumulative: Array) -> Array:
        """Times at which the expected number of requests reaches `marks`: exact, as each piece is linear."""
        times, rates = np.array(self.points).T
        piece = np.searchsorted(cumulative, marks, side="right") - 1
        rest = marks - cumulative[piece]
        length = np.maximum(np.diff(times), 1e-12)
        slope = (np.diff(rates) / length)[piece]
        root = np.sqrt(np.maximum(rates[piece] ** 2 + 2 * slope * rest, 0.0))
        found: Array = times[piece] + 2 * rest / np.maximum(rates[piece] + root, 1e-12)
        return found

    def _at(self, t: Array, side: Literal["left", "right"]) -> Array:
        times, rates = np.array(self.points).T
        last = len(times) - 1
        after = np.clip(np.searchsorted(times, t, side=side), 1, last)
        length = times[after] - times[after - 1]
        part = np.clip((t - times[after - 1]) / np.where(length > 0, length, 1), 0, 1)
        value = rates[after - 1] + part * (rates[after] - rates[after - 1])
        inside = (t >= 0) & (t < times[last]) if side == "right" else (t > 0) & (t <= times[last])
        found: Array = np.where(inside, value, 0.0)
        return found

    def __add__(self, other: Profile) -> Profile:
        shift = self.duration_s
        return Profile(self.points + tuple((shift + t, rate) for t, rate in other.points))

    def __or__(self, other: Profile) -> Profile:
        times = np.unique([t for t, _ in self.points + other.points])
        before, after = (self._at(times, side) + other._at(times, side) for side in ("left", "right"))
        pairs = [((t, left), (t, right)) for t, left, right in zip(times, before, after, strict=True)]
        inner = [point for pair in pairs for point in pair][1:-1]
        return Profile(tuple((float(t), float(rate)) for t, rate in inner))

    def __mul__(self, factor: float) -> Profile:
        return Profile(tuple((t, rate * factor) for t, rate in self.points))


def constant(rps: float, seconds: float) -> Profile:
    """The same rate all the time."""
    return Profile(((0.0, rps), (seconds, rps)))


def ramp(begin_rps: float, end_rps: float, seconds: float) -> Profile:
    """From one rate to another, linearly."""
    return Profile(((0.0, begin_rps), (seconds, end_rps)))


def steps(stages: Iterable[tuple[float, float]]) -> Profile:
    """Constant stages (requests per second, seconds), one after the other."""
    made = np.array(list(stages), dtype=float).reshape(-1, 2)
    if not len(made):
        raise ConfigError("A load profile needs at least one stage.")
    if not (made[:, 1] > 0).all():
        raise ConfigError("A stage of a load profile has no duration.", "Durations are over 0 s.")
    ends = np.cumsum(made[:, 1])
    times = np.stack([np.concatenate([[0.0], ends[:-1]]), ends], axis=1).ravel()
    return Profile(tuple(zip(times.tolist(), np.repeat(made[:, 0], 2).tolist(), strict=True)))


def sine(mean_rps: float, amplitude_rps: float, period_s: float, seconds: float) -> Profile:
    """A wave around a mean, beginning at the mean and rising."""
    times = np.linspace(0, seconds, max(2, round(_SINE_PIECES * seconds / period_s) + 1))
    rates = mean_rps + amplitude_rps * np.sin(2 * np.pi * times / period_s)
    return Profile(tuple(zip(times.tolist(), rates.tolist(), strict=True)))


def spikes(base_rps: float, peak_rps: float, every_s: float, width_s: float, seconds: float) -> Profile:
    """A base rate with a spike of `width_s` at the end of each `every_s`; it ends after `seconds`."""
    if not 0 < width_s < every_s:
        raise ConfigError(f"Spikes of {width_s} s do not fit into every {every_s} s.")
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"A load of {seconds} s makes no sense.", "Durations are over 0 s.")
    count = max(1, math.ceil(seconds / every_s - 1e-9))
    return steps([(base_rps, every_s - width_s), (peak_rps, width_s)] * count).until(seconds)


def trace(rates_rps: Sequence[float], interval_s: float) -> Profile:
    """Measured rates, one per interval."""
    return steps((float(rate), interval_s) for rate in rates_rps)
