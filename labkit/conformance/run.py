"""Run specs, each in a process of the suite of its own, several side by side; each result is kept at once."""

from __future__ import annotations

import json
import os
import shlex
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.cluster import Cluster
from labkit.conformance.results import FAILED, PASSED, SKIPPED, Result, Store, short
from labkit.conformance.specs import Spec, spec_reports
from labkit.tools import kubectl

LIMIT_S = 1800.0
"""A spec that runs longer is ended; the longest that pass take a third of that."""
_CLEAN_UP_S = 90.0
_GUESS_S = 25.0

Told = Callable[[Result, int, int, float], None]
"""Called with a result, how many are done, how many there are, and the seconds that the rest may take."""


@dataclass
class Runner:
    """Runs the suite against one cluster.

    Attributes:
        suite: the compiled suite.
        store: where results go.
        limit_s: a spec may take so long.
        known_s: text of a spec → seconds it took before, for the estimate.
    """

    cluster: Cluster
    suite: Path
    store: Store
    limit_s: float = LIMIT_S
    known_s: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._took: list[float] = []

    def run(self, specs: Sequence[Spec], processes: int, told: Told) -> None:
        """Run all specs: those that bear company first, `processes` at a time, then the serial ones.

        Interrupted, it lets the suite clean up, and the specs that were cut off have no result.
        """
        waiting = {
            spec.text: spec for spec in sorted(specs, key=lambda spec: (spec.serial, -self._guess(spec)))
        }
        together = [spec for spec in waiting.values() if not spec.serial]
        alone = [spec for spec in waiting.values() if spec.serial]
        count = len(waiting)

        def one(spec: Spec) -> None:
            if self._stopped.is_set():
                return
            result = self._spec(spec)
            if result is None:
                return
            with self._lock:
                waiting.pop(spec.text)
                self._took.append(result.seconds)
                self.store.add(result)
                told(result, count - len(waiting), count, self._left_s(waiting.values(), processes))

        for group, width in ((together, processes), (alone, 1)):
            with ThreadPoolExecutor(width) as pool:
                try:
                    for _ in pool.map(one, group):
                        pass
                except BaseException:
                    self._stopped.set()
                    raise

    def _guess(self, spec: Spec) -> float:
        usual = statistics.median(self._took) if len(self._took) > 4 else _GUESS_S
        return self.known_s.get(spec.text, usual)

    def _left_s(self, waiting: Any, processes: int) -> float:
        together = [self._guess(spec) for spec in waiting if not spec.serial]
        alone = sum(self._guess(spec) for spec in waiting if spec.serial)
        return alone + max(sum(together) / processes, max(together, default=0.0))

    def _spec(self, spec: Spec) -> Result | None:
        """Run one spec; None when it was interrupted."""
        log = self.store.log(spec)
        log.parent.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="labkit-conformance-") as folder, log.open("w") as output:
            report = Path(folder) / "report.json"
            argv, env = self._command(self._argv(spec, report, Path(folder)))
            process = subprocess.Popen(
                argv, cwd=folder, env={**env, "TMPDIR": folder}, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                in_time = self._wait(process)
            finally:
                _end(process)
            if self._stopped.is_set():
                return None
            result = self._read(spec, report, time.monotonic() - begin, in_time)
        if result.state == PASSED:
            log.unlink()
        return result

    def _command(self, argv: list[str]) -> tuple[list[str], dict[str, str]]:
        """The suite as it runs: on the embedded cluster in a shell, which alone has routes to its pods."""
        if self.cluster.provider == "embedded":
            return self.cluster.shell(shlex.join(["exec", *argv]))
        return argv, {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)}

    def _argv(self, spec: Spec, report: Path, folder: Path) -> list[str]:
        return [
            str(self.suite), f"--kubeconfig={self.cluster.kubeconfig}", f"--kubectl-path={kubectl()}",
            "--provider=skeleton", f"--ginkgo.focus={spec.focus}", f"--ginkgo.json-report={report}",
            "--ginkgo.no-color", "--ginkgo.v", "--ginkgo.timeout=2h", f"--e2e-output-dir={folder}",
            "--disable-log-dump", f"--repo-root={folder}",
        ]  # fmt: skip

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the suite, unless the run is stopped; False when it has not ended within its limit."""
        deadline = time.monotonic() + self.limit_s
        while time.monotonic() < deadline and not self._stopped.is_set():
            try:
                process.wait(0.3)
                return True
            except subprocess.TimeoutExpired:
                continue
        return False

    def _read(self, spec: Spec, report: Path, seconds: float, in_time: bool) -> Result:
        log = str(self.store.log(spec))
        found = dict(spec_reports(json.loads(report.read_text()))) if report.exists() else {}
        entry = found.get(spec.text)
        if entry is None:
            last = " ".join(Path(log).read_text(errors="replace").split())[-300:]
            return Result(spec.text, FAILED, seconds, f"the suite ended without a result: {last}", log)
        state, failure = entry["State"], entry.get("Failure") or {}
        if state == PASSED:
            return Result(spec.text, PASSED, seconds)
        message = short(failure.get("Message", "") or state)
        if not in_time:
            message = f"not finished after {self.limit_s:.0f} s: {message}"
        return Result(spec.text, SKIPPED if state == SKIPPED else FAILED, seconds, message, log)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the suite clean up if it still runs, then see that nothing of its group is left."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_CLEAN_UP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
