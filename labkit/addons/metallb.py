"""MetalLB: addresses for Services of type LoadBalancer, where no cloud gives them.

What is installed is upstream's own manifest (config/manifests/metallb-native.yaml of its Go module) at the
pinned version. On kind nothing of it is changed. On the embedded cluster the speakers are left out: a speaker
answers ARP requests on its node's network card, and these nodes have none. Their addresses are loopback
addresses, which need no announcing; `vip`, the Service proxy, listens on those that the controller assigns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from typing import Any

import pandas as pd
import yaml

from labkit.acquire import module_folder
from labkit.addons import pools
from labkit.addons.base import Addon, AddonStatus
from labkit.cluster.addresses import service_at
from labkit.cluster.phases import Listener, phase
from labkit.errors import ClusterError, ConfigError, KubeError, WaitTimeout
from labkit.kube import Object, dig
from labkit.kube.conditions import rollout_lacks

MODULE = "go.universe.tf/metallb"
NAMESPACE = "metallb-system"
POOL_ANNOTATION = "metallb.io/ip-allocated-from-pool"
_MANIFEST = "config/manifests/metallb-native.yaml"
_NUDGE_S = 5.0
_POLL_S = 0.3
_GONE_S = 90.0
_WORKLOADS = {"Deployment": "controller", "DaemonSet": "speaker"}


class MetalLB(Addon):
    """MetalLB in a cluster."""

    name = "metallb"
    marks = (("Namespace", NAMESPACE),)

    def manifest(self) -> list[Object]:
        """The objects that are installed.

        Raises:
            AcquireError: MetalLB's module cannot be had.
        """
        text = (module_folder(MODULE) / _MANIFEST).read_text()
        objects = [obj for obj in yaml.safe_load_all(text) if obj]
        if self.cluster.underlying().provider == "embedded":
            objects = [obj for obj in objects if obj["kind"] != "DaemonSet"]
        return objects

    def _install(self, listener: Listener) -> None:
        objects = self.manifest()
        for image in sorted(_images(objects)):
            self.cluster.provide_image(image, listener)
        with phase("metallb", listener, "upstream's manifest") as step:
            self.cluster.kube.apply(objects)
            step.tell(f"{len(objects)} objects of upstream's manifest")

    def wait(self, timeout_s: float = 300.0) -> None:
        """Wait until its pods are ready and its webhook judges pools.

        The webhook's certificate is made by the controller, and comes to it through a mounted Secret, which a
        kubelet refreshes about once a minute; a change of the pod makes it look at once.
        """
        kube, deadline = self.cluster.kube, time.monotonic() + timeout_s
        for obj in self.manifest():
            if obj["kind"] in _WORKLOADS:
                left = max(1.0, deadline - time.monotonic())
                kube.wait(
                    obj["kind"], dig(obj, "metadata.name"), "rolled out", namespace=NAMESPACE, timeout_s=left
                )
        nudge_at = time.monotonic() + _NUDGE_S
        while not self._webhook_judges():
            now = time.monotonic()
            if now > deadline:
                raise WaitTimeout(
                    f"MetalLB's webhook does not answer after {timeout_s:g} s.",
                    f"`kubectl -n {NAMESPACE} logs deployment/controller` says why.",
                )
            if now > nudge_at:
                self._nudge(now)
                nudge_at = now + _NUDGE_S
            time.sleep(_POLL_S)

    def _webhook_judges(self) -> bool:
        """Whether a pool that cannot be is refused for its range; nothing is stored."""
        path = f"/apis/metallb.io/v1beta1/namespaces/{NAMESPACE}/ipaddresspools"
        wrong = pool_manifest("labkit-probe", "127.0.0.2-127.0.0.1")[0]
        try:
            self.cluster.kube.request("POST", path, body=wrong, query={"dryRun": "All"})
        except KubeError as error:
            return "invalid IP range" in error.message
        return False

    def _nudge(self, now: float) -> None:
        kube = self.cluster.kube
        for pod in kube.list("Pod", namespace=NAMESPACE, labels="app=metallb,component=controller"):
            note = {"metadata": {"annotations": {"labkit/looked-at": f"{now:.0f}"}}}
            kube.patch("Pod", pod["metadata"]["name"], note, namespace=NAMESPACE)

    def status(self) -> AddonStatus:
        """Its workloads, pools, and what is missing of it."""
        kube = self.cluster.kube
        if kube.find("Namespace", NAMESPACE) is None:
            return AddonStatus(self.name, "absent")
        missing, parts, version = [], {}, ""
        for obj in self.manifest():
            kind, name = obj["kind"], dig(obj, "metadata.name")
            live = kube.find(_kind(obj), name, namespace=dig(obj, "metadata.namespace"))
            if live is None:
                missing.append(f"{kind.lower()}/{name}")
            elif kind in _WORKLOADS:
                parts[f"{kind.lower()}/{name}"] = rollout_lacks(live) or "ready"
                version = version or _tag(live)
        if missing:
            return AddonStatus(
                self.name, "incomplete", version, {**parts, **dict.fromkeys(missing, "missing")}
            )
        for pool, _, assigned, available in self.pools().to_numpy().tolist():
            parts[f"pool/{pool}"] = f"{assigned} of {assigned + available} addresses assigned"
        starting = any(parts[part] != "ready" for part in parts if not part.startswith("pool/"))
        return AddonStatus(self.name, "starting" if starting else "ready", version, parts)

    def uninstall(self, *, force: bool = False) -> None:
        """Remove MetalLB with its pools; nothing happens where it is absent.

        Args:
            force: also while Services have addresses from it; they lose them.

        Raises:
            ClusterError: Services have addresses from it, and `force` is not set.
        """
        self.refuse_others()
        users = [_name(service) for service in self._services() if _pool_of(service)]
        if users and not force:
            raise ClusterError(
                f"MetalLB is in use: {', '.join(users)} have addresses from it, and would keep them in their "
                "status with nobody left who answers there.",
                "Delete those Services or make them ClusterIP first; or uninstall(force=True).",
            )
        kube = self.cluster.kube
        kube.delete(self.manifest())
        kube.wait("Namespace", NAMESPACE, "deleted", timeout_s=_GONE_S)
        for service in self._services():
            if _pool_of(service):
                self._take_back(service)

    def _take_back(self, service: Object) -> None:
        kube, meta = self.cluster.kube, service["metadata"]
        none: dict[str, Any] = {"status": {"loadBalancer": {"ingress": None}}}
        kube.patch("Service", meta["name"], none, namespace=meta["namespace"], subresource="status")
        note = {"metadata": {"annotations": {POOL_ANNOTATION: None}}}
        kube.patch("Service", meta["name"], note, namespace=meta["namespace"])

    def addresses(self, count: int, skip: int = 0) -> str:
        """A range for a pool, as MetalLB writes it, from those that this cluster may give.

        Args:
            count: how many addresses.
            skip: how many of the cluster's range to leave out before it.

        Raises:
            ConfigError: the cluster has not so many.
        """
        first, last = (IPv4Address(each) for each in self.cluster.load_balancer_range())
        room = int(last) - int(first) + 1
        if count < 1 or skip < 0 or skip + count > room:
            raise ConfigError(
                f"{count} addresses after the first {skip} are not to be had.",
                f"This cluster has {room}: {first} to {last}.",
            )
        return f"{first + skip}-{first + skip + count - 1}"

    def pools(self) -> pd.DataFrame:
        """Pools: pool, addresses (ranges and networks, as text), assigned and available (how many)."""
        rows = [
            {
                "pool": pool["metadata"]["name"],
                "addresses": ", ".join(dig(pool, "spec.addresses", [])),
                "assigned": _counted(pool, "assigned"),
                "available": _counted(pool, "available"),
            }
            for pool in self._pools()
        ]
        return pd.DataFrame(rows, columns=["pool", "addresses", "assigned", "available"])

    def _pools(self) -> list[Object]:
        try:
            return self.cluster.kube.list("IPAddressPool", namespace=NAMESPACE)
        except KubeError:
            return []  # the kind is not there: nothing is installed

    def assignments(self) -> pd.DataFrame:
        """Who has which address: one row per address of each pool and Service on it.

        Returns:
            pool, address, service (namespace/name) and ports (as text). A free address has service ""; in a
            pool of more than 64, a run of free addresses has one row, 192.0.2.20-192.0.2.99. A Service
            that waits has pool and address "".
        """
        services = self._services()
        holders: dict[str, list[Object]] = {}
        for service in services:
            for address in _addresses_of(service):
                holders.setdefault(address, []).append(service)
        rows: list[tuple[str, str, str, str]] = []
        for pool in self._pools():
            name, buggy = pool["metadata"]["name"], bool(dig(pool, "spec.avoidBuggyIPs", False))
            parts = pools.spans(dig(pool, "spec.addresses", []), avoid_buggy=buggy)
            for address in pools.listed(parts, [ip_address(each) for each in holders]):
                rows += [(name, address, _name(one), _ports(one)) for one in holders.get(address, [])] or [
                    (name, address, "", "")
                ]
        rows += [("", "", _name(one), _ports(one)) for one in services if not _addresses_of(one)]
        return pd.DataFrame(rows, columns=["pool", "address", "service", "ports"])

    def url(self, service: str, namespace: str = "default", port: int | None = None) -> str:
        """The URL of a Service's LoadBalancer address, as this machine reaches it.

        Raises:
            ClusterError: it has no address; the hint is what MetalLB says about it.
        """
        obj = self.cluster.kube.get("Service", service, namespace=namespace)
        found = _addresses_of(obj)
        if not found:
            raise ClusterError(
                f"Service {namespace}/{service} has no external address.", why_pending(self.cluster.kube, obj)
            )
        number = port or int(dig(obj, "spec.ports[0].port"))
        if ip_address(found[0]).version == 6:
            return f"http://[{found[0]}]:{number}"
        host, number = service_at(found[0], number)
        return f"http://{host}:{number}"

    def announcer(self, service: str, namespace: str = "default") -> str:
        """The node whose speaker answers for a Service's address; "" where no node does."""
        labels = f"metallb.io/service-name={service},metallb.io/service-namespace={namespace}"
        try:
            found = self.cluster.kube.list("ServiceL2Status", namespace=NAMESPACE, labels=labels)
        except KubeError:
            return ""
        return next((dig(each, "status.node", "") for each in found), "")

    def _services(self) -> list[Object]:
        found = self.cluster.kube.list("Service", everywhere=True)
        return sorted((s for s in found if dig(s, "spec.type") == "LoadBalancer"), key=_name)


def pool_manifest(name: str, addresses: str, *, auto_assign: bool = True) -> list[Object]:
    """An IPAddressPool, and the L2Advertisement that lets speakers answer for its addresses."""
    meta = {"name": name, "namespace": NAMESPACE}
    return [
        {
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": meta,
            "spec": {"addresses": [addresses], "autoAssign": auto_assign},
        },
        {
            "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": meta,
            "spec": {"ipAddressPools": [name]},
        },
    ]  # fmt: skip


def why_pending(kube: Any, service: Object) -> str:
    """What events say about a Service without an address, or that nobody has looked at it."""
    said = [event.get("message", "") for event in kube.events(service) if event.get("type") == "Warning"]
    return said[-1] if said else "No event tells why: is a load balancer installed, and has it a pool?"


def _images(objects: list[Object]) -> Iterator[str]:
    for obj in objects:
        for container in dig(obj, "spec.template.spec.containers", []):
            yield container["image"]


def _kind(obj: Object) -> str:
    return f"{obj['apiVersion']}/{obj['kind']}"


def _tag(workload: Object) -> str:
    return str(dig(workload, "spec.template.spec.containers[0].image", "")).rpartition(":")[2]


def _name(service: Object) -> str:
    return f"{dig(service, 'metadata.namespace')}/{dig(service, 'metadata.name')}"


def _pool_of(service: Object) -> str:
    annotations = dig(service, "metadata.annotations", {})
    return str(annotations.get(POOL_ANNOTATION, ""))


def _addresses_of(service: Object) -> list[str]:
    """Its addresses, each in the one form that ipaddress gives it."""
    found = (entry["ip"] for entry in dig(service, "status.loadBalancer.ingress", []) if entry.get("ip"))
    return [str(ip_address(each)) for each in found]


def _counted(pool: Object, what: str) -> int:
    """How many addresses of a pool are `assigned` or `available`, of both families."""
    return sum(int(dig(pool, f"status.{what}{family}", 0)) for family in ("IPv4", "IPv6"))


def _ports(service: Object) -> str:
    return ", ".join(str(port["port"]) for port in dig(service, "spec.ports", []))
