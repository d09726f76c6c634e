"""The provider existing: a cluster that somebody else runs, by a context of a kubeconfig.

labkit makes namespaces and objects there as the labs do; nodes are not touched, but for images that a kind
cluster on this machine gets.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import yaml

from labkit.cluster.base import Cluster, check_options
from labkit.cluster.commands import CommandLine
from labkit.cluster.context import gap_sentence, minified
from labkit.cluster.forward import Forwards
from labkit.cluster.phases import Listener, phase, silent
from labkit.cluster.state import Directory
from labkit.cluster.status import ClusterStatus, NodeInfo
from labkit.cluster.waiting import accepts
from labkit.errors import ClusterError, ConfigError, ImageError, KubeError, MachineError
from labkit.folders import write
from labkit.kube import Kube, dig
from labkit.tools import kubectl

if TYPE_CHECKING:
    from labkit.cluster.join import Join
    from labkit.cluster.kind.theirs import TheirKind
    from labkit.images import Image

FILE = "existing.json"
_OPTIONS = ("context", "kubeconfig", "workers", "registry")
_STATUS_S = 5.0


class ExistingCluster(Cluster):
    """A cluster by its kubeconfig.

    Options of `up`: `context` (the current one by default), `kubeconfig` (a file; $KUBECONFIG or
    ~/.kube/config by default), `workers` (that many must be there), `registry` (HOST/PATH to which
    `build_image` pushes, and from which the nodes pull).
    """

    provider = "existing"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.directory = Directory(name)

    @classmethod
    def prepare(cls, listener: Listener = silent) -> None:
        """Nothing is needed."""

    @classmethod
    def up(cls, name: str, listener: Listener = silent, **options: Any) -> Self:
        """Remember a context, and ask its API server whether it is well.

        Raises:
            ConfigError: there is no such kubeconfig or context.
            ClusterError: it does not answer, or has fewer workers than asked for.
        """
        check_options(options, _OPTIONS)
        cluster = cls(name)
        wanted = options.pop("workers", 0)
        with phase("context", listener, "reading the kubeconfig") as step:
            known = cluster._facts() if cluster.directory.exists else {}
            facts = {**known, **{key: str(value) for key, value in options.items()}}
            file, context, text = minified(facts.get("kubeconfig", ""), facts.get("context", ""))
            facts |= {"kubeconfig": file, "context": context}
            step.tell(f"context {context} of {file}")
        files = {FILE: json.dumps(facts, indent=1), cluster.kubeconfig.name: text}
        with cluster._remembered(files), phase("nodes", listener, "asking the API server") as step:
            ready = [n for n in cluster._asked(context) if n.ready == "True"]
            if len(ready) < wanted:
                raise ClusterError(
                    f"Context {context} has {len(ready)} Ready workers, and {wanted} were asked for.",
                    "Ask for fewer, or use another context.",
                )
            step.tell(f"{len(ready)} nodes take pods")
        return cluster

    @contextmanager
    def _remembered(self, files: dict[str, str]) -> Iterator[None]:
        """Files in the cluster's directory; when the block fails they are as they were before."""
        was_there = self.directory.exists
        self.directory.create()
        before = {name: _content(self.directory / name) for name in files}
        try:
            for name, text in files.items():
                write(self.directory / name, text)
            yield
        except BaseException:
            for name, content in before.items():
                if content is None:
                    (self.directory / name).unlink(missing_ok=True)
                else:
                    write(self.directory / name, content)
            if not was_there:
                self.directory.remove()
            raise

    @classmethod
    def open(cls, name: str) -> Self:
        """One that `up` has remembered. Raises ClusterError when there is none."""
        cluster = cls(name)
        if not (cluster.directory / FILE).exists():
            raise ClusterError(
                f"There is no cluster {name!r}.", f"`labkit up {name} --provider existing --context …`"
            )
        return cluster

    @property
    def kubeconfig(self) -> Path:
        """A file of its own with the one context in it."""
        return self.directory.kubeconfig

    def status(self) -> ClusterStatus:
        """What the API server tells."""
        facts = self._facts()
        try:
            nodes = self._node_infos(Kube(self.kubeconfig, patience_s=_STATUS_S))
            version = nodes[0].kubelet_version.lstrip("v") if nodes else ""
            state = "running" if nodes and all(node.ready == "True" for node in nodes) else "degraded"
        except KubeError:
            nodes, version, state = [], "", "stopped"
        server = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        urls = {"api": str(server), "context": facts["context"]}
        return ClusterStatus(
            self.name, self.provider, state, version, self.directory.path, nodes=tuple(nodes), urls=urls
        )

    def down(self) -> None:
        """Forget the context. The cluster and what runs on it stay: only its owner ends it."""
        self._forwards.close()
        self.directory.remove()
        for known in ("kube", "_in_docker"):
            self.__dict__.pop(known, None)

    def workers(self) -> list[NodeInfo]:
        """The nodes that take pods; where the control plane takes some too, its nodes are among them."""
        return _open_ones(self.nodes())

    def workers_now(self) -> list[NodeInfo]:
        """The same without waiting for a server that does not answer."""
        return _open_ones(self._node_infos(Kube(self.kubeconfig, patience_s=_STATUS_S)))

    def _asked(self, context: str) -> list[NodeInfo]:
        try:
            return self.workers_now()
        except KubeError as err:
            raise ClusterError(
                f"The API server of context {context} does not answer as it should: {err.message}", err.hint
            ) from err

    def build_image(self, path: str | Path, tag: str, build_args: Mapping[str, str] | None = None) -> Image:
        """Build with Docker and push to the registry that `up` was told.

        A labkit or kind cluster on this machine takes the image without one, under its own name.

        Raises:
            ImageError: there is no way from here to the cluster's nodes; the hint says what to do.
        """
        local = self._local()
        if local is not None:
            return local.build_image(path, tag, build_args)
        if self.their_kind is not None and not self.their_kind.lacks(ready := self._ready()):
            return self.their_kind.build_image(path, tag, build_args, ready)
        registry = self._facts().get("registry", "")
        if not registry:
            raise ImageError(
                f"{tag} cannot come from this machine to the nodes of {self.name!r}. {self.image_gap()}",
                "Or name a registry that both reach: labkit.up(…, registry='HOST/PATH'), and use the image's "
                "name there in manifests of your own.",
            )
        from labkit.cluster.kind.engine import Engine
        from labkit.cluster.kind.images import build

        image = build(Engine(), path, f"{registry}/{tag}", build_args, "registry", silent)
        Engine().run("push", image.tags[0], limit_s=900, failure=_not_pushed(image.tags[0]))
        return image

    def provide_image(self, name: str, listener: Listener = silent) -> None:
        """The nodes pull it themselves; those of labkit or kind on this machine get it from here."""
        local = self._local()
        if local is not None:
            local.provide_image(name, listener)
        elif self.their_kind is not None and not self.their_kind.lacks(ready := self._ready()):
            self.their_kind.provide_image(name, ready, listener)

    def image_gap(self) -> str:
        """See Cluster.image_gap. A registry alone doesn't close it: the labs' manifests don't name one."""
        if self._local() is not None:
            return ""
        facts, kind = self._facts(), self.their_kind
        lacks = kind.lacks(self._ready()) if kind is not None else []
        if kind is not None and not lacks:
            return ""
        return gap_sentence(
            facts["context"],
            self._server(self.kubeconfig),
            kind="" if kind is None else kind.name,
            lacks=lacks,
            registry=facts.get("registry", ""),
            trouble=self._in_docker[1],
        )

    def underlying(self) -> Cluster:
        """The labkit cluster on this machine that the context leads to, or this one."""
        return self._local() or self

    @property
    def their_kind(self) -> TheirKind | None:
        """The kind cluster on this machine's Docker that the context leads to, if labkit did not make it."""
        return self._in_docker[0]

    @cached_property
    def _in_docker(self) -> tuple[TheirKind | None, str]:
        """`their_kind`, and why Docker could not be asked for it."""
        from labkit.cluster.kind.engine import Engine
        from labkit.cluster.kind.theirs import find

        try:
            return find(Engine(), self.kube.list("Node")), ""
        except (MachineError, ClusterError) as err:
            return None, err.message

    def _ready(self) -> list[str]:
        return [node.name for node in self.workers() if node.ready == "True"]

    def load_balancer_range(self) -> tuple[str, str]:
        """The range of a labkit cluster on this machine. Of other clusters only the owner knows it."""
        local = self._local()
        if local is not None:
            return local.load_balancer_range()
        raise ClusterError(
            f"Which addresses a load balancer may give on {self.name!r}, only its owner knows.",
            "Many clusters have a load balancer already: `kubectl get services -A` shows an EXTERNAL-IP.",
        )

    def controller_manager(self) -> CommandLine:
        """See Cluster.controller_manager. A labkit cluster on this machine knows its own."""
        local = self._local()
        return super().controller_manager() if local is None else local.controller_manager()

    def _local(self) -> Cluster | None:
        """The cluster of another provider on this machine that this context leads to."""
        from labkit.cluster.providers import cluster_at

        return cluster_at(self._server(self.kubeconfig))

    @staticmethod
    def _server(file: Path) -> str:
        return str(yaml.safe_load(file.read_text())["clusters"][0]["cluster"]["server"])

    def url(self, service: str, namespace: str = "default", port: int | str | None = None) -> str:
        """See Cluster.url. A labkit cluster on this machine knows its own way."""
        local = self._local()
        return super().url(service, namespace, port) if local is None else local.url(service, namespace, port)

    def _reach(self, service: dict[str, Any], port: int) -> tuple[str, int]:
        meta = service["metadata"]
        if dig(service, "spec.clusterIP", "") in ("", "None"):
            raise ClusterError(
                f"Service {meta['name']!r} has no address of its own.",
                "Headless Services have only DNS names.",
            )
        for entry in dig(service, "status.loadBalancer.ingress", []):
            host = entry.get("ip") or entry.get("hostname")
            if host and accepts(host, port):
                return host, port
        node_port = next(
            (p.get("nodePort") for p in dig(service, "spec.ports", []) if p["port"] == port), None
        )
        if node_port:
            for node in self.nodes():
                if node.ready == "True" and accepts(node.address, node_port):
                    return node.address, int(node_port)
        elif self.their_kind is not None and (way := self.their_kind.reach(self.kube, service, port)):
            return way
        return self._forwards.to(meta["namespace"], f"service/{meta['name']}", port)

    @cached_property
    def _forwards(self) -> Forwards:
        return Forwards(self.kubeconfig)

    def _facts(self) -> dict[str, str]:
        try:
            facts = json.loads((self.directory / FILE).read_text())
            if not isinstance(facts, dict) or not all(isinstance(each, str) for each in facts.values()):
                raise ValueError("it does not name a context")
            return facts
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as err:
            raise ClusterError(
                f"{self.directory / FILE} is damaged: {err}", f"`labkit down {self.name}` removes it."
            ) from err

    def shell(self, command: str | None = None) -> tuple[list[str], dict[str, str]]:
        """A shell of this machine with KUBECONFIG set; it is not inside of the cluster."""
        program = os.environ.get("SHELL") or shutil.which("sh") or "/bin/sh"
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return ([program, "-c", command] if command is not None else [program]), env

    def show_logs(self, component: str | None, *, follow: bool, tail: int) -> None:
        """Of a pod in kube-system, as far as the context may read it."""
        names = [pod["metadata"]["name"] for pod in self.kube.list("Pod", namespace="kube-system")]
        chosen = [n for n in sorted(names) if component in (None, n) or n.startswith(f"{component}-")]
        if not chosen:
            known = ", ".join(sorted(names)) or "none"
            raise ConfigError(f"There is no log of {component!r}.", f"Pods in kube-system: {known}.")
        base = [str(kubectl()), "--kubeconfig", str(self.kubeconfig), "-n", "kube-system", "logs"]
        for name in chosen if component is None else chosen[:1]:
            print(f"== {name}", flush=True)
            more = ["-f"] if follow and component else []
            subprocess.run([*base, name, f"--tail={tail}", *more], stdin=subprocess.DEVNULL, check=False)

    def add_worker(
        self, name: str | None = None, *, cpus: int | None = None, memory: str | None = None,
        labels: dict[str, str] | None = None, taints: list[str] | None = None, approve: bool = True,
        limit_s: float = 120.0, token: str | None = None, ca_cert_hash: str | None = None,
        server: str | None = None,
    ) -> Join:  # fmt: skip
        """Not here: ClusterError."""
        del cpus, memory, labels, taints, approve, limit_s, token, ca_cert_hash, server
        self._not_ours(f"add {name or 'a worker'} to it")

    def remove_worker(self, name: str, *, drain: bool = False) -> None:
        """Not here: ClusterError."""
        self._not_ours(f"{'drain and ' if drain else ''}remove {name}")

    def stop_kubelet(self, name: str) -> None:
        """Not here: ClusterError."""
        self._not_ours(f"stop the kubelet of {name}")

    def start_kubelet(self, name: str) -> None:
        """Not here: ClusterError."""
        self._not_ours(f"start the kubelet of {name}")

    def freeze(self, name: str) -> None:
        """Not here: ClusterError."""
        self._not_ours(f"freeze {name}")

    def thaw(self, name: str) -> None:
        """Not here: ClusterError."""
        self._not_ours(f"thaw {name}")

    def lose(self, name: str) -> None:
        """Not here: ClusterError."""
        self._not_ours(f"lose {name}")

    def restore(self, name: str) -> None:
        """Not here: ClusterError."""
        self._not_ours(f"restore {name}")

    def _not_ours(self, what: str) -> NoReturn:
        raise ClusterError(
            f"{self.name!r} is an existing cluster: labkit does not {what}.",
            "Labs that break or add nodes run on the providers embedded and kind.",
        )


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _open_ones(nodes: list[NodeInfo]) -> list[NodeInfo]:
    closed = ("NoSchedule", "NoExecute")
    return [n for n in nodes if n.schedulable and not any(t.endswith(closed) for t in n.taints)]


def _not_pushed(name: str) -> Any:
    def error(said: str) -> ImageError:
        last = said.strip().splitlines()[-1] if said.strip() else "no reason given"
        return ImageError(f"{name} cannot be pushed: {last}", "`docker login` for that registry first?")

    return error
