"""One run of the suite: get it and a cluster, choose specs, run them, report, look at the cluster after."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from labkit.acquire import programs
from labkit.cluster import Cluster, up
from labkit.cluster.kind.cluster import KindCluster
from labkit.cluster.phases import phase, shown
from labkit.cluster.providers import open_cluster
from labkit.conformance import containers, images, records, report, specs
from labkit.conformance.health import Health
from labkit.conformance.results import FAILED, Account, Result, Store
from labkit.conformance.run import Runner
from labkit.conformance.specs import Spec
from labkit.errors import ConfigError

CLUSTER = "conformance"
_ROOM = {"workers": 3}
"""The HPA's specs start up to eight pods of half a CPU each, beside the system's on nodes of two CPUs."""
_LIST_S = 60

Say = Callable[[str], Any]


@dataclass(frozen=True)
class Choice:
    """Which specs to run; the fields are the options of `labkit conformance`."""

    focus: str = ""
    skip: str = ""
    hpa: bool = True
    resume: bool = False
    failed: bool = False
    passing: bool = False
    slice_of: str = ""
    slice_s: float = 180.0
    runs: int = 1


class Session:
    """Runs of one provider, with their results in a folder."""

    def __init__(self, provider: str, cluster: str, folder: Path) -> None:
        self.provider, self.cluster = provider, cluster
        self.store = Store(folder.absolute())
        self._suite: Path | None = None

    def suite(self) -> Path:
        """The compiled suite."""
        if self._suite is None:
            with shown() as listener, phase("suite", listener, "Kubernetes' test suite") as step:
                self._suite = programs(["e2e"], step.tell)["e2e"]
                step.tell("Kubernetes' test suite")
        return self._suite

    def chosen(self, choice: Choice) -> list[Spec]:
        """The specs to run.

        Raises:
            ConfigError: none is left.
        """
        marks = [specs.CONFORMANCE, *([specs.AUTOSCALING] if choice.hpa else [])]
        found = specs.chosen(specs.listed(self.suite()), marks, choice.focus, choice.skip)
        if choice.passing or choice.slice_of:
            passing = set(records.passing(self.provider))
            found = [spec for spec in found if spec.text in passing]
        if choice.slice_of:
            found = records.part(found, _seconds(self.provider), choice.slice_of, choice.slice_s)
        before = self.store.results()
        if choice.failed:
            found = [spec for spec in found if spec.text in before and before[spec.text].state == FAILED]
        elif choice.resume:
            found = [spec for spec in found if spec.text not in before]
        if not found:
            raise ConfigError("No spec is left to run.", "Without --resume and --failed all are run again.")
        return found

    def run(self, choice: Choice, processes: int, limit_s: float, say: Say) -> str:
        """Run the chosen specs and write junit.xml and table.txt; what went wrong, or "".

        Interrupted, what was finished is kept, and `resume` goes on from there. Of several runs on one
        cluster the last one's results are kept, and the growth of memory in it is judged.

        Raises:
            ConfigError: no spec is left, or the choice contradicts itself.
        """
        if choice.runs > 1 and (choice.resume or choice.failed):
            raise ConfigError("--runs begins anew, --resume and --failed go on.", "Give one of them.")
        todo = self.chosen(choice)
        if not choice.resume and not choice.failed:
            self.store.clear()
        ours = self.provider != "existing"  # there its owner has decided
        room = _ROOM if ours and any(specs.AUTOSCALING in spec.text for spec in todo) else {}
        with self._running(room) as cluster:
            self._provide(cluster)
            healths, lasting = [Health.of(cluster)], choice.runs > 1 or not choice.slice_of
            for number in range(1, choice.runs + 1):
                if number > 1:
                    self.store.clear()
                if choice.runs > 1:
                    say(f"\nrun {number} of {choice.runs}")
                begin = time.monotonic()
                self._once(cluster, todo, choice, processes, limit_s, say)
                healths.append(healths[-1].settled(cluster, memory=lasting))
        first, before, after = healths[0], healths[-2], healths[-1]
        damage, growth = first.damage(after), before.growth(after) if lasting else []
        self.store.conclude(
            Account(
                date=f"{date.today():%Y-%m-%d}",
                specs=len(todo),
                parallel=processes,
                user="root" if os.geteuid() == 0 else "an ordinary user",
                cpus=os.cpu_count() or 1,
                minutes=(time.monotonic() - begin) / 60,
                memory_before_mb=before.memory_bytes // 10**6,
                memory_after_mb=after.memory_bytes // 10**6,
                damage="; ".join(damage),
                memory_at_first_mb=first.memory_bytes // 10**6 if choice.runs > 1 else None,
            )
        )
        judged = self._failed(todo) if choice.passing or choice.slice_of else []
        regressions = [f"{spec.text} failed, and passed before" for spec in judged]
        if growth and choice.runs == 1:  # a cluster that has just been made grows with its first tasks
            say(f"{growth[0]}; whether it goes on to grow, --runs 2 tells")
            growth = []
        return "; ".join([*regressions, *damage, *growth])

    def record(self) -> None:
        """Keep the results among the sources, and write the page of them."""
        records.save(self.provider, self.store.results().values(), self.store.account())
        report.write_page()

    def _once(
        self, cluster: Cluster, todo: list[Spec], choice: Choice, processes: int, limit_s: float, say: Say
    ) -> None:
        known = _seconds("embedded") | _seconds(self.provider)  # a guess is better than none
        runner = Runner(cluster, self.suite(), self.store, limit_s, known)
        try:
            runner.run(todo, processes, lambda *told: say(_line(*told)))
            again = self._failed(todo) if choice.passing or choice.slice_of else []
            if again:
                say(f"\nonce more, with nothing beside them: {len(again)}")
                runner.run(again, 1, lambda *told: say(_line(*told)))
        finally:
            self._write(say)

    @contextmanager
    def _running(self, room: Mapping[str, Any]) -> Iterator[Cluster]:
        if self.cluster:
            yield open_cluster(self.cluster, self.provider)
            return
        name = CLUSTER if self.provider == "embedded" else f"{CLUSTER}-{self.provider}"
        made = up(name, self.provider, **room)
        try:
            yield made
        finally:
            made.down()

    def _provide(self, cluster: Cluster) -> None:
        """Let the nodes have the images that the suite names; those of an existing cluster pull them."""
        argv = [str(self.suite()), "--list-images"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_LIST_S, check=True)
        names = done.stdout.split()
        with shown() as listener:
            if isinstance(cluster, KindCluster):
                containers.provide(cluster, names, listener)
            elif cluster.provider == "embedded":
                with phase("images", listener, "the suite's images") as step:
                    made = images.provide(names, step.tell)
                    step.tell(f"{len(made)} images of the suite")

    def _failed(self, specs: list[Spec]) -> list[Spec]:
        found = self.store.results()
        return [spec for spec in specs if spec.text in found and found[spec.text].state == FAILED]

    def _write(self, say: Say) -> None:
        results = list(self.store.results().values())
        report.write_junit(results, self.store.folder / "junit.xml", records.reasons(self.provider))
        table = report.table(results, records.reasons(self.provider))
        (self.store.folder / "table.txt").write_text(table)
        say(table)


def _seconds(provider: str) -> dict[str, float]:
    """Text of a spec → how long it took when it was recorded."""
    return {text: result.seconds for text, result in records.load(provider).items()}


def _line(result: Result, done: int, count: int, left_s: float) -> str:
    left = f"about {left_s / 60:.0f} min left" if left_s > 90 else f"about {left_s:.0f} s left"
    why = f"\n          {result.message}" if result.message else ""
    return f"{done:4}/{count} {result.state:7} {result.seconds:6.1f} s  {left}  {result.text}{why}"
