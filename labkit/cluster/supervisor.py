"""Client of `shim supervise`, the process that keeps a cluster's components running."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.cluster.components import STATE_VARIABLE
from labkit.cluster.state import Directory
from labkit.errors import ClusterError
from labkit.kube.direct import without_proxies

SOCKET = "control.sock"
_START_S = 10.0
_ANSWER_S = 20.0
_EXIT_SLOT_BUSY = 3


@dataclass(frozen=True)
class Process:
    """A component as the supervisor sees it; `started_at` in seconds since 1970."""

    name: str
    pid: int
    state: str
    restarts: int
    started_at: float
    last_exit: str


class NotRunning(ClusterError):
    """No supervisor answers: the cluster does not run."""


class NoComponent(ClusterError):
    """The supervisor knows no component of that name."""


class SlotBusy(ClusterError):
    """Another running cluster of this machine holds the slot."""


class Supervisor:
    """The supervisor of one cluster."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    @property
    def running(self) -> bool:
        """Whether it answers."""
        try:
            self.request("status")
        except NotRunning:
            return False
        return True

    def start(self, shim: Path, slot: int) -> None:
        """Start it as a daemon, holding the slot.

        Raises:
            SlotBusy: another cluster holds it.
            ClusterError: it does not come up; its own words say why.
        """
        (self._directory / "logs").mkdir(mode=0o700, exist_ok=True)
        log = self._directory / "logs/supervise.log"
        argv = [str(shim), "supervise", "--dir", str(self._directory.path), "--slot", str(slot)]
        env = {**_clean_environment(), STATE_VARIABLE: str(self._directory.path)}
        with log.open("ab") as stream:
            begin = stream.tell()
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=env,
                cwd=self._directory.path, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while not self.running:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_bytes()[begin:].decode(errors="replace").strip()
                raise (SlotBusy if process.returncode == _EXIT_SLOT_BUSY else ClusterError)(
                    f"The supervisor of {self._directory.name!r} did not start: {said or 'it said nothing'}",
                    f"Its log: {log}",
                )
            time.sleep(0.01)

    def apply(self, components: list[dict[str, Any]]) -> None:
        """Add or change components, and start them."""
        self.request("apply", components=components)

    def stop(self, name: str, signal: str = "TERM", grace_s: float = 10.0) -> None:
        """End a component; it stays known, and ended."""
        self.request("stop", grace_s + _ANSWER_S, name=name, signal=signal, grace_s=grace_s)

    def start_component(self, name: str) -> None:
        """Start a stopped component."""
        self.request("start", name=name)

    def signal(self, name: str, signal: str) -> None:
        """Send a signal ("STOP", "CONT", "KILL") to a component's process, if it has one just now."""
        self.request("signal", name=name, signal=signal)

    def remove(self, name: str) -> None:
        """End a component and forget it."""
        self.request("remove", name=name)

    def shutdown(self, order: list[str], limit_s: float = 30.0) -> None:
        """End all components in that order, then the supervisor itself."""
        self.request("shutdown", limit_s, order=order)

    def status(self) -> tuple[int, list[Process]]:
        """The slot it holds, and its components."""
        answer = self.request("status")
        return int(answer["slot"]), [_process(raw) for raw in answer.get("components") or []]

    def request(self, op: str, limit_s: float = _ANSWER_S, **fields: Any) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            NotRunning: nobody answers.
            NoComponent: the request names one that is not there.
            ClusterError: it refuses; the message has its words.
        """
        try:
            raw = self._talk(json.dumps({"op": op, **fields}).encode() + b"\n", limit_s)
        except (FileNotFoundError, ConnectionError) as err:
            name = self._directory.name
            raise NotRunning(f"Cluster {name!r} does not run.", f"`labkit up {name}` starts it.") from err
        except TimeoutError as err:
            raise ClusterError(f"The supervisor has not answered {op!r} for {limit_s:.0f} s.") from err
        answer: dict[str, Any] = json.loads(raw)
        if str(answer.get("error", "")).startswith("no component"):
            raise NoComponent(f"The supervisor has {answer['error']}.")
        if answer.get("error"):
            raise ClusterError(f"The supervisor refused {op!r}: {answer['error']}")
        return answer

    def _talk(self, line: bytes, limit_s: float) -> bytes:
        """Send a line, read a line. By way of /proc, because a socket's path has at most 107 bytes."""
        folder = os.open(self._directory.path, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(limit_s)
                connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
                connection.sendall(line)
                received = bytearray()
                while not received.endswith(b"\n"):
                    part = connection.recv(65536)
                    if not part:
                        raise ConnectionResetError("the supervisor closed the connection")
                    received += part
                return bytes(received)
        finally:
            os.close(folder)


def _process(raw: dict[str, Any]) -> Process:
    ended = raw.get("last_exit") or {}
    how = ""
    if ended:
        how = f"signal {ended['signal']}" if ended.get("signal") else f"exit code {ended.get('code', 0)}"
    return Process(
        name=raw["name"],
        pid=int(raw.get("pid") or 0),
        state=raw["state"],
        restarts=int(raw.get("restarts") or 0),
        started_at=_seconds(raw.get("started_at")),
        last_exit=how,
    )


def _seconds(when: Any) -> float:
    """Seconds since 1970 of a number or an RFC 3339 time."""
    from datetime import datetime

    if isinstance(when, str) and when:
        return datetime.fromisoformat(when).timestamp()
    return float(when or 0.0)


def _clean_environment() -> dict[str, str]:
    """Ours, without what would change how Go programs or kubelets behave, and without proxies."""
    dropped = ("KUBE", "ETCD_", "GO", "LABKIT_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped) or k.startswith("LABKIT_NO_")}
    return without_proxies(kept)
