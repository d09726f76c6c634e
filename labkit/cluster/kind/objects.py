"""The API objects that labkit adds to a new kind cluster, read from objects.yaml."""

from __future__ import annotations

import base64
from importlib.resources import files
from string import Template
from typing import Any

import yaml

from labkit.cluster.kind.state import KindOptions
from labkit.cluster.objects import MANUAL_GROUP
from labkit.cluster.pki import Authority

METRICS_NAMES = ("metrics-server.kube-system.svc", "metrics-server.kube-system.svc.cluster.local")


def added_objects(options: KindOptions, metrics_image: str) -> list[dict[str, Any]]:
    """The objects; metrics-server gets a certificate that an authority of its own has signed.

    Args:
        metrics_image: NAME:TAG, which the nodes have.
    """
    authority = Authority.create("metrics-server-ca")
    pair = authority.issue("metrics-server", server=True, names=METRICS_NAMES)
    values = {
        "manual_group": MANUAL_GROUP,
        "metrics_image": metrics_image,
        "metrics": options.metrics_s,
        "metrics_timeout": max(1, options.metrics_s // 2),
        "certificate": _b64(pair.certificate),
        "key": _b64(pair.key),
        "authority": _b64(authority.pair.certificate),
    }
    text = Template(files("labkit.cluster.kind").joinpath("objects.yaml").read_text()).substitute(values)
    return [obj for obj in yaml.safe_load_all(text) if obj]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
