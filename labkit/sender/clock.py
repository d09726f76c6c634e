"""Time finer than a millisecond: when to wake up, and when the kernel sent and received."""

from __future__ import annotations

import select
import selectors
import socket
import struct
import sys
import time
from typing import Any

_SO_TIMESTAMPNS = getattr(socket, "SO_TIMESTAMPNS", 35)
_STAMP = struct.Struct("@ll")
_SPACE = socket.CMSG_SPACE(_STAMP.size)
_RTT_AT = 68
"""Where `struct tcp_info` has the smoothed round trip time, in microseconds."""


class FineSelector(selectors.DefaultSelector):
    """Epoll waits in whole milliseconds; `select` on epoll's own descriptor waits in microseconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            select.select([self], [], [], timeout)
        return super().select(0)


class StampedSocket(socket.socket):
    """A TCP socket that knows when it began to connect, and when the kernel received what was read last.

    The kernel notes the arrival of each segment, so a time measured this way does not depend on when this
    process gets round to reading.

    Attributes:
        sent_at, received_at: `time.monotonic()`.
        waited_s: how long the last bytes lay in the kernel until they were read; NaN where it does not tell.
    """

    sent_at = 0.0
    received_at = 0.0
    waited_s = float("nan")

    def __init__(self, family: int) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.setblocking(False)
        if sys.platform == "linux":
            self.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def begin(self, address: Any) -> None:
        """Begin to connect; the event loop's `sock_connect` waits for the rest, if there is any."""
        self.sent_at = time.monotonic()
        self.connect_ex(address)

    def recv(self, size: int, flags: int = 0) -> bytes:
        data, notes, _, _ = self.recvmsg(size, _SPACE, flags)
        self._note(notes)
        return data

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        into = memoryview(buffer)[:size] if size else buffer
        length, notes, _, _ = self.recvmsg_into([into], _SPACE, flags)
        self._note(notes)
        return length

    def held_s(self) -> float:
        """Time since it began to connect, less the round trip that the kernel measured."""
        passed = time.monotonic() - self.sent_at
        if sys.platform != "linux":
            return passed
        info = self.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_AT + 4)
        return max(0.0, passed - float(struct.unpack_from("I", info, _RTT_AT)[0]) / 1e6)

    def _note(self, notes: list[tuple[int, int, bytes]]) -> None:
        now, wall = time.monotonic(), time.time()
        stamps = [
            data for level, kind, data in notes if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS)
        ]
        if not stamps:
            self.received_at, self.waited_s = now, float("nan")
            return
        seconds, nanoseconds = _STAMP.unpack(stamps[0])
        # Never before the sending: a wall clock that is set meanwhile must not make up a time.
        self.received_at = min(now, max(self.sent_at, now - (wall - seconds - nanoseconds / 1e9)))
        self.waited_s = now - self.received_at
