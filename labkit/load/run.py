"""Start a load in a process of its own, follow it, collect it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from labkit.errors import ConfigError, LabkitError
from labkit.load.profiles import Array, Profile, Spacing
from labkit.load.result import LoadResult, frame_of, split

_START_LIMIT_S = 30.0
_LEAST_S = 0.1
"""The shortest profile: one that was stopped at once."""
_HEADERS = {"x-pod": "pod", "x-version": "version"}


@dataclass(frozen=True)
class Request:
    """One kind of request; of several, each is chosen in proportion to its weight."""

    url: str
    method: str = "GET"
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0


class Running:
    """A load that is being sent; a context manager that stops it at the end of the block."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        profile: Profile,
        arrivals: Array,
        columns: list[str],
        timeout_s: float,
    ) -> None:
        self._process = process
        self._arrivals = arrivals
        self._profile = profile
        self._columns = columns
        self._limit_s = profile.duration_s + timeout_s + _START_LIMIT_S
        self._rows: list[list[object]] = []
        self._end: dict[str, float] = {}
        self._started = threading.Event()
        self._began = time.monotonic()
        self._words = ""
        self._stopping = False
        self.started_at = 0.0
        self._reader = threading.Thread(target=self._read, name="labkit-load", daemon=True)
        self._reader.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def t_seconds(self) -> float:
        """Seconds since the profile's time 0."""
        return time.time() - self.started_at

    @property
    def done(self) -> bool:
        return not self._reader.is_alive()

    def snapshot(self) -> LoadResult:
        """What has been measured so far (written twice a second). Requests still open are not in it yet."""
        end = dict(self._end)
        requests, unsent = split(frame_of(list(self._rows), self._columns))
        until_s = end.get("until_s", min(max(0.0, self.t_seconds), self._profile.duration_s))
        profile = self._profile.until(max(_LEAST_S, until_s)) if end else self._profile
        return LoadResult(
            requests, profile, self.started_at, end.get("cpu_s", 0.0), end.get("wall_s", 0.0), unsent, until_s
        )

    def result(self) -> LoadResult:
        """Wait for the end of the profile and return all.

        Raises:
            LabkitError: the generator's process failed; carries its last words.
        """
        self._reader.join(max(0.0, self._began + self._limit_s - time.monotonic()))
        self._close()
        if not self._end:
            raise LabkitError(f"The load generator ended early: {self._last_words()}")
        result = self.snapshot()
        missing = int((self._arrivals < result.span_s).sum()) - len(result.requests) - len(result.unsent)
        if missing > 0:
            raise LabkitError(
                f"The load generator does not tell what became of {missing} requests: {self._last_words()}"
            )
        return result

    def stop(self, wait_s: float | None = None) -> LoadResult:
        """Send no more, and return all when the open requests have ended. The result's profile ends here.

        Args:
            wait_s: how long open requests may still be answered; by default each until its own timeout. One
                that is open then counts as failed: "not answered".
        """
        stdin = self._process.stdin
        if stdin and not stdin.closed and not self._stopping:
            self._stopping = True
            with contextlib.suppress(OSError):
                stdin.write(json.dumps({"wait_s": wait_s}).encode() + b"\n")
                stdin.flush()
        return self.result()

    def wait_started(self) -> None:
        """Return when the profile's time 0 has come near (the process needs half a second to start)."""
        self._started.wait(_START_LIMIT_S)
        if not self.started_at:
            self._close()
            raise LabkitError(f"The load generator did not start: {self._last_words()}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith(b"\n"):  # it was killed while it wrote
                break
            message: dict[str, Any] = json.loads(line)
            if "start" in message:
                self.started_at = message["start"]
                self._started.set()
            self._rows.extend(message.get("rows", []))
            self._end.update(message.get("end", {}))
        self._process.stdout.close()
        self._started.set()

    def _close(self) -> None:
        if self._process.poll() is None:
            try:
                self._process.wait(2 if self._end else 0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stderr and not self._process.stderr.closed:
            self._words = self._process.stderr.read().decode(errors="replace").strip()
        for pipe in (self._process.stdin, self._process.stderr):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()

    def _last_words(self) -> str:
        return self._words.splitlines()[-1] if self._words else "no message"


def start(
    target: str | Request | Sequence[Request],
    profile: Profile,
    *,
    spacing: Spacing = "poisson",
    seed: int = 0,
    keep_alive: bool = False,
    timeout_s: float = 10.0,
    max_in_flight: int = 1000,
    collect: Mapping[str, str] | None = None,
) -> Running:
    """Begin to send load and return at once (after the generator's start, half a second).

    Args:
        target: a URL, or requests to choose from.
        spacing: "poisson" (independent clients) or "uniform".
        keep_alive: False opens a connection per request, as separate clients do, so that a Service balances
            each request; True reuses connections, as one gateway does.
        timeout_s: a request without a complete answer after so long has failed.
        max_in_flight: while so many are unanswered no more are sent; the result's `unsent` tells which.
        collect: response headers to keep, header to column; x-pod and x-version by default.

    Raises:
        ConfigError: a URL or number that cannot be used.
    """
    given = (
        [Request(target)]
        if isinstance(target, str)
        else [target]
        if isinstance(target, Request)
        else [*target]
    )
    for request in given:
        if urlsplit(request.url).scheme not in ("http", "https") or not urlsplit(request.url).hostname:
            raise ConfigError(f"{request.url!r} is not an http URL.", "cluster.url(service) makes one.")
        if any(
            mark in text
            for text in (request.method, *request.headers, *request.headers.values())
            for mark in "\r\n"
        ):
            raise ConfigError(f"A header or method of {request.url} has a line break in it.", "Remove it.")
    if not given or timeout_s <= 0 or max_in_flight < 1 or any(request.weight <= 0 for request in given):
        raise ConfigError("A load needs a target, and weights, timeout_s and max_in_flight above 0.")
    headers = _HEADERS if collect is None else dict(collect)
    arrivals = profile.arrivals(spacing, seed)
    plan = {
        "requests": [asdict(request) for request in given],
        "count": len(arrivals),
        "duration_s": profile.duration_s,
        "seed": seed,
        "keep_alive": keep_alive,
        "timeout_s": timeout_s,
        "max_in_flight": max_in_flight,
        "headers": list(headers),
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "labkit.sender"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in the terminal is for labkit, which then stops it
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its last words say why
        process.stdin.write(json.dumps(plan).encode() + b"\n" + arrivals.tobytes())
        process.stdin.flush()
    running = Running(process, profile, arrivals, list(headers.values()), timeout_s)
    running.wait_started()
    return running


def run(target: str | Request | Sequence[Request], profile: Profile, **options: Any) -> LoadResult:
    """Send a whole profile and return what was measured; options as for `start`."""
    with start(target, profile, **options) as running:
        return running.result()
