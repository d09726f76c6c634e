"""What the cluster tests share: namespaces, waiting, pods described in a few words."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from labkit.cluster.base import Cluster
from labkit.cluster.providers import open_cluster
from labkit.cluster.state import cluster_names
from labkit.errors import KubeError

HOST_IMAGE = "labkit/host:latest"


class Namespace:
    """A namespace of its own for one test, with kubectl bound to it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """kubectl's standard output, in this namespace."""
        return self.cluster.kubectl("--namespace", self.name, *args, input=stdin, check=check)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects given as dicts."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object as a dict."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind, as dicts."""
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json"))[
            "items"
        ]
        return found

    def run(self, name: str, *command: str, **spec: Any) -> None:
        """Create a bare pod that runs `command` and wait until it is Ready."""
        self.apply(pod(name, *command, **spec))
        self.ready(name)

    def ready(self, name: str, seconds: int = 60) -> None:
        """Wait until a pod is Ready."""
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={seconds}s")

    def rolled(self, workload: str, seconds: int = 90) -> None:
        """Wait until a workload's rollout is complete."""
        self.kubectl("rollout", "status", workload, f"--timeout={seconds}s")

    def exec(self, name: str, *command: str) -> str:
        """Standard output of a command executed in a pod."""
        return self.kubectl("exec", name, "--", *command)


@contextlib.contextmanager
def own_state_home() -> Iterator[Path]:
    """A folder for clusters' state; what is left in it at the end is taken down, whichever provider made it."""
    folder = Path(tempfile.mkdtemp(prefix="lk."))
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(folder)
    try:
        yield folder
    finally:
        for name in cluster_names():
            open_cluster(name).down()
        if before is None:
            del os.environ["XDG_STATE_HOME"]
        else:
            os.environ["XDG_STATE_HOME"] = before
        shutil.rmtree(folder)


@contextlib.contextmanager
def namespace(cluster: Cluster, prefix: str = "test") -> Iterator[Namespace]:
    """A fresh namespace, deleted (without waiting) at the end."""
    space = Namespace(cluster, f"{prefix}-{uuid.uuid4().hex[:6]}")
    cluster.kubectl("create", "namespace", space.name)
    until(
        lambda: "default" in space.kubectl("get", "serviceaccounts", "-o", "name"),
        20,
        "default service account",
    )
    try:
        yield space
    finally:
        with contextlib.suppress(Exception):
            cluster.kubectl("delete", "namespace", space.name, "--wait=false")


def until(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.2) -> Any:
    """The first truthy value of `condition`; AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    last: Exception | Any = None
    while time.monotonic() < deadline:
        try:
            last = condition()
        except (KeyError, IndexError, subprocess.SubprocessError, OSError, KubeError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(every)
    raise AssertionError(f"not within {seconds} s: {what} (last: {last!r})")


def container(name: str, *command: str, **more: Any) -> dict[str, Any]:
    """A container of the host image; without a command it sleeps and ends at once on SIGTERM."""
    default = ("python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])")
    return {"name": name, "image": HOST_IMAGE, "command": list(command or default), **more}


def pod(name: str, *command: str, labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """A pod with one container; `container=` adds to the container, other keywords to the pod's spec."""
    of_container = more.pop("container", {})
    spec = {
        "terminationGracePeriodSeconds": 5,
        "containers": [container("main", *command, **of_container)],
        **more,
    }
    meta = {"name": name, "labels": {"app": name, **(labels or {})}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def deployment(name: str, replicas: int, *command: str, **more: Any) -> dict[str, Any]:
    """A Deployment of such pods."""
    template = pod(name, *command, **more)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]},
        },
    }


def service(name: str, port: int, target: int | str, app: str = "", **more: Any) -> dict[str, Any]:
    """A Service in front of the pods labelled app=NAME."""
    spec = {"selector": {"app": app or name}, "ports": [{"port": port, "targetPort": target}], **more}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def config_map(name: str, **data: str) -> dict[str, Any]:
    """A ConfigMap; a double underscore in a key stands for a dot."""
    files = {key.replace("__", "."): text for key, text in data.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}
