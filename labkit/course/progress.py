"""What a learner has done: each check, prediction, hint and revealed solution, in a small database.

SQLite keeps it whole: two kernels may write at once, and a kernel that is killed or a disk that is full
costs the event that was being written and nothing before it.
"""

from __future__ import annotations

import getpass
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.course import place
from labkit.errors import LabkitError
from labkit.folders import data_dir, private

KINDS = ("check", "hint", "solution", "prediction", "catch-up")
SCHEMA = 1
_WAIT_S = 5.0


class ProgressError(LabkitError):
    """The record of what a learner has done cannot be read or written."""


@dataclass(frozen=True)
class Event:
    """One thing that a learner did.

    Attributes:
        at: seconds since 1970.
        kind: one of KINDS.
        id: of the check, exercise or prediction.
        ok: whether a check passed; None for other kinds.
        detail: what else is known: level of a hint, prediction and measurement.
        course: version of the course that the learner worked with.
    """

    at: float
    kind: str
    id: str
    ok: bool | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    course: str = ""


@dataclass(frozen=True)
class State:
    """How a learner stands with a check or an exercise.

    Attributes:
        passed_at: when it first passed, in seconds since 1970; None while it has not.
        red: how often it failed.
        hints: the highest level of help that was shown.
        revealed: whether the solution was shown, or carried out for the learner before the check had passed.
    """

    id: str
    passed_at: float | None = None
    red: int = 0
    hints: int = 0
    revealed: bool = False


def learner() -> str:
    """Who learns: LABKIT_LEARNER, else the user's name."""
    if name := os.environ.get("LABKIT_LEARNER", "").strip():
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


class Progress:
    """The record of a learner with a version of the course.

    Args:
        path: the database; by default progress.db in labkit's data folder.
        course: version of the course, which each event notes; by default that of the folder that we are in.
    """

    def __init__(self, path: Path | None = None, who: str = "", course: str = "") -> None:
        self.path = path or data_dir() / "progress.db"
        self.who, self.course = who or learner(), course or place.version()

    def note(
        self, kind: str, name: str, *, ok: bool | None = None, at: float | None = None, **detail: Any
    ) -> None:
        """Keep an event.

        Raises:
            ProgressError: it could not be written, with the reason; what was kept before is still there.
            ValueError: there is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")
        row = (time.time() if at is None else at, self.who, self.course, kind, name, ok, json.dumps(detail))
        with self._open() as base, base:
            base.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def events(self) -> list[Event]:
        """All of this learner's events, oldest first; [] before the first one.

        Raises:
            ProgressError: the record cannot be read.
        """
        if not self.path.exists():
            return []
        query = "SELECT at, kind, id, ok, detail, course FROM events WHERE who = ? ORDER BY at, rowid"
        with self._open() as base:
            rows = base.execute(query, (self.who,)).fetchall()
        return [
            Event(at, kind, name, None if ok is None else bool(ok), json.loads(detail), course)
            for at, kind, name, ok, detail, course in rows
        ]

    def states(self) -> dict[str, State]:
        """Id of each check and exercise that the learner met → how it stands."""
        states: dict[str, State] = {}
        for event in self.events():
            if event.kind != "prediction":
                states[event.id] = _after(states.get(event.id, State(event.id)), event)
        return states

    def hint_level(self, name: str) -> int:
        """The highest level of help that was shown for an exercise; 0 for none."""
        state = self.states().get(name)
        return state.hints if state else 0

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            private(self.path.parent)
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as base:
                self._prepare(base)
                yield base
        except (sqlite3.Error, OSError) as error:
            raise ProgressError(
                f"Your progress is not kept: {self.path}: {error}.",
                "The lab goes on without it. Is the disk full, or the file damaged? Then move it away.",
            ) from error

    def _prepare(self, base: sqlite3.Connection) -> None:
        (version,) = base.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA:
            raise sqlite3.DatabaseError("it is of a newer version of labkit")
        if version < SCHEMA:
            with base:
                base.execute(
                    "CREATE TABLE IF NOT EXISTS events"
                    " (at REAL, who TEXT, course TEXT, kind TEXT, id TEXT, ok INTEGER, detail TEXT)"
                )
                base.execute(f"PRAGMA user_version = {SCHEMA}")
            self.path.chmod(0o600)


def _after(state: State, event: Event) -> State:
    passed_at, red, hints, revealed = state.passed_at, state.red, state.hints, state.revealed
    if event.kind == "check" and event.ok and passed_at is None:
        passed_at = event.at
    elif event.kind == "check" and not event.ok:
        red += 1
    elif event.kind == "hint":
        hints = max(hints, int(event.detail.get("level", 1)))
    elif event.kind == "solution":
        revealed = True
    elif event.kind == "catch-up":
        revealed = revealed or passed_at is None  # after a restart, one catches up to what one has solved
    return State(state.id, passed_at, red, hints, revealed)
