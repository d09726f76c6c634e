"""uvicorn, ending as Kubernetes wants it: not ready, no new connections, the last answers, exit code 0."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from chassis.settings import Settings

if TYPE_CHECKING:
    from chassis.observe import App

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """A single process.

    Args:
        on_drain: called once, after the first signal.
    """

    def __init__(self, app: App, settings: Settings, on_drain: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                loop="asyncio",
                ws="none",
                backlog=512,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=int(settings.shutdown_s),
            )
        )
        self._drain_s, self._on_drain = settings.drain_s, on_drain
        self._end_at: float | None = None
        self._told = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, without raising the signal again at the end: a graceful end is a success."""
        before = {sig: signal.signal(sig, self.handle_exit) for sig in SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal starts to drain, a second one does not wait for that, a third drops requests."""
        del sig, frame
        if self._end_at is None:
            self._end_at = time.monotonic() + self._drain_s
        elif not self.should_exit:
            self.should_exit = True
        else:
            self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """uvicorn asks ten times a second whether to end."""
        if self._end_at is not None:
            if not self._told:  # here and not in the handler: a handler may interrupt a log line
                self._told = True
                self._on_drain()
            self.should_exit |= time.monotonic() >= self._end_at
        return await super().on_tick(counter)
