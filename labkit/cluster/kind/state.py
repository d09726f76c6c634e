"""What is written down about a kind cluster: kind.json in the cluster's directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from labkit.cluster.state import Directory, Options, changing
from labkit.errors import ClusterError, ConfigError
from labkit.folders import write

FORMAT = 1
FILE = "kind.json"
CONTROL_PLANE = "control-plane"


@dataclass(frozen=True)
class KindOptions(Options):
    """Options of `labkit.cluster.state.Options`, and where images come from.

    Attributes:
        images: registry (the official images), airgap (built here from package registries), or auto:
            the registry where it answers, else airgap.
    """

    images: str = "auto"


@dataclass
class KindNode:
    """A worker: the container that it is, its size, and whether it is meant to run.

    Attributes:
        address: its last one in the cluster's network; containers may come back with another.
    """

    container: str
    cpus: int
    memory: str
    address: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[str] = field(default_factory=list)
    lost: bool = False


@dataclass
class KindState:
    """kind.json.

    Attributes:
        image: node image, as it was given to kind.
        origin: where it came from, in words.
        address: last one of the control plane.
        images: names that were loaded into the nodes; later workers get them too.
        ready: whether the cluster was completely created once.
    """

    name: str
    options: KindOptions
    created: float
    image: str = ""
    origin: str = ""
    address: str = ""
    ready: bool = False
    nodes: dict[str, KindNode] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    format: int = FORMAT


class KindDirectory(Directory):
    """The cluster's directory. Its kind cluster, network and containers are named labkit-NAME."""

    @property
    def kind_name(self) -> str:
        """Name of the kind cluster and of its network."""
        return f"labkit-{self.name}"

    @property
    def control_plane(self) -> str:
        """Container of the control plane."""
        return f"{self.kind_name}-control-plane"

    @property
    def log(self) -> Path:
        """What `kind create cluster` said."""
        return self.path / "logs" / "kind.log"

    def join_log(self, node: str) -> Path:
        """What kubeadm said when a join of that worker failed; its container is gone then."""
        return self.path / "logs" / f"join-{node}.log"

    def create(self) -> None:
        """Make it, with nothing in it."""
        self._make()
        self.log.parent.mkdir(mode=0o700, exist_ok=True)

    def read(self) -> KindState | None:
        """The state; None where none was written yet.

        Raises:
            ClusterError: it is damaged, or of a newer labkit.
        """
        file = self.path / FILE
        try:
            raw = json.loads(file.read_text())
            if raw["format"] != FORMAT:
                raise ClusterError(
                    f"{file} has format {raw['format']}; this labkit knows {FORMAT}.", self._remove_hint()
                )
            nodes = {name: KindNode(**node) for name, node in raw.pop("nodes").items()}
            return KindState(**{**raw, "options": KindOptions(**raw["options"]), "nodes": nodes})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise ClusterError(f"{file} is damaged: {err}", self._remove_hint()) from err

    def store(self, state: KindState) -> None:
        """Write kind.json, at once and durably."""
        write(self.path / FILE, json.dumps(asdict(state), indent=1))

    @contextmanager
    def changed(self) -> Iterator[KindState]:
        """The state, to be changed in place; written when the block ends well."""
        with changing(self.name):
            state = self.read()
            if state is None:
                raise ClusterError(f"There is no cluster {self.name!r}.", f"labkit up {self.name}")
            yield state
            self.store(state)


def check_images(options: KindOptions) -> KindOptions:
    """Refuse another source of images than there is.

    Raises:
        ConfigError: names those there are.
    """
    known = ("auto", "registry", "airgap")
    if options.images not in known:
        raise ConfigError(f"images={options.images!r}: no such choice.", f"Choose one of {', '.join(known)}.")
    return options
