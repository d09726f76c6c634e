"""What a certificate request asks for, and whether a node may have it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from labkit.kube import Object, dig

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
NODE, NODES = "system:node:", "system:nodes"
_USAGES = {"client auth", "digital signature", "key encipherment"}


@dataclass(frozen=True)
class Asked:
    """A certificate request in short.

    Attributes:
        name: of the CertificateSigningRequest.
        common_name, groups: who the bearer of the certificate would be.
        signer: who is to sign it.
        usages: what the certificate would be good for.
    """

    name: str
    common_name: str
    groups: tuple[str, ...]
    signer: str
    usages: tuple[str, ...]

    def __str__(self) -> str:
        groups = ", ".join(self.groups) or "none"
        return f"{self.name}: user {self.common_name or 'nobody'}, groups {groups}, signed by {self.signer}"

    @property
    def too_much(self) -> str:
        """What it asks for that a joining node must not have; "" where it asks for no more than that."""
        if not self.common_name.startswith(NODE) or self.common_name == NODE:
            return f"the user {self.common_name or '(none)'} is no node"
        if self.groups != (NODES,):
            return f"the groups {', '.join(self.groups) or '(none)'} are not {NODES} alone"
        if self.signer != CLIENT_SIGNER:
            return f"the signer {self.signer} is not the one for kubelets"
        if more := sorted(set(self.usages) - _USAGES):
            return f"the usages {', '.join(more)} are not those of a client"
        return ""


def asked(request: Object) -> Asked:
    """What a CertificateSigningRequest asks for; one that cannot be read asks in nobody's name."""
    try:
        subject = x509.load_pem_x509_csr(base64.b64decode(dig(request, "spec.request", ""))).subject
    except (ValueError, binascii.Error):
        subject = x509.Name([])
    names, groups = (
        [str(each.value) for each in subject.get_attributes_for_oid(kind)]
        for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    )
    return Asked(
        name=dig(request, "metadata.name", ""),
        common_name=names[0] if names else "",
        groups=tuple(groups),
        signer=dig(request, "spec.signerName", ""),
        usages=tuple(dig(request, "spec.usages", [])),
    )


def state_of(request: Object) -> str:
    """waiting, approved, issued or denied."""
    kinds = {entry["type"] for entry in dig(request, "status.conditions", [])}
    if kinds & {"Denied", "Failed"}:
        return "denied"
    if dig(request, "status.certificate"):
        return "issued"
    return "approved" if "Approved" in kinds else "waiting"
