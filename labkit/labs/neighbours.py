"""Three teams that share a cluster with the shop. One of them wastes addresses; which one is drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass

from labkit.cluster import Cluster
from labkit.kube import Object, dig

TEAMS = ("newsletter", "reviews", "warehouse")
PARTS = ("admin", "app", "metrics")
"""Services of the wasteful team, each on an address of its own."""
_THRIFTY = (*PARTS, "search")
_IMAGE = "shop/catalog:v1"
_FIRST_PORT = 8091
_SHARE = "metallb.io/allow-shared-ip"


@dataclass(frozen=True)
class Roles:
    """What each team does.

    Attributes:
        wasteful: three Services on three addresses.
        thrifty: four Services on one address.
        inside: two Services that only the cluster reaches.
    """

    wasteful: str
    thrifty: str
    inside: str

    @classmethod
    def drawn(cls, seed: int) -> Roles:
        """The same ones for the same seed."""
        return cls(*random.Random(seed).sample(TEAMS, len(TEAMS)))


def move_in(cluster: Cluster, seed: int, *, addresses: bool = True, timeout_s: float = 90.0) -> None:
    """Start the three teams' programs and Services; what is there already is set right.

    Args:
        seed: draws who wastes addresses.
        addresses: wait until each Service of type LoadBalancer has one.

    Raises:
        WaitTimeout: a program does not become ready, or a Service gets no address.
    """
    roles, kube = Roles.drawn(seed), cluster.kube
    for team in TEAMS:
        kube.apply([_namespace(team), _program(team), *_services(team, roles)])
    for team in (roles.thrifty, roles.wasteful) if addresses else ():
        kube.wait("Service", labels=f"team={team}", until=_has_address, namespace=team, timeout_s=timeout_s)
    for team in TEAMS:
        kube.wait("Deployment", team, "rolled out", namespace=team, timeout_s=timeout_s)


def move_out(cluster: Cluster) -> None:
    """Delete the three teams' namespaces with everything in them; returns at once."""
    for team in TEAMS:
        cluster.kube.delete("Namespace", team)


def _has_address(service: Object | None) -> bool:
    return bool(dig(service, "status.loadBalancer.ingress[0].ip"))


def _services(team: str, roles: Roles) -> list[Object]:
    """The Services of a team by its role."""
    parts = {roles.wasteful: PARTS, roles.thrifty: _THRIFTY, roles.inside: PARTS[:2]}[team]
    kind = "ClusterIP" if team == roles.inside else "LoadBalancer"
    notes = {_SHARE: team} if team == roles.thrifty else {}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": f"{team}-{part}", "namespace": team, "labels": {"team": team}, "annotations": notes
            },
            "spec": {
                "type": kind,
                "selector": {"app": team},
                "ports": [{"name": "http", "port": _FIRST_PORT + number, "targetPort": 8080}],
            },
        }
        for number, part in enumerate(parts)
    ]  # fmt: skip


def _namespace(team: str) -> Object:
    meta = {"name": team, "labels": {"team": team}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def _program(team: str) -> Object:
    """A program of the team's: the shop's catalogue under another name, which ends at once when told to."""
    container = {
        "name": "web",
        "image": _IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "DRAIN_SECONDS", "value": "0"}],
        "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
    }
    spec = {"terminationGracePeriodSeconds": 2, "containers": [container]}
    template = {"metadata": {"labels": {"app": team}}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": team, "namespace": team, "labels": {"team": team}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": team}}, "template": template},
    }
