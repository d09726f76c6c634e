"""The shop, moved into a cluster in one call, for labs that begin where lab 03 ends."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from labkit.cluster import Cluster
from labkit.kube import Object

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


def _secret() -> Object:
    meta = {"name": "orders-admin", "namespace": NAMESPACE}
    data = {"token": secrets.token_hex(16)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}
