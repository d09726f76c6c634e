"""Integer and float conversions as the controller's Go code makes them (64-bit x86).

The differences from Python show only far outside normal operation (overflow, division by zero, negative
metrics), where the controller's answer is odd but well defined; the model gives the same one.
"""

from __future__ import annotations

import math
from typing import Final

INT32_MIN: Final = -(2**31)
INT32_MAX: Final = 2**31 - 1
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


def int32(value: int) -> int:
    """The low 32 bits of an integer, signed."""
    return (value - INT32_MIN) % 2**32 + INT32_MIN


def int64(value: int) -> int:
    """The low 64 bits of an integer, signed."""
    return (value - INT64_MIN) % 2**64 + INT64_MIN


def float_to_int32(value: float) -> int:
    """A float cut to an integer; what does not fit becomes the lowest integer."""
    if not math.isfinite(value) or not INT32_MIN - 1 < value < INT32_MAX + 1:
        return INT32_MIN
    return int(value)


def ceil32(value: float) -> int:
    """A float rounded up to a 32-bit integer."""
    return float_to_int32(float(math.ceil(value)) if math.isfinite(value) else value)


def ceil64(value: float) -> int:
    """A float rounded up to a 64-bit integer; what does not fit becomes the lowest integer."""
    rounded = math.ceil(value) if math.isfinite(value) else INT64_MIN
    return rounded if INT64_MIN <= rounded <= INT64_MAX else INT64_MIN


def quotient(dividend: int, divisor: int) -> int:
    """Integer division, rounded towards zero."""
    result = abs(dividend) // abs(divisor)
    return result if (dividend < 0) == (divisor < 0) else -result


def divide(dividend: float, divisor: float) -> float:
    """Float division in which a zero divisor gives an infinity or NaN instead of an exception."""
    if divisor:
        return dividend / divisor
    return math.nan if dividend == 0 or math.isnan(dividend) else math.copysign(math.inf, dividend)


def nanoseconds(seconds: float) -> int:
    """Seconds as whole nanoseconds, in which all times are compared."""
    return round(seconds * 1e9)
