"""Faults thrown into a running cluster: pods that cannot start again, killed shims, numbers used again, a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import random
import resource
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from labkit.cluster.processes import Process, cluster_processes
from labkit.cluster.providers import open_cluster
from labkit.cluster.state import Directory
from labkit.errors import LabkitError
from tests.bystanders.watch import Bystanders
from tests.cluster.helpers import deployment

NAMESPACE = "victims"
_PAUSE_S = 2.0
_NUMBERS = 150

VICTIM = """
import os, pathlib, socket, time
if os.fork() == 0:  # a daemon, with a port of its own
    os.setsid()
    with socket.create_server(("0.0.0.0", 8098)):
        time.sleep(100000)
with socket.create_server(("0.0.0.0", 8099)), socket.create_server(("::", 8100), family=socket.AF_INET6):
    with socket.socket() as unbound:
        unbound.listen()
        while not pathlib.Path("/tmp/end").exists():
            time.sleep(0.2)
        pathlib.Path("/tmp/end").unlink()
"""


class Faults:
    """Throws one fault after the other in a thread, at pods of its own beside the labs'.

    Attributes:
        thrown: how often each kind was thrown.
        errors: how often an attempt failed, by what it said: a lab breaks the cluster, too.
    """

    def __init__(self, cluster: str, bystanders: Bystanders, seed: int) -> None:
        self._name, self._bystanders, self._random = cluster, bystanders, random.Random(seed)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._break_pods, self._use_numbers_again)]
        self._kinds: list[Callable[[dict[str, Any]], None]] = [
            self._no_folder, self._kill_shim, self._no_processes, self._no_files, self._delete, self._only_end,
        ]  # fmt: skip
        self.thrown: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def __enter__(self) -> Faults:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def until_all(self, seconds: float) -> None:
        """Go on until each kind was thrown, or the time is over."""
        deadline = time.monotonic() + seconds
        while len(self.thrown) <= len(self._kinds) and time.monotonic() < deadline:
            time.sleep(0.5)

    def _break_pods(self) -> None:
        waiting = list[Callable[[dict[str, Any]], None]]()
        while not self._ended.wait(_PAUSE_S):
            waiting = waiting or self._random.sample(self._kinds, len(self._kinds))
            try:
                if pod := self._victim():
                    kind = waiting.pop()
                    kind(pod)
                    self.thrown[kind.__name__.strip("_")] += 1
            except (LabkitError, subprocess.SubprocessError, OSError, ValueError) as error:
                self.errors[f"{type(error).__name__}: {str(error)[:200]}"] += 1

    def _victim(self) -> dict[str, Any]:
        """A pod of ours that works; the Deployment is made where it is missing, a pod replaced where none works."""
        try:
            pods = json.loads(self._kubectl("get", "pods", "--output=json"))["items"]
        except LabkitError:
            pods = []
        working = [
            pod
            for pod in pods
            if all(one["ready"] for one in pod["status"].get("containerStatuses", [{"ready": False}]))
        ]
        if not pods:
            named = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            victims = deployment("victims", 3, "python3", "-c", VICTIM)
            self._kubectl("apply", "--filename=-", stdin=yaml.safe_dump_all([named, victims]))
        elif not working:
            self._delete(self._random.choice(pods))
        return self._random.choice(working) if working else {}

    def _kubectl(self, *args: str, stdin: str | None = None) -> str:
        cluster = open_cluster(self._name)
        return cluster.kubectl("--namespace", NAMESPACE, "--request-timeout=10s", *args, input=stdin)

    def _exec(self, pod: dict[str, Any], code: str) -> None:
        self._kubectl("exec", pod["metadata"]["name"], "--", "python3", "-c", code)

    def _only_end(self, pod: dict[str, Any]) -> None:
        self._exec(pod, "import pathlib; pathlib.Path('/tmp/end').touch()")

    def _end_soon(self, pod: dict[str, Any]) -> None:
        """Let it end when its shim can no longer start anything."""
        self._exec(
            pod,
            "import os, pathlib, time\nif os.fork() == 0: time.sleep(1); pathlib.Path('/tmp/end').touch()",
        )

    def _no_folder(self, pod: dict[str, Any]) -> None:
        self._exec(pod, "import os, pathlib; pathlib.Path('/tmp/end').touch(); os.chmod('.', 0)")

    def _no_processes(self, pod: dict[str, Any]) -> None:
        self._end_soon(pod)
        resource.prlimit(self._shim(pod).pid, resource.RLIMIT_NPROC, (1, 1))

    def _no_files(self, pod: dict[str, Any]) -> None:
        self._end_soon(pod)
        resource.prlimit(self._shim(pod).pid, resource.RLIMIT_NOFILE, (16, 16))

    def _kill_shim(self, pod: dict[str, Any]) -> None:
        self._shim(pod).send(signal.SIGKILL)

    def _delete(self, pod: dict[str, Any]) -> None:
        self._kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")

    def _shim(self, pod: dict[str, Any]) -> Process:
        """The shim of one of our pods, found by the pod's own folder."""
        for process in cluster_processes(Directory(self._name)):
            argv = command_line(process.pid)
            if Path(argv[0]).name == "shim" and len(argv) > 2 and argv[1] == "pod" and self._is_of(argv, pod):
                return process
        raise ProcessLookupError(f"no shim of {pod['metadata']['name']}")

    def _is_of(self, argv: list[str], pod: dict[str, Any]) -> bool:
        folder = next((Path(part) for part in argv if part.startswith("/") and "/pods/" in part), None)
        records = folder.glob("*.json") if folder else iter(())
        return any(pod["metadata"]["uid"] in record.read_text(errors="replace") for record in records)

    def _use_numbers_again(self) -> None:
        """Whatever process of the cluster ends: one of ours gets its number as soon as that is free."""
        before: set[Process] = set()
        with contextlib.suppress(LabkitError, OSError):
            while not self._ended.wait(0.3) and self._bystanders.count("took") < _NUMBERS:
                now = cluster_processes(Directory(self._name))
                for process in list(before - now)[:10]:
                    if not process.alive() and self._bystanders.take_number(process.pid):
                        self.thrown["number_used_again"] += 1
                before = now


def command_line(pid: int) -> list[str]:
    """The arguments of a process; one empty one when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return [""]


def fill(folder: Path, seconds: float) -> None:
    """Use up the file system of a folder for some seconds."""
    path = folder / "filler"
    try:
        with contextlib.suppress(OSError), path.open("wb", buffering=0) as stream:
            block = bytes(1 << 20)
            while True:
                stream.write(block)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:  # whatever is given back is used up again
            try:
                with path.open("ab", buffering=0) as stream:
                    while True:
                        stream.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            time.sleep(0.05)
    finally:
        path.unlink(missing_ok=True)
