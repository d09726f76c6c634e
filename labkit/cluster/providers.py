"""The providers of clusters, and `up`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from labkit.cluster.base import Cluster
from labkit.cluster.phases import Listener, shown
from labkit.errors import ConfigError
from labkit.tools import kubectl

PROVIDERS = {
    "embedded": "labkit.cluster.embedded:EmbeddedCluster",
    "kind": "",
    "existing": "",
}
"""Provider → class; "" for one that is planned."""


def provider_class(name: str | None) -> Any:
    """The class of a provider; None means $LABKIT_PROVIDER, else embedded.

    Raises:
        ConfigError: there is no such provider, or not yet.
    """
    chosen = name or os.environ.get("LABKIT_PROVIDER") or "embedded"
    if chosen not in PROVIDERS:
        raise ConfigError(f"There is no provider {chosen!r}.", f"Providers: {', '.join(PROVIDERS)}.")
    if not PROVIDERS[chosen]:
        raise ConfigError(f"Provider {chosen!r} is not available yet in this version.", "Use embedded.")
    module, _, attribute = PROVIDERS[chosen].partition(":")
    return getattr(import_module(module), attribute)


def up(
    name: str = "lab", provider: str | None = None, *, listener: Listener | None = None, **options: Any
) -> Cluster:
    """Create a cluster, or bring one back that exists; complete when it returns.

    Args:
        name: several clusters can run side by side.
        provider: embedded, kind or existing; by default $LABKIT_PROVIDER, else embedded.
        listener: told of each phase; by default they are printed.
        options: of the provider, such as `workers=2`, `cpus=2`, `memory="4Gi"`; see `labkit up --help`.

    In a notebook, KUBECONFIG and PATH are set, so that `!kubectl` speaks to the cluster.

    Raises:
        ConfigError: a name or option cannot be, or the cluster exists with other options.
        MachineError, AcquireError, ClusterError, WaitTimeout: it cannot start; the hint says what to do.
    """
    made = provider_class(provider)
    if listener is not None:
        cluster: Cluster = made.up(name, listener, **options)
        _speak_to(cluster)
        return cluster
    with shown() as printed:
        return up(name, provider, listener=printed, **options)


def _speak_to(cluster: Cluster) -> None:
    """In a notebook: let `!kubectl` and `!labkit` be ours, and speak to this cluster."""
    if "ipykernel" not in sys.modules:
        return
    os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
    folders = os.environ.get("PATH", "").split(os.pathsep)
    for folder in (str(Path(sys.executable).parent), str(kubectl().parent)):
        if folder not in folders:
            folders.insert(0, folder)
    os.environ["PATH"] = os.pathsep.join(folders)


def open_cluster(name: str, provider: str | None = None) -> Cluster:
    """A cluster that exists, running or not. Raises ClusterError when there is none."""
    cluster: Cluster = provider_class(provider).open(name)
    return cluster
