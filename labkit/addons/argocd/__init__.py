"""Argo CD: it keeps the cluster as a git repository says.

from labkit.addons.argocd import ArgoCD

argocd = ArgoCD(cluster)
argocd.install()
shop = argocd.application("shop")
shop.wait(revision)
"""

from __future__ import annotations

from labkit.addons.argocd.application import Application, AppStatus
from labkit.addons.argocd.delivery import Delivery, chain, deliveries_frame
from labkit.addons.argocd.install import ArgoCD

__all__ = ["AppStatus", "Application", "ArgoCD", "Delivery", "chain", "deliveries_frame"]
