"""A request of somebody who has a bootstrap token and wants more than a node may have."""

from __future__ import annotations

import base64
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from labkit.cluster import Cluster
from labkit.cluster.join import Token
from labkit.cluster.objects import MANUAL_GROUP

NAME = "node-csr-Qm7rT2xKc0VbYd8LzWgHn5sPaJ4uEoFi1kRvXt9MqCw"
"""Looks like the names that kubelets give to their requests."""
USER, GROUP = "kubernetes-admin", "kubeadm:cluster-admins"
SIGNER = "kubernetes.io/kube-apiserver-client"


def ask_for_more(cluster: Cluster) -> str:
    """Ask for an administrator's certificate with a bootstrap token, as whoever finds one may.

    An earlier request of that kind is replaced, whatever was answered to it. Nobody keeps the key.

    Returns:
        The request's name.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, GROUP), x509.NameAttribute(NameOID.COMMON_NAME, USER)]
    )
    pem = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    request = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": NAME},
        "spec": {
            "request": base64.b64encode(pem.public_bytes(Encoding.PEM)).decode(),
            "signerName": SIGNER,
            "usages": ["digital signature", "client auth"],
        },
    }
    cluster.kubectl("delete", "csr", NAME, "--ignore-not-found")
    groups = ("system:bootstrappers", MANUAL_GROUP, "system:authenticated")
    bearer = [
        f"--as=system:bootstrap:{Token.random().id}",
        *(f"--as-group={group}" for group in groups),
    ]
    cluster.kubectl("create", "-f", "-", *bearer, input=json.dumps(request))
    return NAME
