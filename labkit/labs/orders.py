"""Orders to join in which one thing is wrong: what an administrator hands over, and what becomes of it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import EllipsisType

from labkit.cluster import Cluster
from labkit.cluster.join import JoinStep
from labkit.cluster.waiting import wait_for
from labkit.errors import ClusterError, LabkitError

FAULTS = ("token", "hash", "address")
SAYS = {
    "token": "could not find a JWS signature",
    "hash": "none of the public keys",
    "address": "failed to request the cluster-info ConfigMap",
}
"""Fault → kubeadm's words for it."""
_FORGOTTEN_S = 30.0


@dataclass
class Order:
    """What a worker is told: where the cluster is, a token, and the hash of the authority's key.

    Attributes:
        server: host:port of the API server.
        steps: those of the join that came of it at last; [] before.
    """

    server: str
    token: str = field(repr=False)
    ca_cert_hash: str
    fault: str = field(repr=False)
    steps: list[JoinStep] = field(default_factory=list, repr=False)

    @property
    def token_id(self) -> str:
        """The public part of the token."""
        return self.token.partition(".")[0]

    def __str__(self) -> str:
        return (
            f"kubeadm join {self.server} --token {self.token_id}.****** \\\n"
            f"    --discovery-token-ca-cert-hash {self.ca_cert_hash}"
        )

    def as_if(self, fault: str) -> Order:
        """The same order, taken for one with another fault."""
        return replace(self, fault=fault)

    def carry_out(self, cluster: Cluster, node: str) -> str:
        """Let a worker join by the order as it is, which fails: kubeadm's words, as they come.

        Raises:
            ClusterError: the worker has joined.
        """
        try:
            cluster.add_worker(
                node, server=self.server, token=self.token, ca_cert_hash=self.ca_cert_hash
            ).wait()
        except ClusterError as error:
            return error.message
        raise ClusterError(f"{node} has joined, although something was wrong with its order.")

    def retry(self, cluster: Cluster, node: str, better: Mapping[str, str] | EllipsisType) -> list[JoinStep]:
        """Let a worker join by a better order, unless it has joined already.

        What keeps it from joining is printed, not raised, and one may try again.

        Args:
            better: what replaces the order's server, token or ca_cert_hash; `...` to leave it.

        Returns:
            The steps of the join that succeeded; [] where none has yet.
        """
        if isinstance(better, EllipsisType) or _joined(cluster, node):
            return self.steps
        mine = {"server": self.server, "token": self.token, "ca_cert_hash": self.ca_cert_hash}
        try:
            self.steps[:] = cluster.add_worker(node, **{**mine, **better}).wait()  # type: ignore[arg-type]
        except (LabkitError, TypeError) as error:
            print(error)
        return self.steps


def _joined(cluster: Cluster, node: str) -> bool:
    return any(known.name == node for known in cluster.nodes())


def draw(cluster: Cluster, seed: int) -> Order:
    """An order with one fault; the seed decides which."""
    fault = random.Random(seed).choice(FAULTS)
    good = cluster.join_token(2) if fault == "token" else cluster.join_token()
    server, pin = good.server.removeprefix("https://"), good.ca_cert_hash
    if fault == "token":
        secret = f"bootstrap-token-{good.id}"
        find = cluster.kube.find
        wait_for(
            lambda: find("Secret", secret, namespace="kube-system") is None, _FORGOTTEN_S, "it has expired"
        )
    elif fault == "hash":
        pin = pin[:-1] + ("0" if pin[-1] != "0" else "1")
    else:
        host, _, port = server.rpartition(":")
        server = f"{host}:{int(port) + 1}"
    return Order(server, good.token, pin, fault)
