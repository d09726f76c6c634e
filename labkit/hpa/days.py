"""A day of a shop, to try autoscalers on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from labkit.hpa.workload import Load, trace

_DAY = Path(__file__).with_name("shop_day.csv")


def shop_day() -> Load:
    """24 hours from midnight, from one rate per 5 minutes: night, noon, evening, and a sale at three.

    The day is made up, after the shape of such days, and kept as a file like a recorded one.
    """
    return trace(pd.read_csv(_DAY))
