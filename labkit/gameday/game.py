"""A game day as notebooks hold it: customers, script, recorder, and the operator where nobody plays."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self

import pandas as pd

from labkit import load
from labkit.errors import ConfigError, LabkitError
from labkit.gameday.compose import autoscaler, node_counts, stories
from labkit.gameday.engine import Engine, Operator
from labkit.gameday.faults import FAULTS, left_out
from labkit.gameday.journal import Entry
from labkit.gameday.reflect import Reflection
from labkit.gameday.report import Report
from labkit.gameday.script import Script, make_script
from labkit.gameday.slo import Objective, availability, with_pending
from labkit.gameday.world import AUTOSCALED, SHOP, World
from labkit.kube import Object
from labkit.record import Recorder, Recording
from labkit.versions import versions

_TICK_S = 0.5
_END_S = 30.0
TIMEOUT_S = 4.0
_HEADERS = {"x-pod": "pod", "x-degraded": "degraded", "x-served-by": "served_by"}


class Board(Protocol):
    """What shows a shift: a dashboard."""

    def tell(self) -> None:
        """Print the present state, unless it is shown anyway."""

    def stop(self) -> None:
        """Show the last state and end."""


class Game:
    """One shift.

    Args:
        world: the finished system.
        script: what will strike; see `make_script`.
        objective: what is promised to the customers.
        autopilot: the reference operator acts; None for: where nobody looks (a headless run).
    """

    def __init__(
        self,
        world: World,
        script: Script,
        *,
        objective: Objective | None = None,
        autopilot: bool | None = None,
    ) -> None:
        impossible = left_out(world)
        wrong = [one.kind for one in script.incidents if one.kind in impossible]
        if wrong:
            raise ConfigError(f"{wrong[0]} cannot strike here: {impossible[wrong[0]]}.", "Use `script_for`.")
        self.world, self.script, self.objective = world, script, objective or Objective()
        headless = bool(os.environ.get("LABKIT_HEADLESS"))
        self.autopilot = headless if autopilot is None else autopilot
        self.left_out = impossible
        self.recorder = Recorder(world.cluster.kube, limit_s=script.limit_s + 120)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._executor = ThreadPoolExecutor(max_workers=8, thread_name_prefix="labkit-gameday")
        self._result: load.LoadResult | None = None
        self._hints: dict[int, int] = {}
        self._told = 0

    def start(self) -> Self:
        """Open the shop: customers come, and the script begins.

        Raises:
            ConfigError: it was started before.
            LabkitError: the shop cannot be reached.
        """
        if self._thread is not None:
            raise ConfigError("This game has been started before.", "Make a new Game for another shift.")
        kube = self.world.cluster.kube
        self.hpa: Object = kube.get("HorizontalPodAutoscaler", AUTOSCALED, namespace=SHOP)
        self._pricing: Object = kube.get("Deployment", AUTOSCALED, namespace=SHOP)
        faults = {one.number: FAULTS[one.kind](self.world, one.choice) for one in self.script.incidents}
        for fault in faults.values():
            fault.set_up()
        self.recorder.start()
        profile = self.script.profile()
        self._arrivals = profile.arrivals("uniform")
        self.traffic = load.start(
            customers(self.world.url), profile, spacing="uniform", seed=self.script.seed,
            timeout_s=TIMEOUT_S, collect=_HEADERS,
        )  # fmt: skip
        self.engine = Engine(
            self.script,
            faults,
            requests=self._requests,
            clock=lambda: self.traffic.t_seconds,
            executor=self._executor,
            objective=self.objective,
            operator=Operator(self.script.pace.reaction_s) if self.autopilot else None,
        )
        self._thread = threading.Thread(target=self._run, name="labkit-gameday", daemon=True)
        self._thread.start()
        return self

    def wait(self, tell: Callable[[], Any] = lambda: None, *, every_s: float = 10.0) -> None:
        """Wait for the end of the shift, and print what is noticed meanwhile.

        Args:
            tell: called every `every_s` seconds, such as a dashboard's `tell`.
        """
        self._started()
        told = time.monotonic()
        end = time.monotonic() + self.script.limit_s + _END_S
        while time.monotonic() < end:
            running = not self._stop.is_set()
            self._tell_new()
            if not running:
                break
            if time.monotonic() - told >= every_s:
                told = time.monotonic()
                tell()
            self._stop.wait(_TICK_S)
        self.stop()

    def follow(self, board: Board, *, every_s: float = 20.0) -> None:
        """Print what was noticed since the last look, and leave the desk free; call it again at any time.

        Where nobody looks (a headless run) it waits for the end of the shift.

        Args:
            board: told every `every_s` seconds where nobody looks, and stopped when the shift is over.
        """
        if os.environ.get("LABKIT_HEADLESS"):
            self.wait(board.tell, every_s=every_s)
        else:
            self._started()
            self._tell_new()
        if not self._stop.is_set():
            print(f"{self.left()}. Go on at your desk, and run this cell again for what is new.")
            return
        self.stop()
        self._tell_new()
        board.stop()
        print("The shift is over.")

    def left(self) -> str:
        """How long the shift goes on, in words."""
        self._started()
        if self._stop.is_set():
            return "The shift is over"
        left_s = self.script.duration_s - self.traffic.t_seconds
        if left_s <= 0:
            return "The shift goes on until the last incident is over"
        return f"The shift goes on for {left_s // 60:.0f} min {left_s % 60:.0f} s"

    def _tell_new(self) -> None:
        """Print the entries of the logbook that have not been printed yet."""
        for entry in self.engine.journal.entries(self._told):
            self._told += 1
            if not entry.secret:
                print(entry, flush=True)

    def stop(self) -> None:
        """End the shift now, customers included; safe to call twice."""
        self._started()
        self._stop.set()
        assert self._thread is not None
        self._thread.join(_END_S)
        if self._result is None:
            self.engine.end()
            self._result = self.traffic.stop()
            self._recording = self.recorder.stop()
            self._executor.shutdown(wait=False, cancel_futures=True)

    def note(self, text: str) -> Entry:
        """Write a line into the logbook: what you see, think and do."""
        self._started()
        return self.engine.journal.write("note", text)

    def hint(self) -> str:
        """The next hint for the oldest incident that is open; plainer each time."""
        self._started()
        table = self.engine.outcomes()
        for number in table.loc[table["state"].isin(["open", "detected"]), "number"]:
            hints = self.engine.fault(number).hints
            place = min(self._hints.get(number, 0), len(hints) - 1)
            self._hints[number] = place + 1
            self.engine.journal.write("note", f"asked for hint {place + 1}", number)
            return f"incident {number}: {hints[place]}"
        return "Nothing is open that anybody knows of."

    def rows(self) -> list[tuple[str, str]]:
        """Lines for a dashboard: label and text."""
        if self._thread is None:
            return []
        judged = self.engine.judged()
        level = availability(judged, self.objective)
        table = self.engine.outcomes(judged)
        words = f"{level.percent:.1f} % good, {level.spent_percent / 100:.1f} × the error budget spent"
        rows = [("customers", words if level.requests else "none yet")]
        marks = {"detected": "▲", "recovered": "✔"}  # one that nobody has noticed yet is not told
        known = [f"{row.number} {marks[str(row.state)]}" for row in table.itertuples() if row.state in marks]
        rows.append(("incidents", ", ".join(known) or "none noticed"))
        open_entries = [entry for entry in self.engine.journal.entries() if not entry.secret]
        rows += [("logbook", str(open_entries[-1]).strip())] if open_entries else []
        rows += self.world.rows()
        return rows

    def report(self, reflection: Reflection | None = None) -> Report:
        """How it went: availability, times, efficiency, figures, and your answers.

        Raises:
            ConfigError: the shift is not over.
        """
        self._started()
        if self._stop.is_set():
            self.stop()
        if self._result is None:
            raise ConfigError(
                "The shift is not over yet.", "game.wait() waits for it, game.stop() ends it now."
            )
        cluster = self.world.cluster
        return Report(
            seed=self.script.seed,
            objective=self.objective,
            judged=self.engine.judged(),
            outcomes=self.engine.outcomes(),
            stories=stories(self.engine),
            efficiency=autoscaler(self._recording, self._result, self.hpa, self._pricing),
            nodes=node_counts(self._recording, self._result.started_at - self._recording.started_at),
            entries=tuple(self.engine.journal.entries()),
            left_out=self.left_out,
            answers=reflection.answers if reflection else {},
            facts={"cluster": cluster.provider, "Kubernetes": versions().kubernetes},
            started_at=self._result.started_at,
            by="the reference operator" if self.autopilot else "you",
        )

    @property
    def outcomes(self) -> pd.DataFrame:
        """What became of the incidents; see `labkit.gameday.outcome.outcomes`."""
        self._started()
        return self.engine.outcomes()

    @property
    def recording(self) -> Recording:
        """What the recorder has so far."""
        return self.recorder.recording()

    def clean_up(self) -> list[str]:
        """Repair what is still broken, and remove what the incidents brought; returns what did not work."""
        failed = []
        for incident in self.script.incidents:
            try:
                self.engine.fault(incident.number).clean_up()
            except LabkitError as error:
                failed.append(f"{incident.kind}: {error.message}")
        return failed

    def _requests(self) -> pd.DataFrame:
        if self._result is not None:
            return self._result.requests
        seen = self.traffic.snapshot()
        unsent = seen.unsent["t_scheduled_s"].to_numpy(dtype=float)
        return with_pending(
            seen.requests, self._arrivals, self.traffic.t_seconds, self.objective, unsent=unsent
        )

    def _run(self) -> None:
        while not self._stop.is_set() and not self.engine.over:
            try:
                self.engine.tick()
            except Exception as error:  # whatever it was: the shift goes on, and the report tells of it
                self.engine.journal.write("trouble", f"{type(error).__name__}: {error}")
            self._stop.wait(_TICK_S)
        self._stop.set()

    def _started(self) -> None:
        if self._thread is None:
            raise ConfigError("The game has not begun.", "game.start() begins it.")


def script_for(world: World, seed: int, speed: str) -> Script:
    """A script of those incidents that can strike at this system."""
    impossible = left_out(world)
    return make_script(seed, speed, [kind for kind in FAULTS if kind not in impossible])


def customers(url: str) -> list[load.Request]:
    """What customers do: look (3 of 10), ask for a price (6), and order (1); the last two need pricing."""
    order = '{"customer": "game day", "items": [{"sku": "mug"}]}'
    return [
        load.Request(f"{url}/api/products", weight=3),
        load.Request(f"{url}/api/price?sku=tote", weight=6),
        load.Request(f"{url}/api/orders", "POST", order, {"Content-Type": "application/json"}, weight=1),
    ]
