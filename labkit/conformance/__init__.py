"""Kubernetes' own end-to-end test suite as the judge of a cluster.

from labkit.conformance import run
run.conformance(cluster, folder)
"""

from __future__ import annotations
