"""Logs and exec: the streams of a pod's containers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from labkit.errors import KubeError
from labkit.kube.connection import Connection


@dataclass(frozen=True)
class ExecResult:
    """What a command in a container wrote and how it ended."""

    stdout: str
    stderr: str
    exit_code: int


def follow_logs(
    connection: Connection, path: str, query: dict[str, object], timeout_s: float
) -> Iterator[str]:
    """Lines of a log as they are written, until the container ends or `timeout_s` is over."""
    import urllib3

    deadline = time.monotonic() + timeout_s
    response = connection.stream("GET", path, query={**query, "follow": "true"}, timeout_s=timeout_s)
    buffer = b""
    try:
        while time.monotonic() < deadline:
            chunk = response.read1(65536)
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
        if buffer:
            yield buffer.decode(errors="replace")
    except urllib3.exceptions.TimeoutError:
        return
    finally:
        response.close()


def execute(
    connection: Connection, pod: str, namespace: str, argv: list[str], container: str | None, timeout_s: float
) -> ExecResult:
    """Run a command in a container over the API server's exec stream.

    Raises:
        KubeError: refused, or not ended after `timeout_s` seconds.
    """
    from kubernetes import client
    from kubernetes.stream import stream

    api = client.CoreV1Api(client.ApiClient(connection.settings))  # stream() changes the client it is given
    named = {"container": container} if container else {}
    try:
        session = stream(
            api.connect_get_namespaced_pod_exec,
            pod,
            namespace,
            command=argv,
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
            _preload_content=False,
            _request_timeout=10,
            **named,
        )
    except client.ApiException as err:
        raise KubeError(f"exec in pod {namespace}/{pod} was refused: {err.reason}") from err
    try:
        out, error = [], []
        deadline = time.monotonic() + timeout_s
        while session.is_open() and time.monotonic() < deadline:
            session.update(timeout=0.5)
            out.append(session.read_stdout() if session.peek_stdout() else "")
            error.append(session.read_stderr() if session.peek_stderr() else "")
        if session.is_open():
            raise KubeError(
                f"{' '.join(argv)} in pod {namespace}/{pod} did not end within {timeout_s:.0f} s."
            )
        return ExecResult("".join(out), "".join(error), int(session.returncode or 0))
    finally:
        session.close()
