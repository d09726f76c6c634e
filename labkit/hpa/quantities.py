"""Kubernetes quantities (`250m`, `1.5`, `64Mi`) as whole thousandths, and back."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from labkit.hpa.errors import HpaError, SpecError

BYTES_UNITS: Final = (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))


def decimal(field: str, text: Any, kind: type[HpaError] = SpecError) -> Decimal:
    """The exact value of a quantity; anything that is none raises `kind`, naming `field`."""
    from kubernetes.utils.quantity import parse_quantity

    try:
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise ValueError
        value: Decimal = parse_quantity(text)  # type: ignore[no-untyped-call]
        if not value.is_finite():
            raise ValueError
    except (ValueError, ArithmeticError):
        raise kind(field, f"found {text!r}", "Give a quantity, such as 250m, 1.5 or 64Mi.") from None
    return value


def thousandths(field: str, text: Any, kind: type[HpaError] = SpecError) -> int:
    """A quantity in thousandths, rounded up as the controller does (`0.1m` is 1)."""
    return int((decimal(field, text, kind) * 1000).to_integral_value(ROUND_CEILING))


def approximate(field: str, text: Any) -> float:
    """A quantity as the float that the controller compares with (its stored form has steps of 1000)."""
    value = decimal(field, text)
    for power in (0, 3, 6, 9):
        scaled = value * 10**power
        if scaled == scaled.to_integral_value():
            return float(int(scaled)) * 10.0**-power
    return float(value)


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
