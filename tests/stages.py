"""What `make test` runs: parts in three lanes side by side, each with its time, and one line of totals at the end.

Much of it is waiting for clusters, so that lanes side by side take little more than half the time of one: embedded clusters
in the first, the engine and kind in the second, and a third one that leaves the processor to the others. The first lane
prints at once; what the others said is printed when one of their parts ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from labkit.labs.metadata import find_labs
from labkit.labs.turns import turn

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
OUT = ROOT / "build" / "test"
TURNS = OUT / "turns"
SLICE_S = "100"
EVERY = 3
"""Each extra part runs once within so many commits."""
NEED_ENGINE = ("airgap", "engine", "parity", "labs-kind")
QUIETLY = ["nice", "-n", "10"]
_T = TypeVar("_T")
PYTEST = [str(BIN / "pytest"), "-q", "--color=no"]
LABKIT = [str(BIN / "python"), "-m", "labkit"]


@dataclass(frozen=True)
class Part:
    """One part of the test run.

    Attributes:
        name: short name, used for the log and the JUnit file.
        command: argv, run in the repository's root.
        limit_s: the part is ended and counted as failed after that many seconds.
        junit: JUnit file the command writes, from which its tests are counted.
        busy: clusters of its own at work: a lab that measures waits until it has ended. (Labs see to it themselves.)
        built: it needs the programs that the part "build" compiles.
        after: part that must have ended, well or not.
    """

    name: str
    command: list[str]
    limit_s: int
    junit: Path | None = None
    busy: bool = False
    built: bool = True
    after: str = ""


def pytest_part(name: str, *args: str, limit_s: int, busy: bool = False, built: bool = True) -> Part:
    """A part that is one pytest run."""
    junit = OUT / f"{name}.xml"
    return Part(name, [*PYTEST, f"--junitxml={junit}", *args], limit_s, junit, busy, built)


def labs_part(name: str, provider: str, report: str, limit_s: int) -> Part:
    """A part that is a run of all labs, each check proved to fail before its step.

    One that fails beside everything else that runs here gets a second try, alone; the report names both. On the embedded
    provider all wrong answers are tried; on others those of some labs, which take turns by commit.
    """
    wrong = "all" if provider == "embedded" else ",".join(in_turn(lab_numbers(), commits()))
    argv = [
        "run",
        "--provider",
        provider,
        "--speed",
        "ci",
        "--prove",
        "--wrong-answers",
        wrong,
        "--report",
        report,
        "--turns",
        str(TURNS),
        "--cluster",
        name,
        "--second-try",
    ]
    return Part(name, [*LABKIT, *argv], limit_s, ROOT / report / "junit.xml")


def conformance_part(limit_s: int) -> Part:
    """A part that is a slice of Kubernetes' own tests which passed before, another one for each commit.

    Those of the HorizontalPodAutoscaler are not among them: they need a processor with nothing beside them.
    """
    folder = OUT / "conformance"
    slice_ = ["--slice", commit(), "--slice-seconds", SLICE_S]
    argv = ["conformance", *slice_, "--no-hpa", "--folder", str(folder)]
    junit = folder / "embedded" / "junit.xml"
    return Part("conformance", [*LABKIT, *argv], limit_s, junit, busy=True)


def extra_parts() -> list[Part]:
    """Parts that not every commit needs; see `in_turn`. Those named on the command line run in any case."""
    faults = [faults_part(*labs) for labs in (("00", "01"), ("03",), ("04",))]
    return [conformance_part(limit_s=1800), parity_part(limit_s=1500), *faults]


def parity_part(limit_s: int) -> Part:
    """A part that compares the embedded cluster with kind in some behaviours, other ones for each commit."""
    return pytest_part("parity", "tests/parity", f"--part={commit()}", limit_s=limit_s, busy=True)


def faults_part(*labs: str) -> Part:
    """A part that is a run of some labs with faults thrown in, beside bystanders that must stay as they are."""
    return pytest_part(
        f"faults-{'-'.join(labs)}", "tests/bystanders", f"--labs={','.join(labs)}", limit_s=1500, busy=True
    )


def in_turn(everything: list[_T], commits: int) -> list[_T]:
    """Those whose turn it is: each comes once within any `EVERY` commits that follow each other."""
    return everything[commits % EVERY :: EVERY]


def lab_numbers() -> list[str]:
    """The labs' numbers, in their order."""
    return [lab.number for lab in find_labs(ROOT / "notebooks")]


def commits() -> int:
    """How many commits led here; 0 outside a git checkout."""
    argv = ["git", "rev-list", "--count", "HEAD"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return int(done.stdout or 0)


def first_lane() -> list[Part]:
    """Everything on embedded clusters."""
    return [
        Part("lint", ["make", "-s", "lint"], 300, built=False),
        # Two workers, each with a shared cluster of its own.
        pytest_part("cluster", "-n2", "--dist=loadfile", "tests/cluster", limit_s=2400, busy=True),
        labs_part("labs", "embedded", "reports", 4500),
        pytest_part("browser", "tests/browser", limit_s=300),
    ]


def commit() -> str:
    """The commit that is tested; it chooses which part of the conformance tests runs."""
    argv = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "none"


def second_lane(extra: list[Part]) -> list[Part]:
    """The programs that others need, images for kind, what takes turns, and the labs on kind.

    The labs begin beside the cluster tests; what measures in them waits until those have ended.

    What needs a container engine runs where LABKIT_TEST_ENGINE says "required". Else each part is skipped, with the
    reason.
    """
    parts = [
        Part("build", [*LABKIT, "build", "--labs"], 3000, built=False),
        Part("airgap", [*LABKIT, "airgap", "build"], 3000),
        pytest_part("engine", "tests/airgap", "tests/kind", limit_s=3000, busy=True),
        *extra,
        labs_part("labs-kind", "kind", "reports-kind", 4800),
    ]
    if os.environ.get("LABKIT_TEST_ENGINE") == "required":
        return parts
    reason = "it needs a container engine, and LABKIT_TEST_ENGINE=required, which was not given"
    return [skipped(part.name, reason) if part.name in NEED_ENGINE else part for part in parts]


def third_lane() -> list[Part]:
    """What takes its time, at a low priority: labs that measure do not notice it.

    It begins after the cluster tests, as it fills the time in which one lab measures and all others wait.
    """
    parts = [
        Part("go", [str(BIN / "python"), "tests/go.py"], 1800),
        pytest_part("notebooks", "tests/notebooks", limit_s=2100),
        pytest_part("services", "services", limit_s=1200, built=False),
        pytest_part("unit", "-n2", "tests/unit", limit_s=1800, built=False),
    ]
    return [replace(part, command=[*QUIETLY, *part.command], after="cluster") for part in parts]


def skipped(name: str, reason: str) -> Part:
    """A part that tells why it is skipped, and counts as that."""
    junit = OUT / f"{name}.xml"
    script = (
        "import sys; from junitparser import JUnitXml, Skipped, TestCase, TestSuite\n"
        "name, reason, path = sys.argv[1:]\n"
        "case = TestCase(name); case.result = [Skipped(reason)]\n"
        "suite = TestSuite(name); suite.add_testcase(case)\n"
        "xml = JUnitXml(); xml.add_testsuite(suite); xml.write(path)\n"
        "print(f'{name}: skipped, {reason}')"
    )
    return Part(name, [str(BIN / "python"), "-c", script, name, reason, str(junit)], 60, junit)


def count(junit: Path | None, ok: bool) -> tuple[int, int, int]:
    """(passed, failed, skipped) of a part: from its JUnit file, or the part itself as one test."""
    if junit is None or not junit.exists():
        return (1, 0, 0) if ok else (0, 1, 0)
    suites = list(ET.parse(junit).getroot().iter("testsuite"))
    total = {
        key: sum(int(s.get(key, 0) or 0) for s in suites)
        for key in ("tests", "failures", "errors", "skipped")
    }
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    return passed, failed or (0 if ok else 1), total["skipped"]


class Runner:
    """Runs lanes of parts, and keeps what came of them.

    Attributes:
        rows: name, seconds, success and counts of each part that has ended.
    """

    def __init__(self, lanes: list[list[Part]]) -> None:
        self.rows: list[tuple[str, float, bool, tuple[int, int, int]]] = []
        self._lanes = lanes
        self._ended = threading.Event()
        self._over = {part.name: threading.Event() for lane in lanes for part in lane}
        self._failed: set[str] = set()
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        """Run all lanes, until the last has ended."""
        first, *others = self._lanes
        threads = [threading.Thread(target=self._lane, args=[lane]) for lane in others]
        try:
            for thread in threads:
                thread.start()
            for part in first:
                if self._may_begin(part):
                    print(f"\n=== {part.name} ===", flush=True)
                    self._part(part)
            for thread in threads:
                thread.join()
        finally:
            self._ended.set()
            for over in self._over.values():
                over.set()
            for process in self._processes:
                stop(process)

    def _lane(self, parts: list[Part]) -> None:
        """A lane beside the first; each part's output is printed when it has ended."""
        for part in parts:
            if self._may_begin(part):
                log = OUT / f"{part.name}.log"
                with log.open("wb") as stream:
                    self._part(part, stream.fileno())
                said = log.read_text(errors="replace")
                print(f"\n=== {part.name} (beside the others) ===\n{said}", flush=True)

    def _may_begin(self, part: Part) -> bool:
        """Wait for what a part needs; False when it will never have it."""
        for name in (part.after, "build" if part.built else ""):
            if name in self._over:
                self._over[name].wait()
        may = not self._ended.is_set() and not (part.built and "build" in self._failed)
        if not may:
            self._over[part.name].set()
        return may

    def _part(self, part: Part, output: int | None = None) -> None:
        """Run a part to its end or its limit."""
        if part.junit:
            part.junit.unlink(missing_ok=True)
        ok = False
        try:
            with turn(TURNS, alone=False) if part.busy else contextlib.nullcontext():
                begin = time.monotonic()
                process = self._start(part.command, output)
                try:
                    ok = process.wait(part.limit_s) == 0
                except subprocess.TimeoutExpired:
                    print(f"{part.name}: not finished after {part.limit_s} s, ended", flush=True)
                finally:
                    stop(process)
            if not self._ended.is_set():
                self.rows.append((part.name, time.monotonic() - begin, ok, count(part.junit, ok)))
        finally:
            if not ok:
                self._failed.add(part.name)
            self._over[part.name].set()

    def _start(self, command: list[str], output: int | None) -> subprocess.Popen[bytes]:
        """A process in a group of its own, which ends with the run."""
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT if output else None, start_new_session=True,
        )  # fmt: skip
        self._processes.append(process)
        return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a part's own process group, if any of it is left."""
    if process.poll() is None:
        os.killpg(process.pid, 15)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait(10)


def main() -> int:
    """Run all parts (or those named as arguments) and print the table."""
    OUT.mkdir(parents=True, exist_ok=True)
    chosen = sys.argv[1:]
    extra = extra_parts() if chosen else in_turn(extra_parts(), commits())
    lanes = [
        [part for part in lane if not chosen or part.name in chosen]
        for lane in (first_lane(), second_lane(extra), third_lane())
    ]
    runner, started = Runner(lanes), time.monotonic()
    runner.run()
    return report(runner.rows, time.monotonic() - started)


def report(rows: list[tuple[str, float, bool, tuple[int, int, int]]], seconds: float) -> int:
    """Print the table and the totals; the exit code."""
    print("\npart            time   passed failed skipped")
    for name, took, ok, (passed, failed, skipped) in rows:
        print(f"{name:12} {took:6.0f} s   {passed:6} {failed:6} {skipped:7}{'' if ok else '   FAILED'}")
    print(f"{'all':12} {seconds:6.0f} s")
    totals = [sum(row[3][i] for row in rows) for i in range(3)]
    print(f"\n{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped", flush=True)
    return 0 if rows and all(ok for _, _, ok, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
