"""Cloudflare Tunnel: access from outside with no open port, and its rehearsal where there is no internet.

from labkit.addons.tunnel import Tunnel, match_rule, validate_ingress

tunnel = Tunnel(cluster, "manifests/tunnel")
tunnel.install()
tunnel.route("https://shop.example.com/")
"""

from __future__ import annotations

from labkit.addons.tunnel.credentials import Credentials
from labkit.addons.tunnel.exposure import listening, summary
from labkit.addons.tunnel.ingress import IngressError, match_rule, validate_ingress
from labkit.addons.tunnel.mode import Choice, choose
from labkit.addons.tunnel.rehearsal import Edge, EdgeError
from labkit.addons.tunnel.rotation import Rotation, rotate
from labkit.addons.tunnel.tunnel import Tunnel, read_config

__all__ = [
    "Choice",
    "Credentials",
    "Edge",
    "EdgeError",
    "IngressError",
    "Rotation",
    "Tunnel",
    "choose",
    "listening",
    "match_rule",
    "read_config",
    "rotate",
    "summary",
    "validate_ingress",
]
