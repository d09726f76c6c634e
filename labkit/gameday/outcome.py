"""When each incident was detected and when it was over: pure functions of what was observed.

Definitions, which the report repeats:

* **detected**: the first symptom that anybody could see. Either customers suffer (of the requests answered or
  given up in 3 s a tenth were bad, and two at least), or the API shows it (a node that does not answer,
  an autoscaler above its target, a Service without an address, …), whichever came first.
* **recovered**: the first moment from which, for 3 s, the objects were as they should be and customers
  did not suffer.
* An incident that takes effect the moment it strikes, and whose objects were good again for 3 s before
  anybody noticed, is recovered **unnoticed**: what customers suffer later has other reasons.
* **time to detect** and **time to recover** both count from the strike.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

WINDOW_S = 3.0
SHARE, LEAST = 0.10, 2
HOLD_S = 3.0
_GRID_S = 0.25

STRIKES = ["number", "kind", "customers", "at_once", "struck_s", "acted_s"]
"""Columns of strikes: `customers` whether requests can suffer; `at_once` whether it takes effect when it
strikes; struck_s and acted_s NaN until it happened."""
SIGNS = ["number", "t_seconds", "symptom", "good", "text"]
"""Columns of signs: what a look at an incident's objects showed."""

_WORDS = {
    "failed": "requests fail",
    "degraded": "answers without live prices",
    "slow": "answers come late",
}

Array = np.ndarray[Any, np.dtype[Any]]


def suffering(times: Array, bad: Array, at: Array, *, ahead: bool) -> Array:
    """Whether customers suffer at moments.

    Args:
        times: of requests, ascending; bad: whether each was.
        at: the moments.
        ahead: look at the 3 s after each moment, else at those before it (the moment itself included).
    """
    begin, end = (at, at + WINDOW_S) if ahead else (at - WINDOW_S, at)
    side: Literal["left", "right"] = "left" if ahead else "right"
    first, last = np.searchsorted(times, begin, side=side), np.searchsorted(times, end, side=side)
    sums = np.concatenate([[0], np.cumsum(bad)])
    count, failed = last - first, sums[last] - sums[first]
    found: Array = (failed >= LEAST) & (failed >= SHARE * count)
    return found


def outcomes(strikes: pd.DataFrame, signs: pd.DataFrame, judged: pd.DataFrame, now_s: float) -> pd.DataFrame:
    """What became of each incident.

    Args:
        strikes: one row per incident, columns STRIKES.
        signs: columns SIGNS, by t_seconds.
        judged: requests, see `slo.judge`.
        now_s: nothing after this moment is known; what was sent before it is judged.

    Returns:
        The strikes, and per incident: state ("to come", "open", "detected", "recovered"), detected_s,
        detected_by, recovered_s, detect_s and recover_s (seconds since the strike), bad_requests (sent while
        it was the latest open incident that can hurt customers). One that was recovered unnoticed has no
        detected_s and no detect_s.
    """
    rows = [_outcome(strike, signs, judged, now_s) for strike in strikes.to_dict("records")]
    columns = [*STRIKES, "state", "detected_s", "detected_by", "recovered_s", "detect_s", "recover_s"]
    table = pd.DataFrame(rows, columns=columns)
    table["bad_requests"] = _blamed(table, judged)
    return table


def _outcome(
    strike: dict[Any, Any], signs: pd.DataFrame, judged: pd.DataFrame, now_s: float
) -> dict[str, Any]:
    struck = float(strike["struck_s"])
    found = {**strike, "state": "to come", "detected_by": ""}
    if np.isnan(struck) or struck > now_s:
        return found
    own = signs[(signs["number"] == strike["number"]) & (signs["t_seconds"] >= struck)]
    customers = bool(strike["customers"])
    detected, by = _detected(struck, own, judged, customers)
    found["state"] = "open"
    if strike["at_once"]:
        healed = _recovered(struck, own, judged, customers, now_s)
        if healed is not None and (detected is None or healed + HOLD_S <= detected):
            return found | {"state": "recovered", "recovered_s": healed, "recover_s": healed - struck}
    if detected is None:
        return found
    found |= {"state": "detected", "detected_s": detected, "detected_by": by, "detect_s": detected - struck}
    recovered = _recovered(detected, own, judged, customers, now_s)
    if recovered is not None:
        found |= {"state": "recovered", "recovered_s": recovered, "recover_s": recovered - struck}
    return found


def _detected(
    struck: float, own: pd.DataFrame, judged: pd.DataFrame, customers: bool
) -> tuple[float | None, str]:
    seen: list[tuple[float, str]] = []
    symptoms = own[own["symptom"].astype(bool)]
    if len(symptoms):
        seen.append((float(symptoms["t_seconds"].iloc[0]), str(symptoms["text"].iloc[0])))
    if customers and len(judged):
        done = judged.sort_values("done_s", kind="stable")
        times, bad = done["done_s"].to_numpy(), done["bad"].to_numpy()
        before = bool(suffering(times, bad, np.array([struck]), ahead=False)[0])
        moments = times[times > struck]
        hurt = suffering(times, bad, moments, ahead=False)
        if before:  # from another incident: only what begins after that tells of this one
            calm = np.flatnonzero(~hurt)
            hurt[: calm[0] if len(calm) else None] = False
        if hurt.any():
            at = float(moments[np.argmax(hurt)])
            recent = done[(done["done_s"] <= at) & (done["done_s"] > at - WINDOW_S)]
            words = recent.loc[recent["bad"], "verdict"].mode().iloc[0]
            seen.append((at, f"customers: {_WORDS[words]}"))
    return min(seen) if seen else (None, "")


def _recovered(
    since: float, own: pd.DataFrame, judged: pd.DataFrame, customers: bool, now_s: float
) -> float | None:
    grid = np.arange(since, now_s + 1e-9, _GRID_S)
    times = own["t_seconds"].to_numpy(dtype=float)
    hold = round(HOLD_S / _GRID_S)
    if not len(times) or len(grid) <= hold:
        return None
    place = np.searchsorted(times, grid, side="right") - 1
    good = own["good"].to_numpy(dtype=bool)[np.maximum(place, 0)] & (place >= 0)
    well: Array = np.asarray(np.lib.stride_tricks.sliding_window_view(good, hold + 1).all(axis=1))
    if customers and len(judged):
        begins = grid[: len(well)]
        sent, bad = judged["t_seconds"].to_numpy(), judged["bad"].to_numpy()
        well = well & ~suffering(sent, bad, begins, ahead=True)
    return float(grid[np.argmax(well)]) if well.any() else None


def _blamed(table: pd.DataFrame, judged: pd.DataFrame) -> list[int]:
    """Bad requests of each incident."""
    bad = judged.loc[judged["bad"], "t_seconds"].to_numpy() if len(judged) else np.array([])
    owner = np.full(len(bad), -1)
    for place, row in table.sort_values("struck_s").iterrows():
        if row["customers"] and not np.isnan(row["struck_s"]):
            end = row["recovered_s"] if not np.isnan(row["recovered_s"]) else np.inf
            owner[(bad >= row["struck_s"]) & (bad <= end)] = place
    return [int((owner == place).sum()) for place in table.index]
