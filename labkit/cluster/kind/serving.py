"""The kubelets' serving certificates: kubelets ask for them, and here they are looked at and approved.

Kubernetes signs them but leaves approval to the administrator, who alone knows which addresses a node has
(https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#certificate-rotation).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from labkit.kube import Kube, dig

SIGNER = "kubernetes.io/kubelet-serving"
_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def approve_serving(kube: Kube, nodes: Mapping[str, set[str]], limit_s: float = 30.0) -> set[str]:
    """Approve what the nodes' kubelets ask for, until each has a certificate for its present addresses.

    Args:
        nodes: node → the names and addresses that it may have in its certificate.

    Returns:
        Nodes whose request has not come within the limit; their certificates may still be good.
    """
    deadline, left = time.monotonic() + limit_s, set(nodes)
    while True:
        for request in pending(kube):
            node = str(dig(request, "spec.username", "")).removeprefix("system:node:")
            if node in nodes and not refusal(request, node, nodes[node]):
                approve(kube, request)
                left.discard(node)
        left -= certified(kube, nodes) if left else set()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.25)


def pending(kube: Kube) -> list[dict[str, Any]]:
    """Requests for serving certificates that nobody has answered."""
    found = kube.request("GET", _REQUESTS, query={"fieldSelector": f"spec.signerName={SIGNER}"})["items"]
    return [request for request in found if not dig(request, "status.conditions", [])]


def certified(kube: Kube, nodes: Mapping[str, set[str]]) -> set[str]:
    """Nodes that were given a certificate for one of their present addresses."""
    found = kube.request("GET", _REQUESTS, query={"fieldSelector": f"spec.signerName={SIGNER}"})["items"]
    good = set()
    for request in found:
        node = str(dig(request, "spec.username", "")).removeprefix("system:node:")
        if node in nodes and dig(request, "status.certificate"):
            names = _asked(request)[1]
            if names & {each for each in nodes[node] if each != node} and names <= nodes[node]:
                good.add(node)
    return good


def refusal(request: dict[str, Any], node: str, allowed: set[str]) -> str:
    """Why a request must not be approved, "" where it may.

    Args:
        allowed: names and addresses of the node.
    """
    if dig(request, "spec.signerName") != SIGNER:
        return "it is for another purpose"
    if dig(request, "spec.username") != f"system:node:{node}":
        return f"it was made by {dig(request, 'spec.username')}"
    if "system:nodes" not in dig(request, "spec.groups", []):
        return "who made it is not a node"
    subject, names = _asked(request)
    if subject != f"system:node:{node}":
        return f"it is for {subject}"
    if not names or not names <= allowed:
        return f"it names {', '.join(sorted(names - allowed)) or 'nothing'}"
    return ""


def _asked(request: dict[str, Any]) -> tuple[str, set[str]]:
    """Common name, and all alternative names and addresses."""
    parsed = x509.load_pem_x509_csr(base64.b64decode(dig(request, "spec.request", "")))
    common = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return str(common[0].value) if common else "", set()
    names = set(extension.get_values_for_type(x509.DNSName))
    names |= {str(address) for address in extension.get_values_for_type(x509.IPAddress)}
    return str(common[0].value) if common else "", names


def approve(kube: Kube, request: dict[str, Any]) -> None:
    """Approve one request."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": "Approved", "status": "True", "reason": "LabkitApprove", "lastUpdateTime": now,
        "message": "names and addresses are those of the node's container",
    }  # fmt: skip
    body = {**request, "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    body["status"] = {**(request.get("status") or {}), "conditions": [condition]}
    kube.request("PUT", f"{_REQUESTS}/{request['metadata']['name']}/approval", body=body)
