"""Durations as Go reads them: `15s`, `1m30s`, `10.5s`, `2h0m0s`, `500ms`."""

from __future__ import annotations

import re

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PART = r"([0-9]+\.?[0-9]*|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns)"
_WHOLE = re.compile(f"([+-]?)(0|(?:{_PART})+)")


def seconds(text: str) -> float:
    """A duration in seconds.

    Raises:
        ValueError: it is none, as for `5` or `1x`.
    """
    match = _WHOLE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration")
    total = sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_PART, match[2]))
    return -total if match[1] == "-" else total
