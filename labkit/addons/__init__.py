"""Add-ons of a cluster, each one module: installed, waited for, asked and removed in the same way.

from labkit.addons.metallb import MetalLB

metallb = MetalLB(cluster)
metallb.install()
metallb.status()
"""

from __future__ import annotations

from labkit.addons.base import Addon, AddonStatus

__all__ = ["Addon", "AddonStatus"]
