"""Burn-rate alerts, judged on a shift that is over: how early they rang, and how often in vain.

The *burn rate* is how many times faster than allowed the error budget is spent: 1 spends it exactly in the
objective's period. An alarm rings while the rate is too high over a long window (it matters) and over a
short one (it still goes on); see https://sre.google/workbook/alerting-on-slos/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import yaml

from labkit.durations import seconds
from labkit.errors import ConfigError

EARLY_S: Final = 12.0
"""An alarm that rings later after the first bad answer is of little use."""
LINGER_S: Final = 20.0
"""One that rings longer after customers are well again is not believed the next time."""
HURTS: Final = 0.10
"""Share of bad requests from which an incident must be told."""
_SEVERE_SHARE, _SEVERE_LEAST, _SEVERE_S = 0.5, 20, 10.0
_STEP_S = 0.5

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Rule:
    """Ring while the budget burns `burn_rate` times too fast, over both windows."""

    long_s: float
    short_s: float
    burn_rate: float


@dataclass(frozen=True)
class Alert:
    """An alarm that rings while one of its rules holds.

    Attributes:
        objective_percent: share of good requests that is promised.
    """

    rules: tuple[Rule, ...]
    objective_percent: float = 99.5


@dataclass(frozen=True)
class Told:
    """How an alert did on a shift; times in seconds since the shop opened.

    Attributes:
        alarms: begin and end of each time it rang.
        incidents: per incident that hurt customers: number, first_bad_s, last_bad_s, told_s (NaN: never),
            after_s (from the first bad answer), rings_on_s (after the last one).
        in_vain: alarms while no incident was open.
    """

    alarms: tuple[tuple[float, float], ...]
    incidents: pd.DataFrame
    in_vain: tuple[tuple[float, float], ...]


def read_alert(file: str | Path) -> Alert:
    """An alert as the learner wrote it.

    Raises:
        ConfigError: the file is not there, or a field is missing or makes no sense.
    """
    try:
        raw = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("rules"), list) or not raw["rules"]:
        raise ConfigError(f"{file} has no list of rules.", "Below `rules`, give at least one.")
    objective = raw.get("objective", 99.5)
    if not isinstance(objective, int | float) or not 0 < objective < 100:
        raise ConfigError(f"objective: {objective!r} is no percentage below 100.", "Promised are 99.5.")
    return Alert(tuple(_rule(n, each) for n, each in enumerate(raw["rules"], 1)), float(objective))


def _rule(number: int, raw: Any) -> Rule:
    if not isinstance(raw, dict):
        raise ConfigError(f"Rule {number} has no fields.", "It needs longWindow, shortWindow and burnRate.")
    windows = []
    for name in ("longWindow", "shortWindow"):
        try:
            windows.append(seconds(str(raw.get(name, ""))))
        except ValueError:
            raise ConfigError(
                f"Rule {number}, {name}: {raw.get(name)!r} is no duration.", "Such as 30s or 5m."
            ) from None
    rate = raw.get("burnRate")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
        raise ConfigError(f"Rule {number}, burnRate: {rate!r} is no number above 0.", "Such as 14.4.")
    if min(windows) <= 0 or windows[1] > windows[0]:
        raise ConfigError(f"Rule {number}: the short window must be above 0 s, and not above the long one.")
    return Rule(windows[0], windows[1], float(rate))


def judge_alert(alert: Alert, judged: pd.DataFrame, outcomes: pd.DataFrame) -> Told:
    """Let an alert ring on a recorded shift.

    Args:
        judged: requests, see `slo.judge`; what is known counts from `done_s`.
        outcomes: incidents, with number, struck_s, recovered_s and customers.
    """
    end = float(judged["done_s"].max()) if len(judged) else 0.0
    grid = np.arange(_STEP_S, end + _STEP_S, _STEP_S)
    ringing = np.zeros(len(grid), dtype=bool)
    for rule in alert.rules:
        worst = rule.burn_rate * (1 - alert.objective_percent / 100)
        over = [_bad_share(judged, grid, window) > worst for window in (rule.long_s, rule.short_s)]
        ringing |= over[0] & over[1]
    alarms = _spans(grid, ringing)
    hurt = [_incident(row, judged, alarms) for row in outcomes.to_dict("records")]
    columns = ["number", "first_bad_s", "last_bad_s", "told_s", "after_s", "rings_on_s"]
    table = pd.DataFrame([row for row in hurt if row], columns=columns)
    return Told(alarms, table, tuple(alarm for alarm in alarms if not _during(alarm[0], outcomes, end)))


def burn_rate(judged: pd.DataFrame, at: Array, window_s: float, objective_percent: float) -> Array:
    """How many times too fast the budget was spent in the window before each moment."""
    rate: Array = _bad_share(judged, at, window_s) / (1 - objective_percent / 100)
    return rate


def _bad_share(judged: pd.DataFrame, at: Array, window_s: float) -> Array:
    done = judged.sort_values("done_s", kind="stable")
    times = done["done_s"].to_numpy(dtype=float)
    sums = np.concatenate([[0], np.cumsum(done["bad"].to_numpy(dtype=int))])
    first, last = (np.searchsorted(times, moment, side="right") for moment in (at - window_s, at))
    share: Array = (sums[last] - sums[first]) / np.maximum(last - first, 1)
    return share


def _spans(grid: Array, on: Array) -> tuple[tuple[float, float], ...]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(int), [0]])))
    return tuple(
        (float(grid[begin]), float(grid[end - 1])) for begin, end in zip(edges[::2], edges[1::2], strict=True)
    )


def _incident(row: dict[Any, Any], judged: pd.DataFrame, alarms: Sequence[tuple[float, float]]) -> Any:
    """A row of `Told.incidents`, or None where too few customers noticed anything."""
    own = _own(row, judged)
    bad = own.loc[own["bad"], "done_s"]
    if not row["customers"] or len(bad) < 2 or own["bad"].mean() < HURTS:
        return None
    first, last = float(bad.min()), float(bad.max())
    ringing = [(begin, end) for begin, end in alarms if begin <= last and end >= first]
    told = max(ringing[0][0], first) if ringing else float("nan")
    on_s = max(ringing[-1][1] - last, 0.0) if ringing else float("nan")
    return int(row["number"]), first, last, told, told - first, on_s


def _own(row: dict[Any, Any], judged: pd.DataFrame) -> pd.DataFrame:
    """The requests that were sent while an incident was open."""
    until = np.inf if pd.isna(row["recovered_s"]) else row["recovered_s"]
    return judged[judged["t_seconds"].between(row["struck_s"], until)]


def _during(moment: float, outcomes: pd.DataFrame, end: float) -> bool:
    """Whether an incident was open, or had been until a moment ago: answers come after requests."""
    until = outcomes["recovered_s"].fillna(end) + LINGER_S
    return bool(((outcomes["struck_s"] <= moment) & (moment <= until)).any())


def unheard(alert: Alert, judged: pd.DataFrame, outcomes: pd.DataFrame) -> list[int]:
    """Numbers of the severe incidents of a shift for which an alert never rang.

    An incident is severe when, in some 10 s of it, half of the requests were bad, and 20 at least.
    """
    alarms = judge_alert(alert, judged, outcomes).alarms
    missed = []
    for row in outcomes.to_dict("records"):
        bad = _own(row, judged)
        if not bad["bad"].any():
            continue
        grid = np.arange(bad["done_s"].min() + _SEVERE_S, bad["done_s"].max() + _STEP_S, _STEP_S)
        share = _bad_share(bad, grid, _SEVERE_S)
        times = np.sort(bad.loc[bad["bad"], "done_s"].to_numpy(dtype=float))
        count = np.searchsorted(times, grid, "right") - np.searchsorted(times, grid - _SEVERE_S, "right")
        severe = (share >= _SEVERE_SHARE) & (count >= _SEVERE_LEAST)
        rang = any(begin <= grid.max() and end >= times.min() for begin, end in alarms) if len(grid) else True
        if severe.any() and not rang:
            missed.append(int(row["number"]))
    return missed
