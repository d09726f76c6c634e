"""labkit: Kubernetes labs as notebooks, on a real cluster that needs neither Docker nor root.

import labkit
cluster = labkit.up()
print(cluster.kubectl("get", "nodes"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit import hpa, load, plots
    from labkit.checks import check, hint, predict
    from labkit.cluster import Cluster, up
    from labkit.labs.visit import get
    from labkit.record import Recorder
    from labkit.widgets import Dashboard

__all__ = [
    "Cluster",
    "Dashboard",
    "Recorder",
    "check",
    "get",
    "hint",
    "hpa",
    "load",
    "plots",
    "predict",
    "up",
]

_HOMES = {
    "Cluster": "labkit.cluster",
    "Dashboard": "labkit.widgets",
    "Recorder": "labkit.record",
    "check": "labkit.checks",
    "get": "labkit.labs.visit",
    "hint": "labkit.checks",
    "predict": "labkit.checks",
    "up": "labkit.cluster",
}
"""Name → the module that has it; the others of __all__ are modules themselves."""


def __getattr__(name: str) -> Any:
    """Load what is asked for only then, so that `import labkit` takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    home = _HOMES.get(name)
    return getattr(import_module(home), name) if home else import_module(f"labkit.{name}")


def __dir__() -> list[str]:
    """What Tab shows."""
    return list(__all__)
