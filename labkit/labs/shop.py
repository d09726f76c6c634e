"""The shop, moved into a cluster in one call, for labs that begin where lab 03 ends."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from labkit.cluster import Cluster
from labkit.errors import KubeError, LabError
from labkit.kube import Object, dig

NAMESPACE = "shop"
SERVICES = ("catalog", "frontend", "orders", "pricing")


def move_in(
    cluster: Cluster, root: str | Path = "..", *, wait_for: Sequence[str] = SERVICES, timeout_s: float = 150.0
) -> None:
    """Build the shop's images at v1 and apply manifests/shop/base; what is there already stays.

    Args:
        root: the folder that has services/ and manifests/; of a notebook, "..".
        wait_for: which Deployments must be rolled out when this returns.

    Raises:
        ImageError, KubeError: an image cannot be built, or the manifests are refused.
        WaitTimeout: a Deployment does not become ready; the hint says why.
    """
    for name in SERVICES:
        folder = Path(root) / "services" / name
        cluster.build_image(folder, f"shop/{name}:v1", build_args={"VERSION": "v1"})
    base = Path(root) / "manifests" / "shop" / "base"
    cluster.kube.apply(base / "namespace.yaml")
    if cluster.kube.find("Secret", "orders-admin", namespace=NAMESPACE) is None:
        cluster.kube.create(_secret())
    cluster.kube.apply(base)
    for name in wait_for:
        cluster.kube.wait("Deployment", name, "rolled out", namespace=NAMESPACE, timeout_s=timeout_s)


def pull_the_plug(cluster: Cluster, service: str) -> str:
    """End the process of one pod of a service without any signal, then delete the pod; the pod's name.

    A pod that is deleted, by force or not, gets SIGTERM and at least a second to finish. A crash gives it
    neither; the deletion comes before the kubelet could start the container again.

    Raises:
        LabError: no pod of the service is Ready, or its program has no faults to switch on.
    """
    ready = _ready_pods(cluster, service)
    if not ready:
        raise LabError(f"No pod of {service} is Ready.", f"kubectl -n {NAMESPACE} get pods")
    name, address = ready[0]["metadata"]["name"], dig(ready[0], "status.podIP")
    url = f"http://{address}:8080/faults/crash"
    program = f"import urllib.request as u; u.urlopen(u.Request({url!r}, method='POST'))"
    with suppress(KubeError):  # the container may be gone before it can tell
        said = cluster.kube.exec(name, ["python", "-c", program], namespace=NAMESPACE, check=False)
        if "403" in said.stderr:
            raise LabError(f"{service} does not crash on demand.", "Set FAULTS=on in its Deployment.")
    cluster.kube.delete("Pod", name, namespace=NAMESPACE, grace_s=0)
    return str(name)


def wait_until_complete(cluster: Cluster, service: str, timeout_s: float = 90.0) -> None:
    """Wait until as many pods of a service are Ready as its Deployment wants.

    The pods themselves are counted: for a moment, a Deployment's status still counts one that is gone.

    Raises:
        WaitTimeout: pods are missing after `timeout_s`; the hint says why.
    """

    def complete(deployment: Object | None) -> bool:
        return bool(len(_ready_pods(cluster, service)) == dig(deployment, "spec.replicas", -1))

    cluster.kube.wait("Deployment", service, complete, namespace=NAMESPACE, timeout_s=timeout_s)


def _ready_pods(cluster: Cluster, service: str) -> list[Object]:
    pods = cluster.kube.list("Pod", namespace=NAMESPACE, labels=f"app.kubernetes.io/name={service}")
    return [pod for pod in pods if _is_ready(pod) and not dig(pod, "metadata.deletionTimestamp")]


def _is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in dig(pod, "status.conditions", []))


def _secret() -> Object:
    meta = {"name": "orders-admin", "namespace": NAMESPACE}
    data = {"token": secrets.token_hex(16)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}
