"""A kubeconfig for the pipeline, which may change the namespace shop and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from labkit.addons.files import checkout
from labkit.cluster import Cluster
from labkit.errors import PipelineError

NAMESPACE, ACCOUNT = "shop", "pipeline"
_VALID_S = 4 * 3600


def manifest() -> Path:
    """Service account and permissions."""
    return checkout("manifests", "gitops", "pipeline-access.yaml")


def write_kubeconfig(cluster: Cluster, file: Path) -> None:
    """Make service account and permissions, and write a kubeconfig with a token that ends after four hours.

    Raises:
        KubeError: the API server refuses it.
        PipelineError: the cluster's own kubeconfig cannot be understood.
    """
    cluster.kubectl("apply", "-f", str(checkout("manifests", "shop", "base", "namespace.yaml")))
    cluster.kube.apply(manifest())
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
    asked = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": _VALID_S},
    }
    token = cluster.kube.request("POST", path, body=asked)["status"]["token"]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": ACCOUNT,
        "clusters": [{"name": "cluster", "cluster": _server(cluster.kubeconfig)}],
        "users": [{"name": ACCOUNT, "user": {"token": token}}],
        "contexts": [
            {"name": ACCOUNT, "context": {"cluster": "cluster", "user": ACCOUNT, "namespace": NAMESPACE}}
        ],
    }
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(config))


def _server(kubeconfig: Path) -> dict[str, Any]:
    """Address and certificate authority of the cluster that a kubeconfig's context names."""
    config = yaml.safe_load(kubeconfig.read_text())
    contexts = {each["name"]: each["context"] for each in config.get("contexts", [])}
    clusters = {each["name"]: each["cluster"] for each in config.get("clusters", [])}
    try:
        found: dict[str, Any] = clusters[contexts[config["current-context"]]["cluster"]]
    except KeyError as err:
        raise PipelineError(f"{kubeconfig} names no cluster: {err} is missing.") from err
    return found
