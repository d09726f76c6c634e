"""labkit: Kubernetes labs as notebooks, on a real cluster that needs neither Docker nor root.

import labkit
cluster = labkit.up()
print(cluster.kubectl("get", "nodes"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.cluster import Cluster, up

__all__ = ["Cluster", "up"]


def __getattr__(name: str) -> Any:
    """Load what is asked for only then, so that `import labkit` takes no time."""
    if name in __all__:
        from labkit import cluster

        return getattr(cluster, name)
    raise AttributeError(f"module 'labkit' has no attribute {name!r}")
