"""What `make test` runs: the parts in order, each with its time, and one line of totals at the end.

The embedded cluster's binaries compile in the background while the parts that need no cluster run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
OUT = ROOT / "build" / "test"
PYTEST = [str(BIN / "pytest"), "-q", "--color=no"]


@dataclass(frozen=True)
class Part:
    """One part of the test run.

    Attributes:
        name: short name, used for the log and the JUnit file.
        command: argv, run in the repository's root.
        limit_s: the part is ended and counted as failed after that many seconds.
        junit: JUnit file the command writes, from which its tests are counted.
    """

    name: str
    command: list[str]
    limit_s: int
    junit: Path | None = None
    env: dict[str, str] = field(default_factory=dict)


def pytest_part(name: str, *paths: str, limit_s: int) -> Part:
    """A part that is one pytest run over `paths`."""
    junit = OUT / f"{name}.xml"
    return Part(name, [*PYTEST, f"--junitxml={junit}", *paths], limit_s, junit)


def parts() -> list[Part]:
    """The parts in the order in which they run, the background build excepted."""
    python = str(BIN / "python")
    labs_junit = ROOT / "reports" / "junit.xml"
    return [
        Part("lint", ["make", "-s", "lint"], 300),
        pytest_part("unit", "tests/unit", limit_s=600),
        pytest_part("services", "services", limit_s=300),
        Part("build", [python, "-m", "labkit", "build"], 3000),
        Part("go", [python, "tests/go.py"], 1200),
        pytest_part("cluster", "tests/cluster", limit_s=1500),
        Part(
            "labs",
            [python, "-m", "labkit", "run", "--speed", "ci", "--prove", "--report", "reports"],
            1500,
            labs_junit,
        ),
        pytest_part("kind", "-o", "junit_family=xunit1", "tests/kind", "tests/parity", limit_s=3000),
        pytest_part("notebooks", "tests/notebooks", limit_s=600),
        pytest_part("browser", "tests/browser", limit_s=300),
    ]


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


def run(part: Part) -> bool:
    """Run a part, its output going straight to ours; True when it succeeded within its limit."""
    process = subprocess.Popen(part.command, cwd=ROOT, env={**os.environ, **part.env}, start_new_session=True)
    try:
        return process.wait(part.limit_s) == 0
    except subprocess.TimeoutExpired:
        print(f"{part.name}: not finished after {part.limit_s} s, ended", flush=True)
        return False
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a part's own process group, if any of it is left."""
    if process.poll() is None:
        os.killpg(process.pid, 15)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait(10)


def main() -> int:
    """Run all parts (or those named as arguments) and print the table."""
    OUT.mkdir(parents=True, exist_ok=True)
    wanted = [p for p in parts() if not sys.argv[1:] or p.name in sys.argv[1:]]
    build_log = (OUT / "build.log").open("wb")
    background = None
    if any(p.name == "build" for p in wanted):
        background = subprocess.Popen(
            [str(BIN / "python"), "-m", "labkit", "build"],
            cwd=ROOT, stdout=build_log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    rows, started = [], time.monotonic()
    try:
        for part in wanted:
            print(f"\n=== {part.name} ===", flush=True)
            begin = time.monotonic()
            if part.junit:
                part.junit.unlink(missing_ok=True)
            ok = run(part)
            rows.append((part.name, time.monotonic() - begin, ok, count(part.junit, ok)))
            if not ok and part.name == "build":
                break
    finally:
        if background:
            stop(background)
    return report(rows, time.monotonic() - started)


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
