"""What checks decide without a cluster: certificate requests and placement."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from labkit.checks.judging.placement import kept_out_by, tolerates, wants
from labkit.checks.judging.requests import CLIENT_SIGNER, asked, state_of

KEY = ec.generate_private_key(ec.SECP256R1())


def request(user: str, groups: tuple[str, ...] = ("system:nodes",), signer: str = CLIENT_SIGNER, **spec: Any):
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    name = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])
    pem = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(KEY, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    usages = ["digital signature", "client auth"]
    facts = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": usages, **spec}
    return {"metadata": {"name": "csr-1"}, "spec": facts}


# Certificate requests.


def test_a_kubelets_request_asks_for_no_more_than_a_node_may():
    wish = asked(request("system:node:worker-3"))
    assert wish.too_much == "" and wish.common_name == "system:node:worker-3"
    assert asked(request("system:node:worker-3", usages=["client auth", "key encipherment"])).too_much == ""


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (request("kubernetes-admin", ("kubeadm:cluster-admins",)), "no node"),
        (request("system:node:"), "no node"),
        (request("system:node:worker-3", ("system:nodes", "system:masters")), "system:masters"),
        (request("system:node:worker-3", ()), "(none)"),
        (request("system:node:worker-3", signer="kubernetes.io/kube-apiserver-client"), "signer"),
        (request("system:node:worker-3", usages=["client auth", "server auth"]), "server auth"),
        ({"metadata": {"name": "x"}, "spec": {"request": "bm90IGEgcmVxdWVzdA=="}}, "no node"),
        ({"metadata": {"name": "x"}, "spec": {"request": "%%%"}}, "no node"),
    ],
)
def test_whoever_asks_for_more_is_seen(wish: dict[str, Any], why: str):
    assert why in asked(wish).too_much


def test_states_of_requests():
    conditions = {
        "Approved": [{"type": "Approved"}],
        "Denied": [{"type": "Denied"}],
        "Failed": [{"type": "Failed"}],
    }
    assert state_of({}) == "waiting"
    assert state_of({"status": {"conditions": conditions["Approved"]}}) == "approved"
    assert state_of({"status": {"conditions": conditions["Approved"], "certificate": "x"}}) == "issued"
    assert state_of({"status": {"conditions": conditions["Denied"]}}) == "denied"
    assert state_of({"status": {"conditions": conditions["Failed"]}}) == "denied"


# Placement.

NODE = {
    "metadata": {"name": "worker-4", "labels": {"disk": "ssd", "cores": "8"}},
    "spec": {"taints": [{"key": "dedicated", "value": "reports", "effect": "NoSchedule"}]},
}


def pod(*tolerations: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"tolerations": list(tolerations), **spec}}


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "dedicated", "value": "reports", "effect": "NoSchedule"}, True),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "dedicated", "operator": "Equal", "value": "reports"}, True),
        ({"key": "dedicated", "value": "report", "effect": "NoSchedule"}, False),
        ({"key": "dedicated", "value": "reports", "effect": "NoExecute"}, False),
        ({"key": "dedicate", "operator": "Exists"}, False),
        ({"value": "reports"}, False),
    ],
)
def test_tolerations_fit_in_key_value_and_effect(toleration: dict[str, str], fits: bool):
    assert tolerates(pod(toleration), NODE["spec"]["taints"][0]) is fits
    assert kept_out_by(pod(toleration), NODE) == ([] if fits else ["dedicated=reports:NoSchedule"])


def affinity(**expression: Any) -> dict[str, Any]:
    term = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}})


@pytest.mark.parametrize(
    ("one", "fits"),
    [
        (pod(), True),
        (pod(nodeSelector={"disk": "ssd"}), True),
        (pod(nodeSelector={"disk": "SSD"}), False),
        (affinity(key="disk", operator="In", values=["ssd", "nvme"]), True),
        (affinity(key="disk", operator="NotIn", values=["ssd"]), False),
        (affinity(key="disk", operator="Exists"), True),
        (affinity(key="gpu", operator="DoesNotExist"), True),
        (affinity(key="cores", operator="Gt", values=["4"]), True),
        (affinity(key="cores", operator="Lt", values=["4"]), False),
        (affinity(key="disk", operator="Gt", values=["4"]), False),
    ],
)
def test_a_pod_wants_a_node_by_selector_or_affinity(one: dict[str, Any], fits: bool):
    assert wants(one, NODE) is fits


def test_a_node_is_wanted_by_its_name_and_an_empty_term_wants_none():
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    field = {"key": "metadata.name", "operator": "In", "values": ["worker-4"]}
    for term, fits in (({"matchFields": [field]}, True), ({}, False)):
        one = pod(affinity={"nodeAffinity": {required: {"nodeSelectorTerms": [term]}}})
        assert wants(one, NODE) is fits
