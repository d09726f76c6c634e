"""Quantities (`250m`, `1.5`, `64Mi`) by Kubernetes' own grammar.

The rules are those of apimachinery v0.37's resource.ParseQuantity, and of UnmarshalJSON, which trims blanks
before it parses. Two of them surprise: `.`, `+` and `-` are zero, and `1K` is not a quantity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

_GRAMMAR: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[+-]?[0-9]*)")
_DECIMAL: Final = {
    suffix: power for power, suffix in zip(range(-9, 21, 3), ("n", "u", "m", "", *"kMGTPE"), strict=True)
}
_BINARY: Final = {f"{letter}i": 2 ** (10 * power) for power, letter in enumerate("KMGTPE", 1)}
_EXPONENT: Final = re.compile(r"[eE]([+-]?[0-9]+)")
_MOST: Final = 2**63 - 1
_FINEST: Final = -9  # nano
_BLANKS: Final = (
    " \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
"""What Go trims of a value in JSON: tabs and line ends are escaped there, so they stay and are refused."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """`number` times 10 to the power `exponent`, exactly."""

    number: int
    exponent: int

    def __float__(self) -> float:
        if self.exponent < 0:
            return float(self.number / 10**-self.exponent)
        try:
            return float(self.number * 10 ** min(self.exponent, 400))
        except OverflowError:
            return float("inf") if self.number > 0 else float("-inf")

    def scaled(self, power: int) -> int | None:
        """Units of 10 to the power -`power`, rounded away from zero as Go does; None beyond 64 bits."""
        shift = self.exponent + power
        if shift > 19 and self.number:
            return None
        size = abs(self.number) * 10**shift if shift >= 0 else -(-abs(self.number) // 10**-shift)
        return None if size > _MOST else size if self.number >= 0 else -size


def parse_quantity(text: Any) -> Quantity:
    """Read a quantity: a string, or a number as YAML gives it.

    Raises:
        ValueError: the API server would refuse it.
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"{text!r} is not a quantity")
    return _parse(str(text).strip(_BLANKS))


@lru_cache(4096)
def _parse(text: str) -> Quantity:
    match = _GRAMMAR.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is not a quantity")
    sign, before, after, suffix = match.groups(default="")
    number = int(f"{sign}{before}{after}") if before or after else _nothing(text, suffix)
    if suffix in _BINARY:
        number *= _BINARY[suffix]
        limit = _MOST * 10 ** len(after)
        return _fine(max(-limit, min(number, limit)), -len(after))
    if suffix in _DECIMAL:
        return _fine(number, _DECIMAL[suffix] - len(after))
    return _fine(number, _exponent(text, suffix) - len(after))


def _exponent(text: str, suffix: str) -> int:
    """The exponent of `e3`; Go keeps its low 32 bits."""
    match = _EXPONENT.fullmatch(suffix)
    if match is None or not -(2**63) <= int(match[1]) < 2**63:
        raise ValueError(f"{text!r} is not a quantity: {suffix!r} is not a suffix")
    return (int(match[1]) + 2**31) % 2**32 - 2**31


def _nothing(text: str, suffix: str) -> int:
    """Zero, for a quantity without digits, where Go takes it for one."""
    coarse = suffix in ("Pi", "Ei")
    if coarse or (suffix not in _BINARY and suffix not in _DECIMAL and _exponent(text, suffix) < _FINEST):
        raise ValueError(f"{text!r} is not a quantity: it has no digits")
    return 0


def _fine(number: int, exponent: int) -> Quantity:
    """What is finer than a billionth is rounded away from zero."""
    excess = _FINEST - exponent
    if excess <= 0:
        return Quantity(number, exponent)
    size = -(-abs(number) // 10 ** min(excess, len(str(abs(number)))))
    return Quantity(size if number >= 0 else -size, _FINEST)
