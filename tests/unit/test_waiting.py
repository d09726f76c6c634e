"""What counts as a server that serves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from labkit.cluster.waiting import accepts, serves


@pytest.fixture
def server() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Starts servers that do something with each connection; gives their ports."""
    listening: list[socket.socket] = []

    def start(handle: Callable[[socket.socket], None]) -> int:
        made = socket.create_server(("127.0.0.1", 0))
        listening.append(made)

        def run() -> None:
            while True:
                try:
                    connection, _ = made.accept()
                except OSError:
                    return
                handle(connection)

        threading.Thread(target=run, daemon=True).start()
        port: int = made.getsockname()[1]
        return port

    yield start
    for each in listening:
        each.shutdown(socket.SHUT_RDWR)
        each.close()


def test_who_waits_for_a_request_serves(server: Callable[[Callable[[socket.socket], None]], int]) -> None:
    kept: list[socket.socket] = []
    assert serves("127.0.0.1", server(kept.append))


def test_who_speaks_first_serves(server: Callable[[Callable[[socket.socket], None]], int]) -> None:
    assert serves("127.0.0.1", server(lambda connection: connection.sendall(b"SSH-2.0\r\n")))


def test_who_hangs_up_accepts_and_does_not_serve(
    server: Callable[[Callable[[socket.socket], None]], int],
) -> None:
    port = server(lambda connection: connection.close())
    assert accepts("127.0.0.1", port) and not serves("127.0.0.1", port)


def test_nobody_there_does_not_serve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
    assert not serves("127.0.0.1", port)
