"""The address pool of the game day, in MetalLB."""

from __future__ import annotations

import json

from labkit.addons.metallb import NAMESPACE, MetalLB, pool_manifest

POOL = "game-day"
FEW = 2
"""Addresses at the beginning: one for the shop, one to spare."""
WANTS_POOL = {"metallb.io/address-pool": POOL}
"""Annotation of a Service that takes its address from this pool, and from no other."""
_OTHERS = 32


class MetalPool:
    """A pool of few addresses; making it sets it back to that.

    The first addresses of the cluster's range are left to pools of other labs, which may stay as they are.
    """

    def __init__(self, metallb: MetalLB) -> None:
        self._metallb = metallb
        self._kube = metallb.cluster.kube
        self.reset()

    @property
    def command(self) -> str:
        """A patch with a longer range."""
        patch = json.dumps({"spec": {"addresses": [self._metallb.addresses(4 * FEW, _OTHERS)]}})
        return f"kubectl -n {NAMESPACE} patch ipaddresspool {POOL} --type merge -p '{patch}'"

    def reset(self) -> None:
        """FEW addresses."""
        self._kube.apply(pool_manifest(POOL, self._metallb.addresses(FEW, _OTHERS), auto_assign=False))

    def enlarge(self, count: int) -> None:
        """From the cluster's range."""
        wider = {"spec": {"addresses": [self._metallb.addresses(FEW + count, _OTHERS)]}}
        self._kube.patch("IPAddressPool", POOL, wider, namespace=NAMESPACE)
