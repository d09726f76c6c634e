"""Clusters and their providers.

import labkit
cluster = labkit.up(workers=2)
"""

from __future__ import annotations

from labkit.cluster.base import Cluster
from labkit.cluster.join import Join, JoinStep
from labkit.cluster.phases import Phase
from labkit.cluster.providers import up
from labkit.cluster.status import ClusterStatus, ComponentStatus, NodeInfo

__all__ = ["Cluster", "ClusterStatus", "ComponentStatus", "Join", "JoinStep", "NodeInfo", "Phase", "up"]
