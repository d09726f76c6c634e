"""A practice shift: ten minutes of requests, made up, on which every learner's alert is judged alike."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

_END_S, _RPS = 600.0, 6
_INCIDENTS: Final = (
    # number, kind, begins, ends, bad ones of every ten requests
    (1, "node-loss", 60.0, 84.0, 4),
    (2, "bad-deploy", 150.0, 210.0, 7),
    (3, "drift", 250.0, 262.0, 0),
    (4, "load-surge", 330.0, 370.0, 2),
)
_BLIPS: Final = ((45.0, 1), (110.0, 1), (230.0, 2), (300.0, 3), (420.0, 1), (480.0, 3), (505.0, 1))
"""Seconds in which a few requests fail although nothing is wrong, as on every day."""


def practice_shift() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Requests as `slo.judge` has them, and incidents with number, kind, customers, struck_s, recovered_s."""
    number = np.arange(int(_END_S * _RPS))
    sent = number / _RPS
    bad = np.zeros(len(number), dtype=bool)
    for _, _, begin, end, of_ten in _INCIDENTS:
        bad |= (sent >= begin) & (sent < end) & ((number * 3) % 10 < of_ten)
    for at, count in _BLIPS:
        bad |= (sent >= at) & (sent < at + count / _RPS - 1e-9)
    latency_ms = np.where(bad, 400.0, 40.0)
    judged = pd.DataFrame(
        {"t_seconds": sent, "done_s": sent + latency_ms / 1000, "latency_ms": latency_ms, "bad": bad}
    )
    rows = [(number, kind, of_ten > 0, begin, end) for number, kind, begin, end, of_ten in _INCIDENTS]
    columns = ["number", "kind", "customers", "struck_s", "recovered_s"]
    return judged, pd.DataFrame(rows, columns=columns)
