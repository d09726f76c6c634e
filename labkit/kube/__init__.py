"""The Kubernetes API for labs: apply, wait, watch, logs and exec on the official client.

Objects are plain dicts, exactly as the API server sends them.

    from labkit.kube import Kube, dig
    kube = Kube("admin.kubeconfig")
    kube.apply("manifests/shop/base")
    web = kube.wait("Deployment", "web", "rolled out", timeout_s=60)
    dig(web, "status.readyReplicas", 0)
"""

from __future__ import annotations

from labkit.kube.client import FIELD_MANAGER, Kube
from labkit.kube.connection import Conflict, Forbidden, NotFound, TooManyRequests, Unreachable
from labkit.kube.objects import Object, dig, quantity
from labkit.kube.streams import ExecResult
from labkit.kube.watching import Event, Watch

__all__ = [
    "FIELD_MANAGER",
    "Conflict",
    "Event",
    "ExecResult",
    "Forbidden",
    "Kube",
    "NotFound",
    "Object",
    "TooManyRequests",
    "Unreachable",
    "Watch",
    "dig",
    "quantity",
]
