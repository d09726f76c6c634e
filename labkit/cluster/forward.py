"""`kubectl port-forward`, supervised: for Services that this machine has no route to."""

from __future__ import annotations

import atexit
import re
import subprocess
import threading
import time
from pathlib import Path

from labkit.errors import ClusterError
from labkit.tools import kubectl

_READY_S = 20.0
_LOCAL = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")
# Ends with the process that holds the other end of its standard input, however that ends.
_GUARD = '"$@" </dev/null & pid=$!; exec >/dev/null 2>&1; read -r _; kill "$pid"; wait "$pid"'


class Forward:
    """One forwarded port, started again on the same local port when it ends (its pod may have gone).

    All connections go to one pod, which is how port-forward works: nothing is balanced.

    Args:
        target: as kubectl takes it: service/NAME or pod/NAME.
        context: of the kubeconfig, "" for its current one.
    """

    def __init__(self, kubeconfig: Path, namespace: str, target: str, port: int, context: str = "") -> None:
        self.target, self.port = f"{namespace}/{target}", port
        where = ["--kubeconfig", str(kubeconfig), *(["--context", context] if context else [])]
        self._argv = [
            str(kubectl()),
            *where,
            "--namespace",
            namespace,
            "port-forward",
            "--address",
            "127.0.0.1",
        ]
        self._ports = (target, port)
        self._process: subprocess.Popen[str] | None = None
        self._said: list[str] = []
        self._closed = threading.Event()
        self._ready = threading.Event()
        self.local_port = 0
        self._thread = threading.Thread(target=self._run, name=f"forward-{target}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def wait(self) -> tuple[str, int]:
        """Host and port once it listens.

        Raises:
            ClusterError: it does not; the message is what kubectl said.
        """
        deadline = time.monotonic() + _READY_S
        while not self._ready.wait(0.1):
            gone = any("NotFound" in line for line in self._said)
            if gone or time.monotonic() > deadline:
                said = self._said[-1] if self._said else "nothing was said"
                self.close()
                raise ClusterError(
                    f"{self.target} cannot be forwarded to this machine: {said}",
                    "Is a pod behind it Ready? `kubectl get pods` tells.",
                )
        return "127.0.0.1", self.local_port

    @property
    def alive(self) -> bool:
        """Whether it is still kept up."""
        return not self._closed.is_set()

    def close(self) -> None:
        """End it."""
        self._closed.set()
        process = self._process
        if process and process.poll() is None and process.stdin:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
        atexit.unregister(self.close)

    def _run(self) -> None:
        pause = 0.2
        while not self._closed.is_set():
            begin = time.monotonic()
            self._once()
            pause = 0.2 if time.monotonic() - begin > 5 else min(2.0, pause * 2)
            self._closed.wait(pause)

    def _once(self) -> None:
        target, port = self._ports
        argv = [*self._argv, target, f"{self.local_port or ''}:{port}"]
        self._process = subprocess.Popen(
            ["sh", "-c", _GUARD, "sh", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout
        for line in self._process.stdout:
            found = _LOCAL.search(line)
            if found:
                self.local_port = int(found[1])
                self._ready.set()
            elif "lost connection" in line or "error" in line.lower():
                self._said.append(line.strip())
                del self._said[:-5]
                if "lost connection" in line:
                    break
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()


class Forwards:
    """The ports that are forwarded for this process, each once."""

    def __init__(self, kubeconfig: Path, context: str = "") -> None:
        self._kubeconfig, self._context = kubeconfig, context
        self._open: dict[tuple[str, str, int], Forward] = {}
        self._lock = threading.Lock()

    def to(self, namespace: str, target: str, port: int) -> tuple[str, int]:
        """Host and port of this machine that lead to `service/NAME` or `pod/NAME`."""
        with self._lock:
            key = (namespace, target, port)
            found = self._open.get(key)
            if found is None or not found.alive:
                found = self._open[key] = Forward(self._kubeconfig, namespace, target, port, self._context)
        return found.wait()

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            for forward in self._open.values():
                forward.close()
            self._open.clear()
