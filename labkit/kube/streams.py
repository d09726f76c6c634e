"""Logs and exec: the streams of a pod's containers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from labkit.errors import ConfigError, KubeError
from labkit.kube.connection import Connection, Unreachable, refusal
from labkit.kube.objects import dig

_STDOUT, _STDERR, _STATUS = 1, 2, 3
"""Channels of the exec protocol."""
_SILENCE_S = 30.0
"""A server that says nothing for so long while a session begins is not there."""


@dataclass(frozen=True)
class ExecResult:
    """What a command in a container wrote and how it ended."""

    stdout: str
    stderr: str
    exit_code: int


def hang_up(response: Any) -> None:
    """End an open response, also from another thread that is not the one that reads it."""
    with suppress(OSError, ValueError, RuntimeError):  # already closed
        response.shutdown()


def follow_logs(
    connection: Connection, path: str, query: dict[str, object], timeout_s: float
) -> Iterator[str]:
    """Lines of a log as they are written, until the container ends or `timeout_s` is over."""
    import urllib3

    deadline = time.monotonic() + timeout_s
    response = connection.stream("GET", path, query={**query, "follow": "true"}, timeout_s=timeout_s)
    silence = threading.Timer(timeout_s, hang_up, [response])  # a last line just before would double the wait
    silence.daemon = True
    silence.start()
    buffer = b""
    try:
        while time.monotonic() < deadline:
            chunk = response.read1(65536)
            if not chunk or time.monotonic() > deadline:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
        if buffer:
            yield buffer.decode(errors="replace")
    except urllib3.exceptions.TimeoutError:
        return
    except (urllib3.exceptions.HTTPError, OSError) as err:
        if time.monotonic() < deadline:
            raise Unreachable(f"The log {path} broke off: {err}", "Follow it again.") from err
    finally:
        silence.cancel()
        response.close()


def execute(
    connection: Connection,
    pod: str,
    namespace: str,
    argv: Sequence[str],
    container: str | None,
    timeout_s: float,
) -> ExecResult:
    """Run a command in a container over the API server's exec stream.

    Raises:
        ConfigError: `argv` is no list of words.
        NotFound, Forbidden, KubeError: refused, cannot be started, or not ended after `timeout_s` seconds.
        Unreachable: the connection broke; the command may have run.
    """
    from websocket import WebSocketException

    if isinstance(argv, str | bytes) or not argv:
        raise ConfigError(f"{argv!r} is not a command.", 'A command is a list of words: ["ls", "-l"].')
    words = [str(word) for word in argv]
    what = f"{' '.join(words)} in pod {namespace}/{pod}"
    session = _open(connection, pod, namespace, words, container)
    out, error = bytearray(), bytearray()
    deadline = time.monotonic() + timeout_s
    try:
        while session.is_open() and time.monotonic() < deadline:
            session.update(timeout=0.5)
            out += session.read_channel(_STDOUT) or b""
            error += session.read_channel(_STDERR) or b""
        if session.is_open():
            raise KubeError(f"{what} did not end within {timeout_s:.0f} s.")
        code = _exit_code(bytes(session.read_channel(_STATUS) or b""), what)
    except (WebSocketException, OSError) as err:
        raise Unreachable(f"The connection broke while {what} ran: {err}", "Look, then repeat.") from err
    finally:
        with suppress(WebSocketException, OSError):
            session.close(timeout=1)
    return ExecResult(out.decode(errors="replace"), error.decode(errors="replace"), code)


def _open(connection: Connection, pod: str, namespace: str, words: list[str], container: str | None) -> Any:
    """The exec session, with the server's refusal as a typed error."""
    import websocket
    from kubernetes import client
    from kubernetes.stream import stream

    if websocket.getdefaulttimeout() is None:  # the official client names none: it would wait for ever
        websocket.setdefaulttimeout(_SILENCE_S)
    api = client.CoreV1Api(client.ApiClient(connection.settings))  # stream() changes the client it is given
    named = {"container": container} if container else {}
    try:
        return stream(
            api.connect_get_namespaced_pod_exec,
            pod,
            namespace,
            command=words,
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
            binary=True,
            _preload_content=False,
            **named,
        )
    except client.ApiException as err:
        cause = err.__context__  # the client keeps only its text
        if isinstance(cause, websocket.WebSocketBadStatusException):
            body = (cause.resp_body or b"").decode(errors="replace")
            raise refusal(cause.status_code, body or str(err.reason)) from err
        if isinstance(cause, KeyboardInterrupt | SystemExit):
            raise cause from None
        raise Unreachable(f"exec in pod {namespace}/{pod} cannot begin: {err.reason}") from err


def _exit_code(status: bytes, what: str) -> int:
    """The exit code in the Status object with which an exec stream ends."""
    try:
        found = json.loads(status)
        if found["status"] == "Success":
            return 0
        causes = dig(found, "details.causes", [])
        codes = [cause["message"] for cause in causes if cause.get("reason") == "ExitCode"]
        if codes:
            return int(codes[0])
        message = str(found.get("message") or found)
    except (ValueError, LookupError, TypeError, AttributeError) as err:
        raise Unreachable(f"The connection ended before {what} did.", "Look, then repeat.") from err
    raise KubeError(f"{what} cannot be run: {message}")
