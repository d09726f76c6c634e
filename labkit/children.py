"""Programs that are read or fed while they run. When their time is over they are ended, even while silent."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class Lines:
    """The lines that a program prints, with None about once a second while it is silent."""

    def __init__(self, process: subprocess.Popen[str], limit_s: float, late: Callable[[], Exception]) -> None:
        self._process, self._late = process, late
        self._deadline = time.monotonic() + limit_s
        self._queue: deque[str] = deque()
        self._news = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._queue.append(line.rstrip("\n"))
            self._news.set()
        self._news.set()

    def __iter__(self) -> Iterator[str | None]:
        while True:
            alive = self._reader.is_alive()
            while self._queue:
                yield self._queue.popleft()
                self._check()
            if not alive:
                return
            self._check()
            if not self._news.wait(min(1.0, self._left())):
                yield None
            self._news.clear()

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _check(self) -> None:
        if not self._left():
            raise self._late()

    def code(self) -> int:
        """The exit code, once the lines have ended; negative is a signal's number."""
        try:
            return self._process.wait(max(1.0, self._left()))
        except subprocess.TimeoutExpired:
            raise self._late() from None


@contextmanager
def running(
    argv: Sequence[str],
    limit_s: float,
    late: Callable[[], Exception],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Lines]:
    """Run a program in a process group of its own, which is ended with the block.

    Args:
        limit_s: how long it may take.
        late: makes the error when it takes longer; raised where its lines or its exit code are asked for.
    """
    process = subprocess.Popen(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        yield Lines(process, limit_s, late)
    finally:
        end(process)


@contextmanager
def limited(
    process: subprocess.Popen[bytes], limit_s: float, late: Callable[[], Exception]
) -> Iterator[None]:
    """End a program that leads its process group when its time is over. Reads and writes end with it.

    Args:
        late: makes the error that takes the place of whatever the block met by then.
    """
    over = threading.Event()

    def stop() -> None:
        over.set()
        end(process)

    timer = threading.Timer(limit_s, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as err:
        if over.is_set():
            raise late() from err
        raise
    finally:
        timer.cancel()
        end(process)
    if over.is_set():
        raise late()


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes], patience_s: float = 10.0) -> None:
    """End a program that leads its process group, with the group: asked first, killed when it goes on."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
