"""The finished system in one call: what labs 03 to 08 have built step by step."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from labkit.addons.argocd import ArgoCD
from labkit.addons.git import GitServer
from labkit.addons.metallb import MetalLB
from labkit.cluster import Cluster
from labkit.cluster.phases import Listener, phase, shown
from labkit.cluster.waiting import accepts, wait_for
from labkit.errors import WaitTimeout
from labkit.gameday.addresses import MetalPool
from labkit.gameday.desk import Desk, KubectlDesk
from labkit.gameday.gitops import GitDesk
from labkit.gameday.world import SHOP, World
from labkit.kube import dig

SERVICES = ("catalog", "frontend", "orders", "pricing")
_READY_S = 150.0
_ADDRESS_S = 60.0


def build(
    cluster: Cluster,
    root: str | Path = "..",
    *,
    gitops: bool = True,
    load_balancer: bool = True,
    listener: Listener | None = None,
) -> World:
    """Bring the shop with its autoscaler, MetalLB and Argo CD into a cluster; what is there stays.

    Args:
        root: the folder that has services/ and manifests/; of a notebook, "..".
        gitops: False for `kubectl apply` in place of a git server and Argo CD.
        load_balancer: False for no MetalLB.

    Raises:
        LabkitError: a part cannot be had or does not become ready; the hint says which, and why.
    """
    if listener is None:
        with shown() as printed:
            return build(cluster, root, gitops=gitops, load_balancer=load_balancer, listener=printed)
    parts: list[Callable[[], object]] = [lambda: _images(cluster, Path(root), listener)]
    if load_balancer:
        parts.append(lambda: MetalLB(cluster).install(listener))
    if gitops:
        parts += [lambda: GitServer(cluster).install(listener), lambda: ArgoCD(cluster).install(listener)]
    with ThreadPoolExecutor(max_workers=len(parts)) as together:
        for done in [together.submit(part) for part in parts]:
            done.result()
    pool = MetalPool(MetalLB(cluster)) if load_balancer else None
    with phase("shop", listener, "deploying") as step:
        desk = _desk(cluster, Path(root) / "manifests", gitops)
        for name in SERVICES:
            wait_for(lambda name=name: cluster.kube.find("Deployment", name, namespace=SHOP), _READY_S, name)  # type: ignore[misc]
            cluster.kube.wait("Deployment", name, "rolled out", namespace=SHOP, timeout_s=_READY_S)
        url = _url(cluster, pool is not None)
        step.tell(f"serves at {url}")
    return World(cluster, desk, url, pool, _states(cluster, desk))


def _images(cluster: Cluster, root: Path, listener: Listener) -> None:
    with phase("shop images", listener, "building") as step:
        for name in SERVICES:
            cluster.build_image(root / "services" / name, f"shop/{name}:v1", build_args={"VERSION": "v1"})
        step.tell(", ".join(f"shop/{name}:v1" for name in SERVICES))


def _desk(cluster: Cluster, manifests: Path, gitops: bool) -> Desk:
    if gitops:
        return GitDesk(cluster, manifests)
    folder = cluster.kubeconfig.parent / "game-day"
    desk = KubectlDesk(cluster, manifests, folder)
    desk.heal()
    return desk


def _url(cluster: Cluster, load_balancer: bool) -> str:
    """Where customers reach the shop: its external address, unless this machine has no way to it."""
    if load_balancer:
        address = "status.loadBalancer.ingress[0].ip"
        cluster.kube.wait(
            "Service", "frontend", lambda obj: dig(obj, address), namespace=SHOP, timeout_s=_ADDRESS_S
        )
        url = MetalLB(cluster).url("frontend", SHOP)
        parts = urlsplit(url)
        try:
            wait_for(lambda: accepts(str(parts.hostname), parts.port or 80), 10, "the address answers")
        except WaitTimeout:
            return cluster.url("frontend", SHOP)
        return url
    return cluster.url("frontend", SHOP)


def _states(cluster: Cluster, desk: Desk) -> dict[str, Callable[[], str]]:
    states: dict[str, Callable[[], str]] = {"load balancer": lambda: _addresses(cluster)}
    if isinstance(desk, GitDesk):
        states["Argo CD"] = lambda: str(desk.app.status())
    return states


def _addresses(cluster: Cluster) -> str:
    services = [
        s for s in cluster.kube.list("Service", everywhere=True) if dig(s, "spec.type") == "LoadBalancer"
    ]
    waiting = [dig(s, "metadata.name") for s in services if not dig(s, "status.loadBalancer.ingress")]
    words = f"{len(services) - len(waiting)} of {len(services)} addresses given"
    return f"{words}, waiting: {', '.join(waiting)}" if waiting else words
