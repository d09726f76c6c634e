"""What is written down about an embedded cluster, and the lock under which it changes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeVar

from labkit.errors import ClusterError, ConfigError, MachineError
from labkit.folders import private, state_dir, write
from labkit.kube import quantity

FORMAT = 1
_OWN = (
    ".labkit", "state.json", "kind.json", "existing.json", "admin.kubeconfig", "control.sock", "pki", "conf",
    "logs/supervise.log", "logs/kind.log",
)  # fmt: skip
"""What tells a cluster's folder from one that somebody put there."""
_WRONG = frozenset('"\\$`:,{}%')
"""Quotes, variables and separators of lists, in a Corefile, a shell, PATH or KUBECONFIG."""
_LEAST_MEMORY = 256 << 20
_PATH_LIMIT = 80 - len("/kubelet-62")
"""The kubelet's sockets lie in its root directory, whose path it wants to have at most 80 bytes."""


@dataclass(frozen=True)
class Options:
    """What a cluster is asked to be; fixed when it is created.

    Attributes:
        workers: how many there are at the beginning.
        cpus: of each worker, whole cores.
        memory: of each worker, as a quantity.
        node_monitor_period_s: how often the controller manager looks at the nodes.
        node_monitor_grace_s: a node that does not report for so long becomes Unknown.
        eviction_after_s: pods leave a node that is not ready or unreachable after so long
            (tolerations that the API server gives to pods without own ones).
        hpa_sync_s: how often the HorizontalPodAutoscalers are evaluated.
        hpa_initial_readiness_s: CPU of a pod that was never ready does not count for so long.
        hpa_cpu_initialization_s: CPU of a starting pod counts only when it is ready, for so long.
        metrics_s: how often metrics-server asks the kubelets.
    """

    workers: int = 2
    cpus: int = 2
    memory: str = "4Gi"
    node_monitor_period_s: int = 5
    node_monitor_grace_s: int = 50
    eviction_after_s: int = 300
    hpa_sync_s: int = 5
    hpa_initial_readiness_s: int = 5
    hpa_cpu_initialization_s: int = 10
    metrics_s: int = 10


_Made = TypeVar("_Made", bound=Options)


@dataclass
class Node:
    """A worker: its machine number, its size, and whether it is meant to run."""

    machine: int
    cpus: int
    memory: str
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[str] = field(default_factory=list)
    lost: bool = False


@dataclass
class State:
    """state.json.

    Attributes:
        slot: the last one the cluster held; fixed with its certificates.
        ready: whether it was completely created once.
        sandbox: what `labkit up` found that this machine allows pods, by the names of `shim probe`. Without
            "sockets" there is no cluster; a pod whose start fails later has failed, and never runs without.
    """

    name: str
    slot: int
    options: Options
    created: float
    ready: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    sandbox: dict[str, bool] = field(default_factory=dict)
    format: int = FORMAT


class Directory:
    """A cluster's directory, private to its user."""

    def __init__(self, name: str) -> None:
        self.name = check_name(name)
        self.path = clusters_dir() / name

    def __truediv__(self, part: str) -> Path:
        return self.path / part

    @property
    def exists(self) -> bool:
        """Whether there is a cluster of that name, complete or not."""
        return self.path.is_dir()

    @property
    def is_labkits(self) -> bool:
        """Whether labkit made this folder: it has a file that only labkit writes, or nothing at all."""
        if self.path.is_symlink():
            return False
        try:
            return any((self.path / each).exists() for each in _OWN) or not any(self.path.iterdir())
        except OSError:
            return self.path.stat().st_uid == os.getuid()  # locked by one who may unlock it

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.path / "admin.kubeconfig"

    def node(self, name: str) -> Path:
        """A worker's directory."""
        return self.path / "nodes" / name

    def kubelet_root(self, machine: int) -> Path:
        """Root directory of a worker's kubelet; directly in here because its path must be short."""
        return self.path / f"kubelet-{machine}"

    def create(self) -> None:
        """Make it, with nothing in it.

        Raises:
            ConfigError: its path is too long.
        """
        self.check_path()
        self._make()

    def check_path(self) -> None:
        """Refuse a path that components cannot take.

        Raises:
            ConfigError: it is too long, or has a character that they read as something else.
        """
        if len(os.fsencode(self.path)) > _PATH_LIMIT:
            raise ConfigError(
                f"The path {self.path} has more than {_PATH_LIMIT} bytes, too many for the sockets in it.",
                "Choose a shorter name, or let XDG_STATE_HOME name a folder with a short path.",
            )
        wrong = [each for each in str(self.path) if each in _WRONG or not each.isprintable()]
        if wrong:
            raise ConfigError(
                f"The path {str(self.path)!r} has {wrong[0]!r} in it, which a cluster's programs misread.",
                "Let XDG_STATE_HOME name another folder. Blanks, apostrophes and umlauts are no trouble.",
            )

    def _make(self) -> None:
        private(self.path).chmod(0o700)
        write(self.path / ".labkit", "This folder is a labkit cluster; `labkit down` removes it.\n")

    def load(self) -> State | None:
        """The state; None where none was written yet.

        Raises:
            ClusterError: it is damaged, or of a newer labkit.
        """
        file = self.path / "state.json"
        try:
            raw = json.loads(file.read_text())
            if raw["format"] != FORMAT:
                raise ClusterError(
                    f"{file} has format {raw['format']}; this labkit knows {FORMAT}.", self._remove_hint()
                )
            nodes = {name: Node(**node) for name, node in raw.pop("nodes").items()}
            return State(**{**raw, "options": Options(**raw["options"]), "nodes": nodes})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise ClusterError(f"{file} is damaged: {err}", self._remove_hint()) from err

    def save(self, state: State) -> None:
        """Write state.json, at once and durably."""
        write(self.path / "state.json", json.dumps(asdict(state), indent=1))

    @contextmanager
    def change(self) -> Iterator[State]:
        """The state, to be changed in place; written when the block ends well."""
        with changing(self.name):
            state = self.load()
            if state is None:
                raise ClusterError(f"There is no cluster {self.name!r}.", f"labkit up {self.name}")
            yield state
            self.save(state)

    @contextmanager
    def locked(self, waiting: Callable[[str], None], limit_s: float = 600) -> Iterator[None]:
        """One `up` or `down` of a name at a time; ends with the process that holds it."""
        private(clusters_dir())
        lock = clusters_dir() / f".{self.name}.lock"
        with _flock(lock, limit_s, waiting):
            try:
                yield
            finally:
                if not self.exists:
                    lock.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory and everything in it.

        Raises:
            ClusterError: it was not made by labkit.
        """
        if self.path.is_dir():
            self.check_is_labkits()
            for folder, inside, _ in os.walk(self.path):  # programs in pods may have locked folders of theirs
                for path in (Path(folder, name) for name in inside):
                    if not path.is_symlink():
                        with contextlib.suppress(OSError):
                            path.chmod(0o700)
            shutil.rmtree(self.path)
        (clusters_dir() / f".{self.name}.state.lock").unlink(missing_ok=True)

    def check_is_labkits(self) -> None:
        """Refuse to touch somebody else's folder.

        Raises:
            ClusterError: it was not made by labkit.
        """
        if self.exists and not self.is_labkits:
            raise ClusterError(
                f"{self.path} is no cluster: it has nothing that labkit writes. It was left alone.",
                "Move it elsewhere; that folder is for clusters only.",
            )

    def _remove_hint(self) -> str:
        return f"`labkit down {self.name}` removes the cluster, `labkit up {self.name}` makes a new one."


def clusters_dir() -> Path:
    """$XDG_STATE_HOME/labkit/clusters, by default in ~/.local/state."""
    return state_dir() / "clusters"


def cluster_names() -> list[str]:
    """Names of this user's clusters, complete or not; other folders that lie there are none."""
    return sorted(path.name for path in _folders() if is_name(path.name) and Directory(path.name).is_labkits)


def strangers() -> list[Path]:
    """What lies among the clusters' folders and is not a labkit cluster."""
    return sorted(p for p in _folders() if not is_name(p.name) or not Directory(p.name).is_labkits)


def _folders() -> list[Path]:
    root = clusters_dir()
    try:
        return [path for path in root.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as err:
        raise MachineError(f"{root} cannot be read: {err.strerror}.", "See XDG_STATE_HOME.") from err


def is_name(text: str) -> bool:
    """Whether a cluster can have that name."""
    return bool(re.fullmatch(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?", text))


def check_name(name: str) -> str:
    """A name that can be part of paths and of Kubernetes objects.

    Raises:
        ConfigError: it is not one.
    """
    if not is_name(name):
        raise ConfigError(
            f"{name!r} cannot be a name.",
            "Lower-case letters, digits and hyphens; a letter first; at most 32.",
        )
    return name


def check_options(options: Options) -> Options:
    """Refuse values that cannot be.

    Raises:
        ConfigError: names the option.
    """
    check_size(options.cpus, options.memory)
    for name, value in asdict(options).items():
        if name == "workers" and not 0 <= value <= 62:
            raise ConfigError(f"workers={value}: a cluster has 0 to 62 of them.")
        if name not in ("workers", "memory", "images") and (not isinstance(value, int) or value < 1):
            raise ConfigError(f"{name}={value!r} must be a whole number of 1 or more.")
    return options


def settled(name: str, made: _Made, given: dict[str, Any], *, ready: bool) -> _Made:
    """The options of an `up`: what is asked for now, else what was asked for when the last one failed.

    Args:
        made: the cluster's options, or the defaults where there is none.
        ready: whether the cluster is complete, so that its options are fixed.

    Raises:
        ConfigError: a complete cluster has other ones; names them.
    """
    if not ready:
        return replace(made, **given)
    was = asdict(made)
    other = [f"{key}={was[key]}, not {value}" for key, value in given.items() if was[key] != value]
    if other:
        raise ConfigError(
            f"Cluster {name!r} exists and was made with {', '.join(other)}.",
            f"Leave the options out to resume it, or `labkit down {name}` first. "
            "Workers are added with cluster.add_worker().",
        )
    return made


def check_size(cpus: int, memory: str) -> None:
    """Refuse sizes that no worker can have.

    Raises:
        ConfigError: names what is wrong.
    """
    if not isinstance(cpus, int) or cpus < 1:
        raise ConfigError(f"cpus={cpus!r} must be a whole number of 1 or more.")
    if quantity(memory) < _LEAST_MEMORY:
        raise ConfigError(f"memory={memory!r} is less than 256Mi, too little for a worker.")


@contextmanager
def changing(name: str) -> Iterator[None]:
    """The lock under which the state of a cluster is read, changed and written."""
    with _flock(clusters_dir() / f".{name}.state.lock", 30, lambda _: None):
        yield


@contextmanager
def changing_file(path: Path) -> Iterator[None]:
    """The lock under which a file that several processes share is read, changed and written."""
    lock = path.with_name(f".{path.name}.lock")
    with _flock(lock, 30, lambda _: None):
        yield


@contextmanager
def _flock(path: Path, limit_s: float, waiting: Callable[[str], None]) -> Iterator[None]:
    deadline, told = time.monotonic() + limit_s, False
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"Another labkit process has worked on this cluster for {limit_s:.0f} s.",
                        f"`fuser {path}` names it.",
                    ) from None
                if not told:
                    waiting("another labkit process works on this cluster; waiting for it")
                    told = True
                time.sleep(0.1)
                continue
            if _is_file_of(lock, path):
                yield
                return


def _is_file_of(stream: IO[str], path: Path) -> bool:
    """Whether a path still leads to an open file: whoever held the lock before may have removed it."""
    try:
        return os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
