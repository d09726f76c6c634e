"""An HTTP/1.1 client that takes little time of its own: hundreds of requests per second leave it idle."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httptools

from labkit.sender.clock import StampedSocket
from labkit.sender.faults import BY_ERRNO

_NAME_S = 10.0
_BUFFER = bytearray(1 << 16)
_VIEW = memoryview(_BUFFER)
_REPEATABLE = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")
Origin = tuple[str, int, bool]  # host, port, TLS


class OwnFault(Exception):
    """The request was not sent, and it is no fault of the server's."""


class Closed(Exception):
    """The server ended the connection before the answer was complete."""


class NotHttp(Exception):
    """What came is no HTTP answer."""


@dataclass(frozen=True)
class Prepared:
    """A request as it goes over the wire."""

    origin: Origin
    method: str
    wire: bytes


@dataclass
class Answer:
    """What became of a request.

    Attributes:
        sent_at: when it began to connect, or to send on a kept connection; `time.monotonic()`.
        received_at: when the kernel had the last byte.
        held_s: how long this process took between connecting and sending, beyond what the network did.
        waited_s: how long the last bytes waited to be read; not part of the time until `received_at`.
    """

    sent_at: float
    received_at: float = 0.0
    held_s: float = 0.0
    waited_s: float = float("nan")
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)


def prepare(request: dict[str, Any]) -> Prepared:
    """Bytes of a request: URL, headers and body, with what HTTP needs beyond those given."""
    parts = urlsplit(request["url"])
    tls, host = parts.scheme == "https", parts.hostname or ""
    name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    if parts.query:
        target += "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~")
    body = (request["body"] or "").encode()
    port = f":{parts.port}" if parts.port else ""
    headers = {"host": name + port, "accept": "*/*", "user-agent": "labkit"}
    if request["body"] is not None:
        headers["content-type"] = "text/plain; charset=utf-8"
    if request["body"] is not None or request["method"] in ("POST", "PUT", "PATCH"):
        headers["content-length"] = str(len(body))
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    headers |= {name.lower(): value for name, value in request["headers"].items()}
    lines = [
        f"{request['method']} {target} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    wire = "\r\n".join([*lines, "", ""]).encode() + body
    return Prepared((host, parts.port or (443 if tls else 80), tls), request["method"], wire)


class Connection(asyncio.BufferedProtocol):
    """One connection: sends its first request as soon as it is open, and knows when an answer is complete.

    Attributes:
        answered: done when the answer to the last request is complete.
        begun: some of it has come.
        keeps: the server lets the connection be used again.
        lost: it cannot be.
    """

    def __init__(self, sock: StampedSocket, request: Prepared, answer: Answer) -> None:
        self._sock, self._first = sock, (request, answer)
        self.begun = self.keeps = self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        request, answer = self._first
        if not request.origin[2]:
            answer.held_s = self._sock.held_s()
        self.ask(request, answer)

    def ask(self, request: Prepared, answer: Answer) -> None:
        """Send."""
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._method, self._answer = request.method, answer
        self.begun = self.keeps = self._sized = False
        self._parser = httptools.HttpResponseParser(self)
        self.transport.write(request.wire)

    @property
    def complete(self) -> bool:
        """Whether the last answer came in full."""
        return self.answered.done() and self._answer.received_at > 0

    def get_buffer(self, _hint: int) -> memoryview:
        return _VIEW

    def buffer_updated(self, length: int) -> None:
        if self.answered.done():
            self.lost = True  # bytes that nobody asked for: not to be used again
            return
        self.begun = True
        try:
            self._parser.feed_data(_VIEW[:length])
        except httptools.HttpParserUpgrade:
            self._complete()
        except httptools.HttpParserError as err:
            self._fail(NotHttp(str(err)))

    def eof_received(self) -> None:
        self.lost = True
        if self._answer.status and not self._sized:  # its length is told by its end
            self._complete()
        else:
            self._fail(Closed())

    def connection_lost(self, err: Exception | None) -> None:
        self.lost = True
        self._fail(err or Closed())

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.decode("latin-1").lower()
        self._sized |= lower in ("content-length", "transfer-encoding")
        self._answer.headers[lower] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        if self._method == "HEAD" and self._answer.status >= 200:
            self._complete()

    def on_message_complete(self) -> None:
        if (
            self._answer.status < 200 and self._answer.status != 101
        ):  # 100 Continue and its like: the answer follows
            self._answer.status, self._sized = 0, False
            self._answer.headers.clear()
            return
        self.keeps = self._parser.should_keep_alive() and self._answer.status != 101
        self._complete()

    def _complete(self) -> None:
        if not self.answered.done():
            self._answer.received_at, self._answer.waited_s = self._sock.received_at, self._sock.waited_s
            self.answered.set_result(None)

    def _fail(self, err: Exception) -> None:
        if not self.answered.done():
            self.answered.set_exception(err)


class Client:
    """Sends requests; with `keep_alive` it uses a connection again.

    Args:
        keep_alive: False opens a connection per request.
    """

    def __init__(self, keep_alive: bool) -> None:
        self._keep_alive = keep_alive
        self._idle: dict[Origin, list[Connection]] = {}
        self._names: dict[tuple[str, int], tuple[float, asyncio.Future[Any]]] = {}
        self._tls: ssl.SSLContext | None = None
        # The kernel stamps only while there is a socket that asks for it, and takes a while to begin.
        self._stamping = StampedSocket(socket.AF_INET)

    async def warm(self, requests: list[Prepared]) -> None:
        """Look up every name, so that the first request does not wait for it."""
        for host, port, tls in {request.origin for request in requests}:
            self._tls = self._tls or (ssl.create_default_context() if tls else None)
            try:
                await self._addresses(host, port)
            except OSError:  # the requests will tell of it
                continue

    async def exchange(self, request: Prepared) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            OwnFault: it was not sent, for want of something on this side.
            Closed, NotHttp, OSError: no complete answer came.
        """
        while True:
            answer = Answer(time.monotonic())
            kept = self._reusable(request.origin)
            if kept:
                kept.ask(request, answer)
            connection = kept or await self._connect(request, answer)
            try:
                await connection.answered
            except (Closed, OSError):
                # A server may close an idle connection just when it is used again (RFC 9112, 9.3.1).
                if kept and not kept.begun and request.method in _REPEATABLE:
                    continue
                raise
            finally:
                self._release(request.origin, connection)
            return answer

    def _reusable(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin, [])
        while idle:
            connection = idle.pop()
            if not connection.lost:
                return connection
        return None

    def _release(self, origin: Origin, connection: Connection) -> None:
        if self._keep_alive and connection.keeps and not connection.lost:
            self._idle.setdefault(origin, []).append(connection)
        elif connection.complete and not origin[2]:
            connection.transport.close()
        else:
            connection.transport.abort()

    async def _connect(self, request: Prepared, answer: Answer) -> Connection:
        host, port, tls = request.origin
        sock = await self._open(host, port)
        answer.sent_at = sock.sent_at
        if tls:
            answer.held_s = sock.held_s()
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(sock, request, answer),
                sock=sock,
                ssl=self._tls if tls else None,
                server_hostname=host if tls else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection

    async def _open(self, host: str, port: int) -> StampedSocket:
        """A connection to the first address of a name that takes one."""
        problem = OSError("The name has no address.")
        for family, address in await self._addresses(host, port):
            try:
                return await _connected(family, address)
            except OSError as err:
                if err.errno in BY_ERRNO:
                    raise OwnFault(BY_ERRNO[err.errno]) from err
                problem = err
        raise NotConnected(problem) from problem

    async def _addresses(self, host: str, port: int) -> list[tuple[int, Any]]:
        """Family and address of each that a name has; asked again every ten seconds."""
        now = time.monotonic()
        until, found = self._names.get((host, port), (0.0, None))
        if found is None or now > until:
            loop = asyncio.get_running_loop()
            asked = loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = asyncio.ensure_future(asked)
            self._names[host, port] = now + (_NAME_S if not _is_address(host) else float("inf")), found
        return list(
            dict.fromkeys((family, address) for family, _, _, _, address in await asyncio.shield(found))
        )


async def _connected(family: int, address: Any) -> StampedSocket:
    sock = StampedSocket(family)
    try:
        sock.begin(address)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


class NotConnected(Exception):
    """No connection could be opened."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.refused = isinstance(cause, ConnectionRefusedError)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def kind_of(err: BaseException) -> str:
    """A short, stable name for what went wrong with a request."""
    if isinstance(err, OwnFault):
        return str(err)
    if isinstance(err, NotConnected):
        return "refused" if err.refused else "no connection"
    if isinstance(err, socket.gaierror):
        return "no such name"
    if isinstance(err, ssl.SSLError):
        return "tls"
    if isinstance(err, Closed):
        return "closed without answer"
    if isinstance(err, NotHttp):
        return "no HTTP answer"
    if isinstance(err, TimeoutError):
        return "timeout"
    if isinstance(err, OSError):
        return "reset"
    return type(err).__name__
