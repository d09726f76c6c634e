"""The logbook of a shift: what the script did, what was seen, and what people did."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

WHAT = ("struck", "detected", "acted", "recovered", "note", "trouble", "over")


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        number: of the incident; 0 where it is about none.
        what: one of WHAT.
        secret: not to be shown before the game is over.
    """

    t_seconds: float
    number: int
    what: str
    text: str
    secret: bool = False

    def __str__(self) -> str:
        about = f"incident {self.number} " if self.number else ""
        return f"{self.t_seconds:5.0f} s  {about}{self.what}: {self.text}"


class Journal:
    """Entries in the order of their writing; may be written and read from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: list[Entry] = []

    def write(self, what: str, text: str, number: int = 0, *, secret: bool = False) -> Entry:
        """Add a line, now."""
        entry = Entry(round(self._clock(), 2), number, what, text, secret)
        with self._lock:
            self._entries.append(entry)
        return entry

    def entries(self, after: int = 0) -> list[Entry]:
        """All lines but the first `after`."""
        with self._lock:
            return self._entries[after:]

    def first(self, what: str, number: int) -> float:
        """When the first such line was written about an incident; NaN where there is none."""
        times = [one.t_seconds for one in self.entries() if one.what == what and one.number == number]
        return times[0] if times else float("nan")

    @property
    def frame(self) -> pd.DataFrame:
        """t_seconds, number, what, text."""
        rows = [(one.t_seconds, one.number, one.what, one.text) for one in self.entries()]
        return pd.DataFrame(rows, columns=["t_seconds", "number", "what", "text"])
