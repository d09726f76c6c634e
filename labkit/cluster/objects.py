"""The API objects of a new cluster: read from objects.yaml, applied all at once."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable
from functools import partial
from importlib.resources import files
from string import Template
from typing import Any

import yaml

from labkit.cluster.addresses import Slot
from labkit.cluster.background import Background
from labkit.cluster.credentials import server_url
from labkit.cluster.state import Directory
from labkit.errors import KubeError
from labkit.kube import Kube

JOIN_GROUP = "system:bootstrappers:kubeadm:default-node-token"
"""Group of bootstrap tokens whose requests the controller manager approves."""
MANUAL_GROUP = "system:bootstrappers:labkit:manual-approval"
"""Group of bootstrap tokens whose requests wait for `kubectl certificate approve`."""

_PLURALS = {"APIService": "apiservices", "StorageClass": "storageclasses"}
_APPLY = "application/apply-patch+yaml"
_THREADS = 6


def cluster_objects(directory: Directory, slot: Slot) -> list[dict[str, Any]]:
    """The objects, with this cluster's addresses and authority."""
    values = {
        "server": server_url(slot),
        "ca": base64.b64encode((directory / "pki/ca.crt").read_bytes()).decode(),
        "dns": str(slot.dns),
        "metrics_address": str(slot.metrics_server),
        "join_group": JOIN_GROUP,
        "manual_group": MANUAL_GROUP,
    }
    text = Template(files("labkit.cluster").joinpath("objects.yaml").read_text()).substitute(values)
    return [obj for obj in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if obj]


def is_for_joining(obj: dict[str, Any]) -> bool:
    """Whether workers need it to join; named as kubeadm names what its phase bootstrap-token makes."""
    name = str(obj["metadata"]["name"])
    return name.startswith("kubeadm:") or name == "cluster-info"


def apply_all(kube: Kube, objects: Iterable[dict[str, Any]], limit_s: float = 30.0) -> int:
    """Server-side apply, without discovery. Repeats what a starting API server cannot do yet.

    Raises:
        KubeError: an object was refused until the end.
    """
    deadline, todo = time.monotonic() + limit_s, list(objects)

    def some(first: int) -> None:
        for obj in todo[first::_THREADS]:
            _apply(kube, obj, deadline)

    Background([partial(some, first) for first in range(_THREADS)]).wait()
    return len(todo)


def _apply(kube: Kube, obj: dict[str, Any], deadline: float) -> None:
    query = {"fieldManager": "labkit", "force": "true", "fieldValidation": "Strict"}
    while True:
        try:
            kube.request("PATCH", path_of(obj), body=obj, query=query, content_type=_APPLY)
            return
        except KubeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def path_of(obj: dict[str, Any]) -> str:
    """The object's path in the API, for the kinds of objects.yaml and bootstrap tokens."""
    version, meta = obj["apiVersion"], obj["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    space = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
    plural = _PLURALS.get(obj["kind"], obj["kind"].lower() + "s")
    return f"{root}{space}/{plural}/{meta['name']}"
