"""What came out of specs, kept line by line so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from labkit.conformance.specs import Spec

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Result:
    """How a spec ended.

    Attributes:
        state: passed, failed, or skipped by the suite itself (with its reason as the message).
        seconds: how long it took.
        message: why it did not pass, one line.
        log: file with the suite's output, "" where it passed.
    """

    text: str
    state: str
    seconds: float
    message: str = ""
    log: str = ""

    @property
    def area(self) -> str:
        """Group that owns the spec."""
        return Spec.of(self.text).area


@dataclass(frozen=True)
class Account:
    """What a run was.

    Attributes:
        specs, parallel: how many, and how many at a time.
        user: who ran it, in words.
        memory_before_mb, memory_after_mb: of the cluster.
        damage: what was otherwise different after it, "" when nothing was.
        memory_at_first_mb: of the cluster before earlier runs of the same specs; None where there were none.
    """

    date: str
    specs: int
    parallel: int
    user: str
    cpus: int
    minutes: float
    memory_before_mb: int
    memory_after_mb: int
    damage: str
    memory_at_first_mb: int | None = None

    def __str__(self) -> str:
        growth = self.memory_after_mb / max(1, self.memory_before_mb) - 1
        if self.memory_at_first_mb is None:
            memory = f"{self.memory_before_mb} MB before and {self.memory_after_mb} MB after it"
        else:
            memory = (
                f"{self.memory_at_first_mb} MB at first, {self.memory_before_mb} MB after a run of the same "
                f"specs and {self.memory_after_mb} MB after this one"
            )
        return (
            f"{self.specs} specs in one run of {self.minutes:.0f} min on {self.date}, by {self.user}, "
            f"{self.parallel} at a time, on {self.cpus} CPUs. The cluster's memory was {memory} "
            f"({growth:+.0%}); {self.damage or 'no component was restarted, and nothing was left'}."
        )


class Store:
    """Results in a folder: results.jsonl, of which the last line of a spec counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "results.jsonl"
        self._account = folder / "run.json"

    def clear(self) -> None:
        """Forget all results."""
        self._file.unlink(missing_ok=True)
        self._account.unlink(missing_ok=True)
        for log in self.folder.glob("logs/*.log"):
            log.unlink()

    def add(self, result: Result) -> None:
        """Keep a result, at once and for good."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as stream:
            stream.write(json.dumps(asdict(result)) + "\n")

    def conclude(self, account: Account) -> None:
        """Keep what the run was."""
        self._account.write_text(json.dumps(asdict(account), indent=1))

    def account(self) -> Account | None:
        """What the run was that all results are of; None where they are of several."""
        if not self._account.exists():
            return None
        found = Account(**json.loads(self._account.read_text()))
        return found if found.specs == len(self.results()) else None

    def results(self) -> dict[str, Result]:
        """Text of a spec → its latest result. A line that was cut off does not count."""
        if not self._file.exists():
            return {}
        found = {}
        for line in self._file.read_text().splitlines():
            try:
                result = Result(**json.loads(line))
            except (ValueError, TypeError):
                continue
            found[result.text] = result
        return found

    def log(self, spec: Spec) -> Path:
        """Where the output of a spec goes."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", spec.text).strip("-")[:180]
        return self.folder / "logs" / f"{name}.log"


def short(message: str, limit: int = 300) -> str:
    """The beginning of a failure's message as one line."""
    text = " ".join(message.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def merged(old: Iterable[Result], new: Iterable[Result]) -> list[Result]:
    """The old results with the new ones in their places, by text."""
    found = {result.text: result for result in old}
    found.update({result.text: replace(result, log="") for result in new})
    return sorted(found.values(), key=lambda result: result.text)
