"""The edge of a rehearsal, as a process of its own: what Cloudflare's network is to a real tunnel.

It takes connectors on one port (SSH, as that has authentication, keep-alives and channels) and visitors on
another, and hands each visitor's connection to a connector, through the connection that the connector opened.
Visitors get 530 while there is none, as at Cloudflare.

Input: one JSON line with address, ports, host key, tunnel, secret and the secret's number; then a line with
secret and number for each secret that takes the place of the one before. Output, in JSON lines:
{"listening": [connectors' port, visitors' port]}; {"connector": number, "peer": address, "at": unix time,
"state": "registered" or "gone", "secret": number}; {"refused": tunnel, "peer": address, "at": unix time}.
It ends when stdin closes: at the latest when its parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import asyncssh

TUNNEL = ("tunnel", 443)
CHUNK = 1 << 16
TRIES = 3
NO_CONNECTOR = b"error code: 1033\n"


class Held(asyncssh.SSHListener):
    """What a connector asked to be told of: no port is opened for it."""

    def __init__(self, leave: Callable[[], None]) -> None:
        super().__init__()
        self.leave = leave

    def close(self) -> None:
        """The connector wants no more visitors; those that it has, it still answers."""
        self.leave()

    async def wait_closed(self) -> None:
        """Nothing listens."""


class Edge:
    """Connectors that are registered, and visitors that are handed to them in turn."""

    def __init__(self, tunnel_id: str, secret: str, secret_number: int = 0) -> None:
        self.tunnel_id, self.secret, self.secret_number = tunnel_id, secret, secret_number
        self.connectors: dict[int, asyncssh.SSHServerConnection] = {}
        self.numbers = itertools.count(1)
        self.turns = itertools.count()

    def known(self, user: str, password: str) -> bool:
        good = hmac.compare_digest(password.encode(), self.secret.encode())
        return hmac.compare_digest(user.encode(), self.tunnel_id.encode()) and good

    def next(self) -> asyncssh.SSHServerConnection | None:
        ready = list(self.connectors.values())
        return ready[next(self.turns) % len(ready)] if ready else None

    async def visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        try:
            opened = await self.reach(peer)
            if opened is None:
                await refuse(reader, writer)
                return
            inner_reader, inner_writer = opened
            there = asyncio.create_task(copy(reader, inner_writer))
            back = asyncio.create_task(copy(inner_reader, writer))
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            if there.done():
                await back
            there.cancel()
            inner_writer.close()
        except (OSError, asyncssh.Error, asyncio.CancelledError):
            pass
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    async def reach(self, peer: Any) -> tuple[Any, Any] | None:
        """A way to a connector: the next one's turn, or another's where that one is about to go."""
        for _ in range(TRIES):
            connector = self.next()
            if connector is None:
                return None
            with contextlib.suppress(OSError, asyncssh.Error):
                return await connector.open_connection(*TUNNEL, peer[0], peer[1])
        return None


class Door(asyncssh.SSHServer):
    """One connector at the door: password, then the one thing it may ask for."""

    def __init__(self, edge: Edge) -> None:
        self.edge, self.number, self.secret_number = edge, 0, 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.conn = conn
        self.peer = ":".join(str(part) for part in conn.get_extra_info("peername")[:2])

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        good = self.edge.known(username, password)
        self.secret_number = self.edge.secret_number
        if not good:
            emit({"refused": username, "peer": self.peer, "at": time.time()})
        return good

    def server_requested(self, listen_host: str, listen_port: int) -> Any:
        if (listen_host, listen_port) != TUNNEL:
            return False
        self.number = next(self.edge.numbers)
        self.edge.connectors[self.number] = self.conn
        self.tell("registered")
        return Held(self.leave)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.leave()

    def leave(self) -> None:
        if self.edge.connectors.pop(self.number, None):
            self.tell("gone")

    def tell(self, state: str) -> None:
        about = {"connector": self.number, "peer": self.peer, "secret": self.secret_number}
        emit({**about, "state": state, "at": time.time()})


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    head = f"HTTP/1.1 530 \r\nContent-Type: text/plain\r\nContent-Length: {len(NO_CONNECTOR)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + NO_CONNECTOR)
    await writer.drain()


async def copy(reader: Any, writer: Any) -> None:
    """Until the end of one side; then tell the other one."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def emit(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def follow(edge: Edge) -> None:
    """Take other secrets until stdin closes. Connectors that are registered stay, as at Cloudflare."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        told = json.loads(line)
        edge.secret, edge.secret_number = told["secret"], told["number"]


async def main(plan: dict[str, Any]) -> None:
    edge = Edge(plan["tunnel_id"], plan["secret"], plan.get("number", 0))
    key = asyncssh.import_private_key(plan["host_key"])
    door = await asyncssh.listen(
        plan["address"], plan["connector_port"], server_factory=lambda: Door(edge), server_host_keys=[key],
        encoding=None, keepalive_interval=5, keepalive_count_max=2, login_timeout=10, config=None,
        allow_scp=False, agent_forwarding=False, x11_forwarding=False, reuse_address=True,
    )  # fmt: skip
    front = await asyncio.start_server(
        edge.visit, plan["address"], plan["visitor_port"], reuse_address=True, backlog=512
    )
    emit({"listening": [door.get_port(), front.sockets[0].getsockname()[1]]})
    await follow(edge)
    front.close()
    door.close()
    for connector in edge.connectors.values():
        connector.abort()


if __name__ == "__main__":
    plan = json.loads(sys.stdin.buffer.readline())
    asyncio.run(main(plan))
