"""Errors of the autoscaler model: each names the field, what was found, and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from labkit.errors import ConfigError, LabkitError

T = TypeVar("T")
INT32_MAX = 2**31 - 1


class HpaError(ConfigError):
    """A field has a value that the model (and the API server) cannot use.

    Args:
        field: path of the field, as `spec.behavior.scaleUp.policies[0].value`.
        problem: what was found and why it cannot be used.
        hint: what to write instead.
    """

    def __init__(self, field: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{field}: {problem}", hint)
        self.field = field
        self.problem = problem

    def under(self, prefix: str) -> HpaError:
        """The same error, its field counted from an outer object (`under("spec")` → `spec.<field>`)."""
        joint = "" if not self.field or self.field.startswith("[") else "."
        return type(self)(f"{prefix}{joint}{self.field}", self.problem, self.hint)


class SpecError(HpaError):
    """A HorizontalPodAutoscaler, or a part of one, is not valid."""


class ObservationError(HpaError):
    """Pods, metric readings or a recorded case hold a value that cannot be."""


class TraceError(HpaError):
    """A load trace is unsorted, has gaps, or holds values that are not rates."""


class ServiceError(HpaError):
    """The service, metrics or machine model of the simulator has an unusable parameter."""


class SelectorFault(LabkitError):
    """The controller does not work with the pods that the target selects; nothing is scaled until that ends.

    Args:
        reason: the reason of the ScalingActive condition, such as AmbiguousSelector.
    """

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


class MetricUnavailable(LabkitError):
    """A metric gives no replica count; the message is the cause in the controller's own terms."""


def whole(field: str, value: Any, low: int, high: int = INT32_MAX, kind: type[HpaError] = SpecError) -> int:
    """`value` as an int within low..high; anything else raises `kind`, naming `field`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise kind(field, f"found {value!r}", f"Give a whole number of at least {low}.")
    if not low <= value <= high:
        limit = f"at least {low}" if value < low else f"at most {high}"
        raise kind(field, f"found {value}, must be {limit}", f"Give a whole number from {low} to {high}.")
    return value


def number(
    field: str, value: Any, low: float = 0.0, above: bool = False, kind: type[HpaError] = SpecError
) -> float:
    """`value` as a finite float, at least (or `above`) `low`; anything else raises `kind`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise kind(field, f"found {value!r}", "Give a finite number.")
    if value < low or (above and value == low):
        raise kind(field, f"found {value}, must be {'above' if above else 'at least'} {low:g}")
    return float(value)


def choice(field: str, value: Any, allowed: Collection[str], kind: type[HpaError] = SpecError) -> str:
    """`value` if it is one of `allowed`; anything else raises `kind`."""
    if not isinstance(value, str) or value not in allowed:
        raise kind(field, f"found {value!r}", f"Give one of: {', '.join(allowed)}.")
    return value


def inside(prefix: str, build: Callable[[], T]) -> T:
    """The value of `build()`, its errors' fields counted from `prefix`."""
    try:
        return build()
    except HpaError as error:
        raise error.under(prefix) from None
