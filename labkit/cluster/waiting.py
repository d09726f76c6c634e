"""Waiting for a condition, with the reason when it does not come true."""

from __future__ import annotations

import re
import socket
import time
from collections import deque
from collections.abc import Callable

from labkit.cluster.components import log_file
from labkit.cluster.state import Directory
from labkit.errors import KubeError, WaitTimeout

_LINES = 8
_LOOKED_AT = 300
_KEPT_S = 0.1
_ERROR = re.compile(
    r"^[EF]\d{4} |\b(error|fatal|panic|failed|cannot|refused|denied|unknown|in use|"
    r"not (provided|defined|found))\b",
    re.I,
)


def wait_for(
    condition: Callable[[], object],
    limit_s: float,
    what: str,
    reason: Callable[[], str] = lambda: "",
    *,
    hopeless: Callable[[], bool] = lambda: False,
    every_s: float = 0.05,
) -> None:
    """Wait until `condition` is true; refusals of the API server count as "not yet".

    Args:
        what: the condition in words.
        reason: asked when time is up.
        hopeless: ends the wait early; asked once a second.

    Raises:
        WaitTimeout: not within `limit_s`, or hopeless.
    """
    begin = looked = time.monotonic()
    while True:
        try:
            if condition():
                return
        except KubeError:
            pass
        now = time.monotonic()
        lost = False
        if now - looked > 1:
            lost, looked = hopeless(), now
        if lost or now - begin > limit_s:
            raise WaitTimeout(
                f"Not so after {now - begin:.0f} s: {what}.", reason() or "`labkit status` shows more."
            )
        time.sleep(every_s)


def accepts(address: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        with socket.create_connection((address, port), 1):
            return True
    except OSError:
        return False


def serves(address: str, port: int) -> bool:
    """Whether something there takes a TCP connection and keeps it, as one does who has a server behind it.

    A proxy takes connections for servers that it cannot reach, and drops them at once. It takes up to 0.1 s.
    """
    try:
        trial = socket.create_connection((address, port), 1)
    except OSError:
        return False
    with trial:
        trial.settimeout(_KEPT_S)
        try:
            return trial.recv(1, socket.MSG_PEEK) != b""
        except TimeoutError:
            return True
        except OSError:
            return False


def log_tail(directory: Directory, component: str) -> str:
    """The last lines of a component's log that tell of an error (else its last ones), with its path."""
    path = log_file(directory, component)
    try:
        with path.open(errors="replace") as stream:
            lines = list(deque(stream, _LOOKED_AT))
    except OSError:
        return f"{component} has written no log."
    told = [line for line in lines if _ERROR.search(line)] or lines
    return f"From {path}:\n{''.join(told[-_LINES:]).rstrip()}"
