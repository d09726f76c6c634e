"""A run of a workflow: its steps with their times and output, read from what act says."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pandas as pd

_INTERNAL = ("Set up job", "Complete job")
_NO_ORDER = "Could not find any stages to run"
_MARKS = {"success": "✔", "failure": "✘", "running": "…"}


@dataclass(frozen=True)
class Step:
    """A step of a run.

    Attributes:
        job: the job that it belongs to.
        result: success, failure or running.
        begin_s: since the push.
        output: what it printed, without secrets.
    """

    job: str
    name: str
    result: str
    begin_s: float
    seconds: float
    output: str = ""


@dataclass(frozen=True)
class Run:
    """A workflow's run for one commit.

    Attributes:
        number: counts up from 1.
        commit: 40 digits.
        message: first line of the commit's message.
        result: success, failure, invalid (the workflow cannot be read) or cancelled.
        problem: one line that says why it did not succeed, "" where it did.
        steps: those that were begun, in their order.
        seconds: from the push to the end of the run.
        began: `time.monotonic()` of the push.
    """

    number: int
    commit: str
    message: str
    result: str
    problem: str
    steps: tuple[Step, ...]
    seconds: float
    began: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.result == "success"

    @property
    def jobs(self) -> list[str]:
        """The jobs that were begun, in their order."""
        return list(dict.fromkeys(step.job for step in self.steps))

    def log(self, step: str = "", *, matching: str = "") -> str:
        """What the steps printed, each under its name.

        Args:
            step: only the step of this name, or those with this text in it.
            matching: only lines in which this regular expression is found.
        """
        same = [each for each in self.steps if each.name == step]
        chosen = same or [each for each in self.steps if step.lower() in each.name.lower()]
        parts = []
        for each in chosen:
            lines = [line for line in each.output.splitlines() if re.search(matching, line)]
            parts.append("\n".join([f"── {each.job} · {each.name}", *lines]).rstrip())
        return "\n".join(parts)

    def __str__(self) -> str:
        what = f"run {self.number} · {self.commit[:7]} “{self.message}”"
        head = f"{what}: {self.result} after {self.seconds:.0f} s"
        width = max((len(f"{s.job} · {s.name}") for s in self.steps), default=0)
        lines = [
            f"  {_MARKS.get(s.result, ' ')} {f'{s.job} · {s.name}':{width}} {s.seconds:6.1f} s"
            for s in self.steps
        ]
        return "\n".join([head, *lines, *([f"  ✘ {self.problem}"] if self.problem else [])])

    __repr__ = __str__


class Reader:
    """Makes steps of act's JSON lines as they come.

    Args:
        begin: `clock()` at the push.
        secrets: texts that are replaced by ***, should one get so far.
    """

    def __init__(
        self, begin: float, secrets: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._begin, self._clock = begin, clock
        self._secrets = [secret for secret in secrets if secret]
        self._steps: list[Step] = []
        self._said: list[str] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps so far."""
        return tuple(self._steps)

    def line(self, raw: str) -> None:
        """Take one line of act's output."""
        try:
            entry = json.loads(raw)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            if raw.strip():
                self._said.append(self._masked(raw.strip()))
            return
        name, job = entry.get("step", ""), entry.get("jobID", "")
        if not job:
            return
        if not name or name in _INTERNAL:
            return
        if entry.get("raw_output"):
            self._output(job, name, self._masked(str(entry.get("msg", ""))))
        elif "stepResult" in entry:
            self._end(job, name, str(entry["stepResult"]), float(entry.get("executionTime", 0)) / 1e9)
        elif str(entry.get("msg", "")).startswith("⭐ Run"):
            self._steps.append(Step(job, name, "running", self._clock() - self._begin, 0.0))
        elif entry.get("level") == "error":
            self._output(job, name, self._masked(str(entry.get("msg", ""))) + "\n")

    def problem(self) -> str:
        """Why the run failed, in one line: the step that failed and its last words, else act's own."""
        failed = next((step for step in self._steps if step.result == "failure"), None)
        if failed:
            return f"{failed.job} · {failed.name} failed{_last_words(failed.output)}"
        if any(_NO_ORDER in line for line in self._said):
            return "the workflow's jobs have no order: one needs a job that does not exist, or each other"
        words = [line.removeprefix("Error: ") for line in self._said if not line.startswith("Actions YAML")]
        return _first_mistake(" ".join(words)) or " ".join(words[:3])

    @property
    def invalid(self) -> bool:
        """Whether act refused the workflow before it began."""
        refusals = ("workflow is not valid", _NO_ORDER)
        return not self._steps and any(each in line for line in self._said for each in refusals)

    def _find(self, job: str, name: str) -> int | None:
        places = [i for i, step in enumerate(self._steps) if (step.job, step.name) == (job, name)]
        return places[-1] if places else None

    def _output(self, job: str, name: str, text: str) -> None:
        place = self._find(job, name)
        if place is not None:
            step = self._steps[place]
            self._steps[place] = replace(step, output=step.output + text)

    def _end(self, job: str, name: str, result: str, seconds: float) -> None:
        place = self._find(job, name)
        if result == "skipped":
            return
        if place is not None:
            self._steps[place] = replace(self._steps[place], result=result, seconds=seconds)

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def runs_frame(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per step; columns run, commit, job, step, result, begin_s, seconds (since the push)."""
    rows = [
        (run.number, run.commit[:7], step.job, step.name, step.result, step.begin_s, step.seconds)
        for run in runs
        for step in run.steps
    ]
    return pd.DataFrame(rows, columns=["run", "commit", "job", "step", "result", "begin_s", "seconds"])


def _first_mistake(said: str) -> str:
    """ "deliver.yml, line 64: Unknown Property need" of all that act says; "" where it is no such text."""
    file = re.search(r"workflow is not valid\. '([^']+)'", said)
    place = re.search(r"Line: (\d+) Column \d+: (?!Failed)(.+?)(?=\s+Line:|\s+For more|$)", said)
    return f"{file[1]}, line {place[1]}: {place[2]}" if file and place else ""


def _last_words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("exit")]
    telling = [line for line in lines if line.startswith(("FAILED", "ERROR", "error", "fatal", "E "))]
    said = (telling or lines)[-1:]
    return f": {said[0][:160]}" if said else ""
