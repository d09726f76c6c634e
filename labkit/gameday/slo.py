"""Service level: which requests were good, availability, and the error budget.

The words are those of Google's SRE book (https://sre.google/sre-book/service-level-objectives/): the
*indicator* (SLI) is the share of good requests, the *objective* (SLO) says how large it shall be, and the
*error budget* is the rest: the bad requests that the objective allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from labkit.errors import ConfigError

VERDICTS = ("good", "slow", "degraded", "failed")
_TOLD_S = 0.7
"""The load generator tells of answers twice a second."""
_ROUNDED_S = 1e-4
"""It rounds the times; two requests are further apart."""

Array = np.ndarray[Any, np.dtype[np.float64]]
MONTH_MINUTES = 30 * 24 * 60.0


@dataclass(frozen=True)
class Objective:
    """What is promised: `percent` of the requests are answered with all that belongs to the answer in time.

    Raises:
        ConfigError: an objective of 100 % or more (which leaves no budget), or none at all.
    """

    percent: float = 99.5
    within_ms: float = 1500.0

    def __post_init__(self) -> None:
        if not 0 < self.percent < 100 or self.within_ms <= 0:
            raise ConfigError(
                f"{self.percent} % within {self.within_ms} ms is no objective.", "Above 0 %, and below 100 %."
            )

    @property
    def known_after_s(self) -> float:
        """How long after it was sent a request is known to be late."""
        return self.within_ms / 1000 + _TOLD_S

    def __str__(self) -> str:
        return (
            f"{self.percent:g} % of requests good: answered, with live prices, within {self.within_ms:g} ms"
        )


@dataclass(frozen=True)
class Availability:
    """How the objective was met.

    Attributes:
        percent: share of good requests; NaN without requests.
        budget: bad requests that the objective allows for as many requests.
        spent_percent: bad requests by the budget; above 100 the objective was missed.
        outage_minutes: total outage that would have cost as much.
        month_minutes: total outage that the objective allows in a month of 30 days.
        month_percent: how much of it was spent.
    """

    requests: int
    good: int
    percent: float
    budget: float
    spent_percent: float
    outage_minutes: float
    month_minutes: float

    @property
    def bad(self) -> int:
        """Requests that were not good."""
        return self.requests - self.good

    @property
    def month_percent(self) -> float:
        return 100 * self.outage_minutes / self.month_minutes


def judge(requests: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """Tell good requests from bad ones.

    Args:
        requests: as `labkit.load` measures them; a column `degraded` (of header X-Degraded) says which part
            of an answer was missing.

    Returns:
        t_seconds (when it was sent), done_s (when it was answered, or given up), latency_ms, verdict
        (good, slow, degraded or failed) and bad, by t_seconds.
    """
    degraded = requests["degraded"] if "degraded" in requests else pd.Series("", index=requests.index)
    conditions = [
        requests["failed"].to_numpy(dtype=bool),
        (degraded.fillna("") != "").to_numpy(dtype=bool),
        (requests["latency_ms"] > objective.within_ms).to_numpy(dtype=bool),
    ]
    verdict = np.select(conditions, ["failed", "degraded", "slow"], "good")
    judged = pd.DataFrame(
        {
            "t_seconds": requests["t_scheduled_s"].astype(float),
            "done_s": requests["t_scheduled_s"] + requests["latency_ms"] / 1000,
            "latency_ms": requests["latency_ms"].astype(float),
            "verdict": verdict,
            "bad": verdict != "good",
        }
    )
    return judged.sort_values("t_seconds", kind="stable", ignore_index=True)


def with_pending(
    requests: pd.DataFrame,
    arrivals: Array,
    now_s: float,
    objective: Objective,
    *,
    unsent: Sequence[float] | Array = (),
) -> pd.DataFrame:
    """The requests, and those that were sent and have no answer although it is late already.

    Args:
        arrivals: when requests are sent, ascending.
        now_s: the present; the answers of the last half second may not have been told yet.
        unsent: arrivals that the generator could not send; no customer waits for those.
    """
    late = arrivals[arrivals < now_s - objective.known_after_s]
    known = np.append(
        np.sort(np.concatenate([requests["t_scheduled_s"].to_numpy(dtype=float), unsent])), np.inf
    )
    nearest = known[np.searchsorted(known, late - _ROUNDED_S)]
    open_ones = late[nearest > late + _ROUNDED_S]
    if not len(open_ones):
        return requests
    # The moment at which they were known to be late stands still; what they tell of was noticed then.
    latency_ms = 1000 * objective.known_after_s
    rows = pd.DataFrame({"t_scheduled_s": open_ones, "latency_ms": latency_ms, "failed": False})
    return pd.concat([requests, rows], ignore_index=True).fillna({"degraded": "", "status": 0})


def availability(judged: pd.DataFrame, objective: Objective) -> Availability:
    """Availability and error budget of judged requests."""
    count, bad = len(judged), int(judged["bad"].sum())
    allowed = 1 - objective.percent / 100
    budget = count * allowed
    minutes = float(judged["t_seconds"].max()) / 60 * bad / count if count else 0.0
    return Availability(
        requests=count,
        good=count - bad,
        percent=100 * (count - bad) / count if count else float("nan"),
        budget=budget,
        spent_percent=100 * bad / budget if budget else 0.0,
        outage_minutes=minutes,
        month_minutes=MONTH_MINUTES * allowed,
    )


def per_second(judged: pd.DataFrame, window_s: float = 2.0) -> pd.DataFrame:
    """Requests per second by verdict: t_seconds (middle of the window), and a column per verdict."""
    if judged.empty:
        return pd.DataFrame(columns=["t_seconds", *VERDICTS])
    window = (judged["t_seconds"] // window_s).astype(int)
    counts = pd.crosstab(window, judged["verdict"]).reindex(columns=list(VERDICTS), fill_value=0)
    counts = counts.reindex(range(int(window.max()) + 1), fill_value=0) / window_s
    counts.insert(0, "t_seconds", (counts.index + 0.5) * window_s)
    return counts.reset_index(drop=True)


def spent(judged: pd.DataFrame) -> pd.DataFrame:
    """What is spent of the error budget over time: t_seconds, bad (requests so far that were not good)."""
    return pd.DataFrame({"t_seconds": judged["t_seconds"], "bad": judged["bad"].cumsum().astype(int)})
