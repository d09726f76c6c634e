"""The providers of clusters, and `up`."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from labkit.cluster.base import Cluster
from labkit.cluster.phases import Listener, shown
from labkit.cluster.state import Directory, cluster_names
from labkit.cluster.status import ClusterStatus
from labkit.errors import ConfigError, LabkitError
from labkit.kube.direct import no_proxy
from labkit.tools import kubectl

PROVIDERS = {
    "embedded": "labkit.cluster.embedded:EmbeddedCluster",
    "kind": "labkit.cluster.kind.cluster:KindCluster",
    "existing": "labkit.cluster.existing:ExistingCluster",
}
"""Provider → class."""
_FILES = {"kind": "kind.json", "existing": "existing.json"}
"""Provider → the file that only its clusters' directories have; all others are of the embedded one."""


def provider_class(name: str | None) -> Any:
    """The class of a provider; None means $LABKIT_PROVIDER, else embedded.

    Raises:
        ConfigError: there is no such provider.
    """
    chosen = name or os.environ.get("LABKIT_PROVIDER") or "embedded"
    if chosen not in PROVIDERS:
        raise ConfigError(f"There is no provider {chosen!r}.", f"Providers: {', '.join(PROVIDERS)}.")
    module, _, attribute = PROVIDERS[chosen].partition(":")
    return getattr(import_module(module), attribute)


def provider_of(name: str) -> str:
    """The provider that made a cluster, "" where there is none of that name."""
    directory = Directory(name)
    if not directory.exists:
        return ""
    return next((each for each, file in _FILES.items() if (directory / file).exists()), "embedded")


def _provider_for(name: str, asked: str | None) -> str | None:
    """The provider of a cluster that exists, else the one that was asked for.

    Raises:
        ConfigError: the cluster exists and is of another provider.
    """
    there = provider_of(name)
    if there and asked and asked != there:
        raise ConfigError(
            f"Cluster {name!r} exists, and its provider is {there}, not {asked}.",
            f"Take another name, or `labkit down {name}` first.",
        )
    return there or asked


def up(
    name: str = "lab",
    provider: str | None = None,
    *,
    workers: int | None = None,
    cpus: int | None = None,
    memory: str | None = None,
    images: str | None = None,
    context: str | None = None,
    kubeconfig: str | Path | None = None,
    registry: str | None = None,
    node_monitor_period_s: int | None = None,
    node_monitor_grace_s: int | None = None,
    eviction_after_s: int | None = None,
    hpa_sync_s: int | None = None,
    hpa_initial_readiness_s: int | None = None,
    hpa_cpu_initialization_s: int | None = None,
    metrics_s: int | None = None,
    listener: Listener | None = None,
    **others: Any,
) -> Cluster:
    """Create a cluster, or bring one back that exists; complete when it returns.

    Args:
        name: several clusters can run side by side.
        provider: embedded, kind or existing; by default that of the cluster if it exists, else
            $LABKIT_PROVIDER, else embedded.
        workers: how many workers; 2 by default. On `existing`, so many must be Ready.
        cpus, memory: of each worker, whole cores and a quantity; 2 and "4Gi" by default.
        images: kind only. registry (the official images), airgap (built here), or auto.
        context, kubeconfig, registry: existing only. The context and its file; where images are pushed.
        node_monitor_period_s, node_monitor_grace_s, eviction_after_s: how soon a lost node counts as such.
        hpa_sync_s, hpa_initial_readiness_s, hpa_cpu_initialization_s, metrics_s: the pace of autoscaling.
        listener: told of each phase; by default they are printed.
        others: none is known; ConfigError lists those that are.

    In a notebook, KUBECONFIG and PATH are set, so that `!kubectl` speaks to the cluster.

    Raises:
        ConfigError: a name or option cannot be, or the cluster exists with other options.
        MachineError, AcquireError, ClusterError, WaitTimeout: it cannot start; the hint says what to do.
    """
    named: dict[str, Any] = {
        "workers": workers, "cpus": cpus, "memory": memory, "images": images, "context": context,
        "kubeconfig": kubeconfig, "registry": registry, "node_monitor_period_s": node_monitor_period_s,
        "node_monitor_grace_s": node_monitor_grace_s, "eviction_after_s": eviction_after_s,
        "hpa_sync_s": hpa_sync_s, "hpa_initial_readiness_s": hpa_initial_readiness_s,
        "hpa_cpu_initialization_s": hpa_cpu_initialization_s, "metrics_s": metrics_s,
    }  # fmt: skip
    options = {key: value for key, value in {**named, **others}.items() if value is not None}
    made = provider_class(_provider_for(name, provider))
    with shown() if listener is None else nullcontext(listener) as told:
        cluster: Cluster = made.up(name, told, **options)
    _speak_to(cluster)
    return cluster


def _speak_to(cluster: Cluster) -> None:
    """In a notebook: let `!kubectl` and `!labkit` be ours, and speak to this cluster."""
    if "ipykernel" not in sys.modules:
        return
    os.environ |= {"KUBECONFIG": str(cluster.kubeconfig), **no_proxy(os.environ)}
    folders = os.environ.get("PATH", "").split(os.pathsep)
    for folder in (str(Path(sys.executable).parent), str(kubectl().parent)):
        if folder not in folders:
            folders.insert(0, folder)
    os.environ["PATH"] = os.pathsep.join(folders)


def status_of(name: str) -> ClusterStatus:
    """A cluster at this moment; one whose files cannot be read is damaged, and the status says why.

    Raises:
        ClusterError: there is none.
    """
    if not provider_of(name):
        return open_cluster(name).status()
    try:
        return open_cluster(name).status()
    except Exception as err:  # its files may be damaged in any way, and other clusters are to be shown
        why = str(err) if isinstance(err, LabkitError) else f"{type(err).__name__}: {err}"
        way = f"\n→ `labkit down {name}` removes it." if "labkit down" not in why else ""
        return ClusterStatus(
            name, provider_of(name), "damaged", "", Directory(name).path, reason=f"{why}{way}"
        )


def take_down(name: str) -> None:
    """End a cluster and remove all of it, also when its files cannot be read.

    Raises:
        ClusterError: there is none, or something of it does not end.
        MachineError: what it runs on does not answer.
    """
    there = provider_of(name)
    cluster: Cluster = provider_class(there)(name) if there else open_cluster(name)
    cluster.down()


def open_cluster(name: str, provider: str | None = None) -> Cluster:
    """A cluster that exists, running or not, of whichever provider.

    Raises:
        ClusterError: there is none.
        ConfigError: it is of another provider than the one that was asked for.
    """
    found = _provider_for(name, provider)
    cluster: Cluster = provider_class(found if provider_of(name) else provider or "embedded").open(name)
    return cluster


def cluster_at(server: str) -> Cluster | None:
    """The embedded or kind cluster of this user whose API server has that URL; None where there is none."""
    for name in cluster_names():
        if provider_of(name) in ("", "existing"):
            continue
        with suppress(LabkitError):  # one that is damaged is none
            cluster = open_cluster(name)
            if _server(cluster.kubeconfig) == server:
                return cluster
    return None


def _server(kubeconfig: Path) -> str:
    try:
        return str(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    except (OSError, yaml.YAMLError, LookupError, TypeError):
        return ""  # it has no API server yet, or any more
