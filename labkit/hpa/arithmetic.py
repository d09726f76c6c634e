"""The simulator's arithmetic, for one set of parameters (plain numbers) or many at once (numpy arrays).

Both classes offer the same functions, so that the simulation is written once. A single run is faster on
plain numbers, a sweep on arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Value = Any
"""A float, int or bool; or an array of them, one per set of parameters."""


def _where(condition: bool, yes: Value, no: Value) -> Value:
    return yes if condition else no


class ListPast:
    """Earlier values of one number; before the first, the value it began with."""

    def __init__(self, start: float, depth: int) -> None:
        self.depth = depth
        self.values: list[float] = [start] * (depth + 1)

    def push(self, value: float) -> None:
        self.values.append(value)

    def ago(self, steps: int) -> float:
        """The value pushed `steps` before the newest."""
        return self.values[-1 - steps]


class ListTrail:
    """Lowest or highest of the newest values of one number."""

    def __init__(self, highest: bool, start: float, depth: int) -> None:
        self.values: list[float] = [start] * max(depth, 1)
        self.pick = max if highest else min
        self.neutral = -math.inf if highest else math.inf

    def push(self, value: float) -> None:
        self.values.append(value)

    def over(self, count: int) -> float:
        """The extreme of the newest `count`."""
        if count <= 1:
            return self.values[-1] if count == 1 else self.neutral
        return self.pick(self.values[-count:])


class ListEvents:
    """Changes of one number by round, as the controller keeps them.

    A new event takes the place of the last one that is more than `keep` rounds old, if there is one.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.entries: list[tuple[int, float]] = []

    def add(self, round_: int, amount: float) -> None:
        """Remember a change; nothing happens unless it is above 0."""
        if amount <= 0:
            return
        for place in range(len(self.entries) - 1, -1, -1):
            if round_ - self.entries[place][0] > self.keep:
                self.entries[place] = (round_, amount)
                return
        self.entries.append((round_, amount))

    def since(self, round_: int) -> float:
        """Sum of the changes from that round on."""
        return sum(amount for at, amount in self.entries if at >= round_)


class Numbers:
    """What the simulation needs of numbers; `some` asks whether a condition holds for any set."""

    where: ClassVar[Callable[..., Value]]
    least: ClassVar[Callable[..., Value]]
    most: ClassVar[Callable[..., Value]]
    floor: ClassVar[Callable[..., Value]]
    ceil: ClassVar[Callable[..., Value]]
    exp: ClassVar[Callable[..., Value]]
    some: ClassVar[Callable[..., Value]]

    def past(self, start: Value, depth: int) -> Any:
        """A memory of earlier values, at least `depth` back."""
        raise NotImplementedError

    def trail(self, highest: bool, start: Value, depth: int) -> Any:
        """A memory that tells the extreme of the newest values, up to `depth` of them."""
        raise NotImplementedError

    def events(self, keep: Value) -> Any:
        """A memory of changes, live for `keep` rounds."""
        raise NotImplementedError


class Scalars(Numbers):
    """One set of parameters."""

    where = staticmethod(_where)
    least = staticmethod(min)
    most = staticmethod(max)
    floor = staticmethod(math.floor)
    ceil = staticmethod(math.ceil)
    exp = staticmethod(math.exp)
    some = staticmethod(bool)

    def past(self, start: float, depth: int) -> ListPast:
        return ListPast(start, depth)

    def trail(self, highest: bool, start: float, depth: int) -> ListTrail:
        return ListTrail(highest, start, depth)

    def events(self, keep: int) -> ListEvents:
        return ListEvents(keep)


class ArrayPast:
    """`ListPast` for many numbers, in a ring of rows."""

    def __init__(self, start: NDArray[np.float64], depth: int) -> None:
        self.depth, self.size = depth, depth + 1
        self.rows = np.tile(start, (self.size, 1))
        self.columns = np.arange(len(start))
        self.at = 0

    def push(self, value: NDArray[np.float64]) -> None:
        self.at = (self.at + 1) % self.size
        self.rows[self.at] = value

    def ago(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        picked: NDArray[np.float64] = self.rows[(self.at - steps) % self.size, self.columns]
        return picked


class ArrayTrail:
    """`ListTrail` for many numbers, each with its own count.

    Level l of the table holds, for each row, the extreme of the 2**l rows that end there; any count is the
    extreme of two overlapping such spans.
    """

    def __init__(self, highest: bool, start: NDArray[np.float64], depth: int) -> None:
        self.size = 1 << max(depth, 1).bit_length()
        levels = self.size.bit_length()
        self.table = np.tile(start.astype(float), (levels, self.size, 1))
        self.level_of = np.array([max(count, 1).bit_length() - 1 for count in range(self.size + 1)])
        self.pick = np.maximum if highest else np.minimum
        self.neutral = -np.inf if highest else np.inf
        self.columns = np.arange(len(start))
        self.at = 0

    def push(self, value: NDArray[np.float64]) -> None:
        self.at = (self.at + 1) % self.size
        self.table[0, self.at] = value
        for level in range(1, len(self.table)):
            earlier = (self.at - (1 << (level - 1))) % self.size
            below = self.table[level - 1]
            self.pick(below[self.at], below[earlier], out=self.table[level, self.at])

    def over(self, count: NDArray[np.int64]) -> NDArray[np.float64]:
        level = self.level_of[count]
        first = (self.at - count + (1 << level)) % self.size
        spans = self.table[level, self.at, self.columns], self.table[level, first, self.columns]
        return np.where(count > 0, self.pick(*spans), self.neutral)


class ArrayEvents:
    """`ListEvents` for many numbers: a column each, with as many places as can be live at once."""

    def __init__(self, keep: NDArray[np.int64]) -> None:
        places = int(keep.max()) + 2
        self.keep = keep
        self.rounds = np.full((places, len(keep)), -1)
        self.amounts = np.zeros((places, len(keep)))
        self.taken = np.zeros(len(keep), dtype=int)
        self.columns = np.arange(len(keep))

    def add(self, round_: int, amount: NDArray[np.float64]) -> None:
        rows = np.flatnonzero(amount > 0)
        if not len(rows):
            return
        at = self.rounds[:, rows]
        stale = (at >= 0) & (round_ - at > self.keep[rows])
        last = len(stale) - 1 - np.argmax(stale[::-1], axis=0)
        fresh = ~stale.any(axis=0)
        place = np.where(fresh, self.taken[rows], last)
        self.taken[rows] += fresh
        self.rounds[place, rows] = round_
        self.amounts[place, rows] = amount[rows]

    def since(self, round_: NDArray[np.int64]) -> NDArray[np.float64]:
        live = self.rounds >= np.maximum(round_, 0)
        total: NDArray[np.float64] = np.einsum("ij,ij->j", live, self.amounts)
        return total


class Arrays(Numbers):
    """Many sets of parameters at once."""

    where = staticmethod(np.where)
    least = staticmethod(np.minimum)
    most = staticmethod(np.maximum)
    floor = staticmethod(np.floor)
    ceil = staticmethod(np.ceil)
    exp = staticmethod(np.exp)
    some = staticmethod(np.any)

    def past(self, start: NDArray[np.float64], depth: int) -> ArrayPast:
        return ArrayPast(start, depth)

    def trail(self, highest: bool, start: NDArray[np.float64], depth: int) -> ArrayTrail:
        return ArrayTrail(highest, start, depth)

    def events(self, keep: NDArray[np.int64]) -> ArrayEvents:
        return ArrayEvents(keep)
