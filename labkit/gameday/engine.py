"""The engine of a game day: strikes when the script says so, looks, judges, and lets an operator act.

It does nothing by itself: somebody calls `tick` about twice a second. Whatever a strike, a look or a repair
runs into is written into the journal; the script goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from labkit.errors import LabkitError
from labkit.gameday.faults.base import Fault, Sign
from labkit.gameday.journal import Journal
from labkit.gameday.outcome import SIGNS, STRIKES, outcomes
from labkit.gameday.script import Script
from labkit.gameday.slo import Objective, judge

AGAIN_S = 20.0
TRIES = 3


@dataclass(frozen=True)
class Operator:
    """The reference operator: repairs each incident some seconds after it was detected.

    Attributes:
        reaction_s: how long it thinks first.
        skips: numbers of incidents that it leaves alone.
    """

    reaction_s: float
    skips: frozenset[int] = frozenset()


@dataclass
class _Open:
    """What is going on with one incident."""

    fault: Fault
    struck: Future[None] | None = None
    look: Future[None] | None = None
    repair: Future[None] | None = None
    tries: int = 0
    tried_s: float = 0.0
    told: set[str] = field(default_factory=set)


class Engine:
    """Runs a script.

    Args:
        faults: number of the incident → what strikes.
        requests: the customers' requests so far, as `labkit.load` has them.
        clock: seconds since the game began.
        executor: where strikes, looks and repairs run, so that a slow one holds up nothing.
        operator: who acts; None where people do.
    """

    def __init__(
        self,
        script: Script,
        faults: Mapping[int, Fault],
        *,
        requests: Callable[[], pd.DataFrame],
        clock: Callable[[], float],
        executor: Executor,
        objective: Objective,
        operator: Operator | None = None,
    ) -> None:
        self.script, self.objective, self.operator = script, objective, operator
        self.journal = Journal(clock)
        self._requests, self._clock, self._executor = requests, clock, executor
        self._open = {number: _Open(fault) for number, fault in faults.items()}
        self._signs: list[tuple[int, float, bool, bool, str]] = []
        self._void: set[int] = set()
        self._left = [one.number for one in script.incidents]
        self._ended_s = float("inf")

    @property
    def over(self) -> bool:
        """Whether the shift is over."""
        return self._ended_s < float("inf")

    def end(self) -> None:
        """End it now; what happens later is not part of it."""
        self._ended_s = min(self._ended_s, self._clock())

    @property
    def strikes(self) -> pd.DataFrame:
        """See `outcome.STRIKES`; struck_s and acted_s are from the journal."""
        rows = [
            (
                one.number,
                one.kind,
                self._open[one.number].fault.customers,
                self._open[one.number].fault.at_once,
                self.journal.first("struck", one.number),
                self.journal.first("acted", one.number),
            )
            for one in self.script.incidents
        ]
        return pd.DataFrame(rows, columns=STRIKES)

    @property
    def signs(self) -> pd.DataFrame:
        """See `outcome.SIGNS`; in the order of their time."""
        return pd.DataFrame(list(self._signs), columns=SIGNS).sort_values("t_seconds", ignore_index=True)

    def fault(self, number: int) -> Fault:
        """What strikes as incident `number`."""
        return self._open[number].fault

    def judged(self) -> pd.DataFrame:
        """The requests so far, judged."""
        return judge(self._requests(), self.objective)

    def outcomes(self, judged: pd.DataFrame | None = None) -> pd.DataFrame:
        """What became of the incidents so far; see `outcome.outcomes`."""
        known = self.judged() if judged is None else judged
        settled = self._clock() - self.objective.known_after_s
        return outcomes(self.strikes, self.signs, known, min(settled, self._ended_s))

    def tick(self) -> None:
        """Do what is due."""
        if self.over:
            return
        now = self._clock()
        for incident in self.script.incidents:
            state = self._open[incident.number]
            if now >= incident.begin_s and state.struck is None:
                state.struck = self._executor.submit(self._told, self._strike, incident.number)
            elif self._is_open(state):
                self._look(incident.number, state)
        if any(self._is_open(state) for state in self._open.values()):
            table = self.outcomes()
            for row in table.to_dict("records"):
                self._tell(row)
                self._act(row, now)
            self._left = [int(row["number"]) for row in table.to_dict("records") if not self._past(row, now)]
        self._finish(now)

    def _is_open(self, state: _Open) -> bool:
        """Whether an incident has struck, and is not known to be over."""
        return state.struck is not None and state.struck.done() and "recovered" not in state.told

    def _told(self, work: Callable[[int], None], number: int) -> None:
        """Do something in the executor, where an exception would reach nobody; one of a kind is told once."""
        try:
            work(number)
        except Exception as error:  # whatever it was
            text = f"{work.__name__.strip('_')}: {type(error).__name__}: {error}"
            if work == self._strike:
                self._void.add(number)
            if text not in self._open[number].told:
                self._open[number].told.add(text)
                self.journal.write("trouble", text, number, secret=work != self._repair)

    def _strike(self, number: int) -> None:
        fault = self._open[number].fault
        self.journal.write("struck", fault.title, number, secret=True)
        try:
            self.journal.write("note", fault.strike(), number, secret=True)
        except LabkitError as error:
            self._void.add(number)
            self.journal.write("trouble", f"the strike failed: {error.message}", number, secret=True)

    def _look(self, number: int, state: _Open) -> None:
        if state.look is None or state.look.done():
            state.look = self._executor.submit(self._told, self._see, number)

    def _see(self, number: int) -> None:
        begin = self._clock()
        try:
            sign = self._open[number].fault.look()
        except LabkitError as error:
            sign = Sign(True, False, f"the API does not answer: {error.message}")
        self._signs.append((number, begin, sign.symptom, sign.good, sign.text))

    def _tell(self, row: Mapping[Any, Any]) -> None:
        """Write into the journal what has just become true."""
        number, told = int(row["number"]), self._open[int(row["number"])].told
        if pd.notna(row["detected_s"]) and "detected" not in told:
            told.add("detected")
            self.journal.write("detected", f"after {row['detect_s']:.1f} s. {row['detected_by']}", number)
        if row["state"] == "recovered" and "recovered" not in told:
            told.add("recovered")
            unseen = "" if "detected" in told else ", before anybody noticed"
            self.journal.write("recovered", f"{row['recover_s']:.1f} s after the strike{unseen}", number)

    def _act(self, row: Mapping[Any, Any], now: float) -> None:
        """The reference operator's turn: with what a person must repair."""
        number = int(row["number"])
        state = self._open[number]
        if self.operator is None or row["state"] != "detected" or number in self.operator.skips:
            return
        if state.fault.healer != "you":
            return
        if state.repair is not None and not state.repair.done():
            return
        due = state.tried_s + AGAIN_S if state.tries else row["detected_s"] + self.operator.reaction_s
        if now >= due and state.tries < TRIES:
            state.tries, state.tried_s = state.tries + 1, now
            state.repair = self._executor.submit(self._told, self._repair, number)

    def _repair(self, number: int) -> None:
        fault = self._open[number].fault
        self.journal.write("acted", fault.commands[0], number)
        try:
            fault.repair()
        except LabkitError as error:
            self.journal.write("trouble", f"the repair failed: {error.message}", number)

    def _finish(self, now: float) -> None:
        if now >= self.script.limit_s or (now >= self.script.duration_s and not self._left):
            self.end()
            words = f"still open: {', '.join(f'incident {one}' for one in self._left)}"
            self.journal.write("over", words if self._left else "nothing is open")

    def _past(self, row: Mapping[Any, Any], now: float) -> bool:
        """Whether nothing more is to be expected of an incident: it is over, failed, or left no trace."""
        late = now > row["struck_s"] + self.script.pace.room_s[row["kind"]]
        traceless = row["state"] == "open" and late and self._looked_good(int(row["number"]))
        return row["state"] == "recovered" or row["number"] in self._void or bool(traceless)

    def _looked_good(self, number: int) -> bool:
        """Whether an incident's objects were as they should be at the last look."""
        return next((good for one, _, _, good, _ in reversed(self._signs) if one == number), True)
