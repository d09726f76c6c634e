"""Quantities as the controller counts them, in whole thousandths, and back."""

from __future__ import annotations

from typing import Any, Final

from labkit.hpa.errors import HpaError, SpecError
from labkit.kube.quantities import Quantity, parse_quantity

BYTES_UNITS: Final = (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))
SMALL_UNITS: Final = ((9, ""), (6, "m"), (3, "u"), (0, "n"))
NANO: Final = 9


def exact(field: str, text: Any, kind: type[HpaError] = SpecError) -> Quantity:
    """The exact value of a quantity; anything that is none raises `kind`, naming `field`."""
    try:
        return parse_quantity(text)
    except ValueError:
        raise kind(field, f"found {text!r}", "Give a quantity, such as 250m, 1.5 or 64Mi.") from None


def thousandths(field: str, text: Any, kind: type[HpaError] = SpecError) -> int:
    """A quantity in thousandths, rounded up as the controller does (`0.1m` is 1)."""
    value = exact(field, text, kind).scaled(3)
    if value is None:
        raise kind(field, f"found {text!r}", "The controller counts in thousandths, up to 2**63 of them.")
    return value


def approximate(field: str, text: Any) -> float:
    """A quantity as the float that the controller compares with (its stored form has steps of 1000)."""
    value = exact(field, text)
    for power in (0, 3, 6, 9):
        if value.exponent + power >= 0 or value.number % 10 ** -(value.exponent + power) == 0:
            scaled = Quantity(value.number, value.exponent + power)
            return float(scaled) * 10.0**-power
    raise AssertionError("a quantity has no more than nine decimal places")


def small(number: float) -> str:
    """A ratio as the shortest quantity of its value, to a billionth: `50m`, `100u`, `2`."""
    billionths = round(number * 10**NANO)
    power, unit = next((p, u) for p, u in SMALL_UNITS if billionths % 10**p == 0)
    return f"{billionths // 10**power}{unit}"


def quantity(milli: int, resource: str = "") -> str:
    """Thousandths in the shortest usual form: `250m`, `2`, and `64Mi` for memory."""
    if milli % 1000:
        return f"{milli}m"
    value = milli // 1000
    if resource == "memory":
        for unit, size in BYTES_UNITS:
            if value and value % size == 0:
                return f"{value // size}{unit}"
    return str(value)
