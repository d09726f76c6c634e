"""What a longer piece of work does, phase by phase, how that is shown, and how it ends early."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, Literal

from labkit.errors import LabkitError

State = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class Phase:
    """A phase at one moment.

    Attributes:
        name: such as "etcd" or "join worker-1".
        text: what it does or has done.
        state: running, done or failed.
        seconds: since it began.
        fraction: 0 … 1 of it is done, None where that cannot be told.
        note: the text should stay to be seen, such as that something was repaired.
    """

    name: str
    text: str
    state: State
    seconds: float
    fraction: float | None = None
    note: bool = False


Listener = Callable[[Phase], None]


class Step:
    """A phase that runs: say what it does with `text`."""

    def __init__(self, name: str, listener: Listener, text: str) -> None:
        self._name, self._listener, self._begin = name, listener, time.monotonic()
        self.tell(text)

    @property
    def text(self) -> str:
        """What was said last."""
        return self._text

    def tell(self, text: str, fraction: float | None = None) -> None:
        """Say what it does now, and how far it is."""
        self._text = text
        self._send("running", fraction)

    def note(self, text: str) -> None:
        """Say something that a person should see, however short it is true."""
        self._listener(Phase(self._name, text, "running", time.monotonic() - self._begin, note=True))

    def _send(self, state: State, fraction: float | None = None) -> None:
        self._listener(Phase(self._name, self._text, state, time.monotonic() - self._begin, fraction))

    def _end(self, state: State, text: str = "") -> None:
        self._text = text or self._text
        self._send(state, 1.0 if state == "done" else None)


@contextmanager
def phase(name: str, listener: Listener, text: str = "") -> Iterator[Step]:
    """Tell a listener of a phase: that it begins, how it goes on, and how it ended."""
    step = Step(name, listener, text)
    try:
        yield step
    except BaseException as err:
        said = err.message.splitlines()[0] if isinstance(err, LabkitError) else type(err).__name__
        step._end("failed", said)
        raise
    step._end("done")


def silent(_: Phase) -> None:
    """Show nothing."""


class Plain:
    """One line for each phase when it has ended, and for long ones now and then how far they are."""

    def __init__(self, stream: IO[str] | None = None, every_s: float = 20.0) -> None:
        self._stream, self._every, self._lock = stream, every_s, threading.Lock()
        self._told: dict[str, float] = {}

    def __call__(self, now: Phase) -> None:
        with self._lock:
            if now.state == "running" and not now.note:
                last = self._told.setdefault(now.name, 0.0)
                if now.seconds - last < self._every:
                    return
                self._told[now.name] = now.seconds
            mark = {"running": "…", "done": "", "failed": "failed: "}[now.state]
            print(f"[{now.name}] {mark}{now.text} ({now.seconds:.1f} s)", file=self._stream, flush=True)


class Live:
    """Lines that change in place, for a terminal. A context manager."""

    def __init__(self, console: Any = None) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn
        from rich.table import Column

        narrow, wide = Column(no_wrap=True, min_width=15), Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✔"),
            TextColumn("[bold]{task.fields[phase]}", table_column=narrow),
            TextColumn("{task.fields[took]:>7}", table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.description}", table_column=wide),
            console=console,
            expand=True,
        )
        self._tasks: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, now: Phase) -> None:
        from rich.markup import escape

        with self._lock:
            if now.note:
                self._progress.console.print(f"[bold]{now.name}[/] {escape(now.text)}")
                return
            fields: dict[str, Any] = {"phase": now.name, "took": f"{now.seconds:.1f} s"}
            share = f"{now.fraction:.0%} " if now.fraction is not None and now.state == "running" else ""
            text = share + escape(now.text)
            if now.name not in self._tasks:
                self._tasks[now.name] = self._progress.add_task(text, total=None, **fields)
            total = 1.0 if now.fraction is not None or now.state == "done" else None
            if now.state == "failed":
                text = f"[red]✘ {text}"
            self._progress.update(
                self._tasks[now.name], description=text, total=total, completed=now.fraction or 0.0, **fields
            )
            if now.state == "failed":
                self._progress.stop_task(self._tasks[now.name])


@contextmanager
def shown(stream: IO[str] | None = None) -> Iterator[Listener]:
    """The listener that fits: changing lines on a terminal, else plain ones (notebooks, logs)."""
    target = stream or sys.stdout
    if target.isatty():
        from rich.console import Console

        with Live(Console(file=target)) as live:
            yield live
    else:
        yield Plain(target)


def end_on_sigterm() -> None:
    """Let long work clean up when it is terminated, as it does when it is interrupted."""

    def stop(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
