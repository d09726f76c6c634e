"""What must stay as it is while clusters break: processes, files and ports of the same user, and every listening socket."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_LISTEN, _UNCONNECTED = "0A", "07"
_EVERY_S = 0.05
_LOOKS_LIKE = ("shim", "kube", "sleep")
SERVER = "import http.server; http.server.HTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler).serve_forever()"


@dataclass(frozen=True)
class Socket:
    """A socket that others could reach: protocol, address, port, and the program that holds it."""

    protocol: str
    address: str
    port: int
    holder: str

    def __str__(self) -> str:
        return f"{self.protocol} {self.address}:{self.port} of {self.holder}"


@dataclass
class Listeners:
    """Samples this network namespace's sockets all the time, and keeps those of ours that are open beyond loopback.

    A datagram socket that only asks has an open port for a moment, too (a resolver's, for instance), so such a one counts
    once it has been there for `patience_s`.

    Attributes:
        samples: how often it looked.
        open: the sockets that it saw.
    """

    patience_s: float = 5.0
    samples: int = 0
    open: set[Socket] = field(default_factory=set)

    @contextlib.contextmanager
    def watching(self) -> Iterator[Listeners]:
        """Sample in a thread until the block ends."""
        ended = threading.Event()
        before = set(_sockets())
        thread = threading.Thread(target=self._watch, args=[ended, before])
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()

    def _watch(self, ended: threading.Event, before: set[tuple[str, str, int, str]]) -> None:
        since: dict[tuple[str, str, int, str], float] = {}
        while not ended.wait(_EVERY_S):
            now = time.monotonic()
            present = {one for one in _sockets() if one not in before}
            since = {one: since.get(one, now) for one in present}
            for one in present:
                protocol, address, port, inode = one
                if protocol.startswith("tcp") or now - since[one] > self.patience_s:
                    self.open.add(Socket(protocol, address, port, _holder(inode)))
            self.samples += 1


def _sockets() -> Iterator[tuple[str, str, int, str]]:
    """(protocol, address, port, inode) of this user's sockets that wait for anybody beyond loopback."""
    uid = str(os.getuid())
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/self/net/{protocol}").read_text().splitlines()[1:]:
            fields = line.split()
            waits = _LISTEN if protocol.startswith("tcp") else _UNCONNECTED
            if fields[3] != waits or fields[7] != uid:
                continue
            packed, port = fields[1].split(":")
            address = _address(packed)
            if not address.is_loopback:
                yield protocol, str(address), int(port, 16), fields[9]


def _address(packed: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as /proc/net writes it: words in the machine's order of bytes."""
    raw = bytes.fromhex(packed)
    words = [raw[i : i + 4] for i in range(0, len(raw), 4)]
    address = ipaddress.ip_address(b"".join(w[::-1] if sys.byteorder == "little" else w for w in words))
    return getattr(address, "ipv4_mapped", None) or address


def _holder(inode: str) -> str:
    """The command line of a process that holds a socket."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) == f"socket:[{inode}]" for fd in (entry / "fd").iterdir()):
                return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return "a program that has ended"


class Bystanders:
    """Processes, files and a port of this user that have nothing to do with any cluster.

    Args:
        folders: where files are laid, beside whatever is there.
    """

    def __init__(self, folders: list[Path]) -> None:
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._files = {}
        for folder in folders:
            for name in ("notes.txt", "my clusters/labs/state.json", "pods/worker-1/keep"):
                path = folder / "a bystander's" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{folder} {name}\n")
                self._files[path] = _digest(path)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.start("server", sys.executable, "-c", SERVER.format(port=self.port))
        for name in _LOOKS_LIKE:
            self.start(name, name, "300000", executable="/bin/sleep")
        self.start("own mounts", "unshare", "--mount", "--user", "--map-current-user", "sleep", "300000")

    def start(self, name: str, *argv: str, executable: str | None = None) -> subprocess.Popen[bytes]:
        """One more process, in a session of its own, as a terminal's are."""
        process = subprocess.Popen(
            argv, executable=executable, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._processes.append((name, process))
        return process

    def take_number(self, pid: int) -> bool:
        """Start a process that gets a given number, if that is free; only in a process namespace of our own."""
        try:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
            process = self.start(f"took number {pid}", "sleep", "300000")
        except OSError:
            return False
        if process.pid == pid:
            return True
        self._processes.pop()
        process.kill()
        process.wait()
        return False

    def harm(self) -> list[str]:
        """What happened to them: each process that ended, each file that changed, the port if it does not answer."""
        lines = [
            f"process {name!r} (pid {process.pid}) ended: {process.returncode}"
            for name, process in self._processes
            if process.poll() is not None
        ]
        lines += [
            f"process {name!r} is stopped" for name, process in self._processes if _stopped(process.pid)
        ]
        lines += [
            f"{path} changed or is gone" for path, digest in self._files.items() if _digest(path) != digest
        ]
        with contextlib.closing(socket.socket()) as connection:
            connection.settimeout(5)
            if connection.connect_ex(("127.0.0.1", self.port)):
                lines.append(f"port {self.port} no longer answers")
        return lines

    def count(self, name: str) -> int:
        """How many processes have a name that begins so."""
        return sum(one.startswith(name) for one, _ in self._processes)

    def end(self) -> None:
        """End them."""
        for _, process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(10)


def _stopped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() + oct(path.stat().st_mode)
    except OSError:
        return "gone"
