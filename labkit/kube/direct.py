"""What is reached without a proxy: a cluster's own addresses lie on this machine, where no proxy leads.

The usual NO_PROXY names localhost and 127.0.0.1, but neither 127.18.0.1 nor a pod's 198.18.1.2.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

NETWORKS = ("127.0.0.0/8", "198.18.0.0/15", "::1")
"""This machine, and the addresses of pods and nodes of embedded clusters."""
_NAMES = ("localhost", ".svc", ".cluster.local")


def is_own(url: str) -> bool:
    """Whether a URL leads to this machine or to a pod on it."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        address = ip_address(host)
        return any(address in ip_network(each) for each in NETWORKS)
    return f".{host}".endswith((".localhost", *_NAMES))


def is_near(url: str) -> bool:
    """Whether a URL leads to this machine or to a private address, as those of kind's nodes are."""
    with suppress(ValueError):
        return not ip_address(urlsplit(url).hostname or "").is_global
    return is_own(url)


def opener(url: str) -> urllib.request.OpenerDirector:
    """What opens a URL: directly where it is near, else by the user's proxy if there is one."""
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_near(url) else []))


def without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for programs that only speak with the cluster."""
    return {name: value for name, value in environment.items() if not name.upper().endswith("_PROXY")}


def no_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep a program's traffic to clusters off the proxy, for one that uses both.

    Returns:
        NO_PROXY in both spellings, nothing where no proxy is set.
    """
    if not any(name.upper().endswith("_PROXY") and value for name, value in environment.items()):
        return {}
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    known = [part.strip() for part in given.split(",") if part.strip()]
    both = ",".join([*known, *(each for each in (*_NAMES, *NETWORKS) if each not in known)])
    return {"no_proxy": both, "NO_PROXY": both}
