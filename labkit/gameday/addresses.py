"""The address pool of the game day, in MetalLB."""

from __future__ import annotations

import json

from labkit.addons.metallb import NAMESPACE, MetalLB, pool_manifest

POOL = "game-day"
FEW = 2
"""Addresses at the beginning: one for the shop, one to spare."""


class MetalPool:
    """A pool of few addresses; making it sets it back to that."""

    def __init__(self, metallb: MetalLB) -> None:
        self._metallb = metallb
        self._kube = metallb.cluster.kube
        self.reset()

    @property
    def command(self) -> str:
        """A patch with a longer range."""
        patch = json.dumps({"spec": {"addresses": [self._metallb.addresses(4 * FEW)]}})
        return f"kubectl -n {NAMESPACE} patch ipaddresspool {POOL} --type merge -p '{patch}'"

    def reset(self) -> None:
        """FEW addresses."""
        self._kube.apply(pool_manifest(POOL, self._metallb.addresses(FEW)))

    def enlarge(self, count: int) -> None:
        """From the cluster's range."""
        wider = {"spec": {"addresses": [self._metallb.addresses(FEW + count)]}}
        self._kube.patch("IPAddressPool", POOL, wider, namespace=NAMESPACE)
