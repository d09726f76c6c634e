"""Argo CD's core installation: upstream's manifests with the few changes of manifests/argocd."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from labkit.acquire import module_folder
from labkit.addons.argocd.application import NAMESPACE, Application
from labkit.addons.base import Addon, AddonStatus
from labkit.addons.files import checkout
from labkit.cluster.phases import Listener, phase
from labkit.cluster.waiting import wait_for
from labkit.errors import AcquireError, WaitTimeout
from labkit.kube import NotFound, Object, dig, quantity
from labkit.versions import versions

GO_MODULE = "github.com/argoproj/argo-cd/v3"
_PROGRAM = "argocd"
_WORKLOADS = (
    ("Deployment", "argocd-redis"),
    ("Deployment", "argocd-repo-server"),
    ("StatefulSet", "argocd-application-controller"),
)
_PASSWORD = "argocd-redis"
_CRDS = ("applications.argoproj.io", "appprojects.argoproj.io")
_END_S = 45.0
_SERVER_SIDE = ("--server-side", "--force-conflicts", "--field-manager=labkit")


def images() -> list[str]:
    """The images that the installation uses, by upstream's names."""
    wanted = {_PROGRAM, "miniredis"}
    return [name for name, image in versions().images.items() if image.program in wanted]


class ArgoCD(Addon):
    """Application controller, repository server and Redis, in the namespace argocd."""

    name = "argocd"
    marks = (("Namespace", NAMESPACE), *(("CustomResourceDefinition", name) for name in _CRDS))

    def _install(self, listener: Listener) -> None:
        for image in images():
            self.cluster.provide_image(image, listener)
        kube = self.cluster.kube
        with phase("argocd", listener, "applying upstream's manifests with the changes of manifests/argocd"):
            kube.apply(checkout("manifests", "argocd", "namespace.yaml"))
            if kube.find("Secret", _PASSWORD, namespace=NAMESPACE) is None:
                kube.create(_secret(_PASSWORD, {"auth": secrets.token_urlsafe(24)}))
            with self._manifests() as folder:
                self.cluster.kubectl("apply", "-k", str(folder), *_SERVER_SIDE)
            kube.apply(checkout("manifests", "argocd", "project.yaml"))

    @contextmanager
    def _manifests(self) -> Iterator[Path]:
        """A folder with manifests/argocd and what it changes: core-install.yaml of the pinned version."""
        published = module_folder(GO_MODULE, versions().programs[_PROGRAM].module)
        source = published / "manifests" / "core-install.yaml"
        if not source.is_file():
            raise AcquireError(f"Argo CD's module has no {source.name}.", f"Looked in {published}.")
        with tempfile.TemporaryDirectory(prefix="labkit-argocd-") as scratch:
            folder = Path(scratch) / "argocd"
            shutil.copytree(checkout("manifests", "argocd"), folder)
            shutil.copyfile(source, folder / source.name)
            yield folder

    def wait(self, timeout_s: float = 300.0) -> None:
        """Wait until its three parts are Ready."""
        for kind, name in _WORKLOADS:
            self.cluster.kube.wait(kind, name, "rolled out", namespace=NAMESPACE, timeout_s=timeout_s)

    def status(self) -> AddonStatus:
        """Its three workloads and its kinds of objects."""
        kube = self.cluster.kube
        parts, found, ready = {}, 0, 0
        for kind, name in _WORKLOADS:
            workload = kube.find(kind, name, namespace=NAMESPACE)
            count = int(dig(workload, "status.readyReplicas", 0))
            found, ready = found + (workload is not None), ready + (count > 0)
            parts[f"{kind.lower()}/{name}"] = f"{count} of 1 ready" if workload else "missing"
        for name in _CRDS:
            there = kube.find("CustomResourceDefinition", name) is not None
            found += there
            parts[f"crd/{name}"] = "there" if there else "missing"
        if not found:
            return AddonStatus(self.name, "absent")
        complete = found == len(_WORKLOADS) + len(_CRDS)
        state = "incomplete" if not complete else "ready" if ready == len(_WORKLOADS) else "starting"
        return AddonStatus(self.name, state, self._version(), parts)

    def _version(self) -> str:
        workload = self.cluster.kube.find("Deployment", "argocd-repo-server", namespace=NAMESPACE)
        return str(dig(workload, "spec.template.spec.containers[0].image", "")).rpartition(":")[2]

    def uninstall(self) -> None:
        """Remove it. Applications go first and let go of what they have deployed, which stays and runs on."""
        self.refuse_others()
        kube = self.cluster.kube
        if kube.find("CustomResourceDefinition", _CRDS[0]) is not None:
            for app in kube.list("Application", namespace=NAMESPACE):
                name = app["metadata"]["name"]
                kube.patch("Application", name, {"metadata": {"finalizers": None}}, namespace=NAMESPACE)
                kube.delete("Application", name, namespace=NAMESPACE)
        self._end_programs()
        with self._manifests() as folder:
            self.cluster.kubectl("delete", "-k", str(folder), "--ignore-not-found", "--wait=false")
        kube.wait("Namespace", NAMESPACE, "deleted", timeout_s=180)

    def _end_programs(self) -> None:
        """End the pods before their configuration goes; those that do not end in time are deleted at once."""
        kube = self.cluster.kube
        for kind, name in _WORKLOADS:
            kube.delete(kind, name, namespace=NAMESPACE)
        with suppress(WaitTimeout):
            wait_for(
                lambda: not kube.list("Pod", namespace=NAMESPACE),
                _END_S,
                "Argo CD's pods have ended",
                every_s=0.3,
            )
        for pod in kube.list("Pod", namespace=NAMESPACE):
            kube.delete("Pod", pod["metadata"]["name"], namespace=NAMESPACE, grace_s=0)

    def memory(self, timeout_s: float = 60.0) -> pd.DataFrame:
        """What its programs use, as metrics-server has it; columns program, memory_mib, cpu_millicores.

        Nothing where the cluster has no metrics-server.

        Raises:
            WaitTimeout: metrics-server has not measured all of them.
        """
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods"
        measured: list[Object] = []

        def complete() -> bool:
            try:
                measured[:] = self.cluster.kube.request("GET", path)["items"]
            except NotFound:
                return True  # an existing cluster may have no metrics-server
            return len(measured) >= len(_WORKLOADS)

        wait_for(complete, timeout_s, "metrics-server has measured Argo CD's pods", every_s=0.5)
        rows = [
            (each["name"], quantity(each["usage"]["memory"]) / 2**20, quantity(each["usage"]["cpu"]) * 1000)
            for pod in measured
            for each in pod["containers"]
        ]
        frame = pd.DataFrame(rows, columns=["program", "memory_mib", "cpu_millicores"])
        return frame.round(0).sort_values("memory_mib", ascending=False, ignore_index=True)

    def add_repository(self, name: str, url: str, username: str, password: str) -> None:
        """Tell Argo CD a repository and how to log in there: a Secret with the label that it looks for."""
        secret = _secret(
            f"repository-{name}", {"type": "git", "url": url, "username": username, "password": password}
        )
        secret["metadata"]["labels"] = {"argocd.argoproj.io/secret-type": "repository"}
        self.cluster.kube.apply(secret)

    def application(self, name: str) -> Application:
        """An Application by name, whether it exists yet or not."""
        return Application(self.cluster.kube, name)


def _secret(name: str, values: dict[str, str]) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}
