"""Word of pushes: kept in a file, and told to whoever waits for the next one."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Push:
    """A branch or tag that was moved.

    Attributes:
        number: counts up from 1 over all repositories.
        before, after: commits; forty zeros for a ref that was made or deleted.
        at: seconds since 1970.
    """

    number: int
    repository: str
    ref: str
    before: str
    after: str
    user: str
    at: float


class Pushes:
    """All pushes so far."""

    def __init__(self, file: Path) -> None:
        self._file, self._news = file, threading.Condition()
        lines = file.read_text().splitlines() if file.exists() else []
        self._all = [Push(**json.loads(line)) for line in lines if line.endswith("}")]

    def add(self, repository: str, ref: str, before: str, after: str, user: str) -> None:
        """A push that has happened."""
        with self._news:
            push = Push(len(self._all) + 1, repository, ref, before, after, user, time.time())
            with self._file.open("a") as stream:
                stream.write(json.dumps(asdict(push)) + "\n")
            self._all.append(push)
            self._news.notify_all()

    def after(self, number: int, wait_s: float) -> list[Push]:
        """Pushes beyond a number; waits up to `wait_s` seconds until there is one."""
        with self._news:
            self._news.wait_for(lambda: len(self._all) > number, wait_s)
            return self._all[max(0, number) :]
