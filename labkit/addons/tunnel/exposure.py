"""What of a cluster listens, and whether another machine could reach it."""

from __future__ import annotations

import json
import subprocess
from ipaddress import IPv6Address, ip_address

import pandas as pd
import psutil

from labkit.cluster import Cluster
from labkit.cluster.embedded import EmbeddedCluster
from labkit.cluster.existing import ExistingCluster
from labkit.cluster.kind.engine import CLUSTER_LABEL
from labkit.cluster.kind.state import KindDirectory
from labkit.cluster.processes import cluster_pids
from labkit.errors import ClusterError

COLUMNS = ["program", "address", "port", "others_reach_it"]


def listening(cluster: Cluster) -> pd.DataFrame:
    """Every TCP port that is open on this machine for a cluster.

    On the embedded provider these are the sockets of all its processes, pods included. On kind they are the
    ports that Docker publishes for its nodes; what listens inside of the nodes is in a network of their own.
    An existing cluster is one of these where it is on this machine.

    Returns:
        program, address, port, others_reach_it (whether the address is one that other machines can reach).

    Raises:
        ClusterError: it cannot be told for this provider.
    """
    here = cluster.underlying()
    if isinstance(here, EmbeddedCluster):
        rows = _own_sockets(here)
    elif isinstance(here, ExistingCluster) and here.their_kind is not None:
        rows = _published(here.their_kind.name)
    elif here.provider == "kind":
        rows = _published(KindDirectory(here.name).kind_name)
    else:
        raise ClusterError(
            f"What a cluster of provider {here.provider!r} opens is not known here.",
            "It can be told of clusters on this machine.",
        )
    plain = [(program, _plain(address), port) for program, address, port in rows]
    frame = pd.DataFrame(plain, columns=["program", "address", "port"]).drop_duplicates()
    frame["others_reach_it"] = [not ip_address(address).is_loopback for address in frame["address"]]
    return frame.sort_values(["program", "address", "port"], ignore_index=True)[COLUMNS]


def summary(sockets: pd.DataFrame) -> str:
    """One sentence about `listening`."""
    beyond = int(sockets["others_reach_it"].sum())
    said = "none of them on an address" if not beyond else f"{beyond} of them on addresses"
    return f"{len(sockets)} ports are open for the cluster, {said} that another machine could reach."


def _plain(address: str) -> str:
    """An address as it is: IPv4 also where a program has it in IPv6's form, ::ffff:127.0.0.1."""
    found = ip_address(address)
    return str(found.ipv4_mapped or found) if isinstance(found, IPv6Address) else address


def _own_sockets(cluster: EmbeddedCluster) -> list[tuple[str, str, int]]:
    rows = []
    for pid in cluster_pids(cluster.directory):
        try:
            process = psutil.Process(pid)
            open_sockets = process.net_connections(kind="tcp")
            rows += [
                (process.name(), each.laddr.ip, each.laddr.port)
                for each in open_sockets
                if each.status == psutil.CONN_LISTEN
            ]
        except psutil.Error:
            continue  # it has just ended
    return rows


def _published(kind_name: str) -> list[tuple[str, str, int]]:
    argv = ["docker", "ps", "--quiet", "--filter", f"label={CLUSTER_LABEL}={kind_name}"]
    ids = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout.split()
    if not ids:
        raise ClusterError(f"Docker knows no nodes of the kind cluster {kind_name!r}.")
    done = subprocess.run(
        ["docker", "inspect", *ids], capture_output=True, text=True, timeout=30, check=False
    )
    rows = []
    for node in json.loads(done.stdout):
        for bindings in (node["NetworkSettings"]["Ports"] or {}).values():
            name = node["Name"].lstrip("/")
            rows += [(name, each["HostIp"] or "0.0.0.0", int(each["HostPort"])) for each in bindings or []]
    return rows
