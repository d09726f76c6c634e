"""Files of the checkout that add-ons use: what students read and change is not hidden in the package."""

from __future__ import annotations

from pathlib import Path

from labkit.cluster import Cluster
from labkit.errors import ConfigError

_ROOT = Path(__file__).resolve().parents[2]


def checkout(*parts: str) -> Path:
    """A folder or file of the repository that labkit is part of, such as ("manifests", "argocd").

    Raises:
        ConfigError: labkit was installed without it.
    """
    path = _ROOT.joinpath(*parts)
    if not path.exists():
        raise ConfigError(
            f"{Path(*parts)} is not in {_ROOT}.",
            "Labs need a checkout of labkit's repository, not only its wheel.",
        )
    return path


def workspace(cluster: Cluster, name: str) -> Path:
    """A private folder beside a cluster's kubeconfig, which goes when the cluster goes."""
    folder = cluster.kubeconfig.parent / "addons" / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
