"""What `labkit.up` does, told while it happens and remembered for a figure."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from labkit.cluster.phases import Phase, Plain


@dataclass(frozen=True)
class Bar:
    """A phase that has ended: begin and duration in seconds, counted from the log's making."""

    name: str
    text: str
    begin_s: float
    seconds: float


class PhaseLog:
    """A listener for `labkit.up`: prints one line per phase, and keeps when each began and ended.

    Attributes:
        bars: the phases that have ended, in the order of their begin.
    """

    def __init__(self) -> None:
        self._zero = time.monotonic()
        self._print = Plain()
        self._lock = threading.Lock()
        self._bars: list[Bar] = []

    def __call__(self, now: Phase) -> None:
        """Take note of a phase; labkit.up calls it from several threads."""
        self._print(now)
        if now.state != "running":
            begin = time.monotonic() - self._zero - now.seconds
            with self._lock:
                self._bars.append(Bar(now.name, now.text, max(0.0, begin), now.seconds))

    @property
    def bars(self) -> list[Bar]:
        """The phases that have ended."""
        with self._lock:
            return sorted(self._bars, key=lambda bar: bar.begin_s)

    def seconds(self, without: str = "binaries") -> float:
        """From the begin of the first phase to the end of the last one, without the time one of them took."""
        bars = self.bars
        if not bars:
            return 0.0
        whole = max(bar.begin_s + bar.seconds for bar in bars) - min(bar.begin_s for bar in bars)
        return round(whole - sum(bar.seconds for bar in bars if bar.name == without), 1)
