"""Checks of lab 01: build the cluster."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import NameOID

from labkit.checks.core import Finding, expect
from labkit.checks.objects import ready, running_pods
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.kube import Object, dig

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"


@define("01-request-waits", "The machine has asked for a certificate, and waits", deadline_s=20)
def request_waits(cluster: Cluster, node: str) -> Iterator[Finding]:
    """A bootstrap token has asked for the node's client certificate; nobody has approved; no Node exists."""
    mine = _requests(cluster, node)
    said = ", ".join(f"{dig(one, 'metadata.name')} is {_state(one)}" for one in mine) or "there is none"
    yield expect(bool(mine), f"a certificate was asked for in the name of {node}", f"such requests: {said}")
    waiting = [one for one in mine if _state(one) == "waiting"]
    yield expect(bool(waiting), "it waits for approval", f"such requests: {said}")
    known = cluster.kube.find("Node", node)
    yield expect(known is None, f"there is no Node {node} yet", f"the API knows a Node {node} already")


@define("01-third-worker-ready", "The third worker is Ready", deadline_s=40)
def third_worker_ready(cluster: Cluster) -> Iterator[Finding]:
    """Three workers are Ready, and worker-3 got its certificate by the token's way."""
    nodes = {node.name: node.ready for node in cluster.workers()}
    there = "worker-3" in nodes
    yield expect(there, "there is a Node worker-3", f"the API knows {', '.join(nodes) or 'no node'}")
    states = ", ".join(f"{name} Ready={state}" for name, state in nodes.items())
    yield expect(nodes.get("worker-3") == "True", "worker-3 is Ready", f"now: {states}")
    yield expect(list(nodes.values()).count("True") >= 3, "three workers are Ready", f"now: {states}")
    states = ", ".join(_state(one) for one in _requests(cluster, "worker-3")) or "missing"
    yield expect("issued" in states, "its certificate was asked for and issued", f"its request is {states}")


@define("01-intruder-refused", "The intruder did not become a node", deadline_s=10)
def intruder_refused(cluster: Cluster, node: str) -> Iterator[Finding]:
    """Its certificate request was denied, and there is no Node of its name."""
    states = ", ".join(_state(one) for one in _requests(cluster, node)) or "missing"
    yield expect(states == "denied", f"the request in the name of {node} was denied", f"it is {states}")
    known = cluster.kube.find("Node", node)
    yield expect(known is None, f"there is no Node {node}", f"the API knows a Node {node}")


@define("01-drained", "Everything runs, and nothing of it on worker-3", deadline_s=60)
def drained(cluster: Cluster, labels: str, replicas: int) -> Iterator[Finding]:
    """worker-3 takes no pods; all replicas are Ready on other nodes."""
    node = cluster.kube.find("Node", "worker-3")
    cordoned = bool(node and dig(node, "spec.unschedulable", False))
    yield expect(cordoned, "worker-3 takes no new pods", "the scheduler may still choose it")
    pods = running_pods(cluster, labels)
    there = [dig(pod, "metadata.name") for pod in pods if dig(pod, "spec.nodeName") == "worker-3"]
    yield expect(not there, "no pod of the Deployment is on worker-3", f"still there: {', '.join(there)}")
    good = sum(ready(pod) for pod in pods)
    yield expect(good == replicas, f"{replicas} pods are Ready elsewhere", f"Ready are {good} of {len(pods)}")


@define("01-cleaned-up", "Two workers again, nothing else left", deadline_s=40)
def cleaned_up(cluster: Cluster) -> Iterator[Finding]:
    """Only the first two workers are there; the Deployment is gone."""
    names = [node.name for node in cluster.workers()]
    yield expect(
        names == ["worker-1", "worker-2"], "the workers are worker-1 and worker-2", f"there are: {names}"
    )
    gone = cluster.kube.find("Deployment", "hello") is None
    yield expect(gone, "there is no Deployment hello", "the Deployment hello is still there")


def _requests(cluster: Cluster, node: str) -> list[Object]:
    """Requests that a bootstrap token made for a kubelet's client certificate in the name of a node."""
    found = cluster.kube.list("CertificateSigningRequest", fields=f"spec.signerName={CLIENT_SIGNER}")
    asked = [one for one in found if str(dig(one, "spec.username", "")).startswith("system:bootstrap:")]
    return [one for one in asked if _name_in(one) == f"system:node:{node}"]


def _name_in(request: Object) -> str:
    """The common name that a request asks for."""
    parsed = x509.load_pem_x509_csr(base64.b64decode(dig(request, "spec.request", "")))
    names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _state(request: Object) -> str:
    """waiting, approved, issued or denied."""
    kinds = {entry["type"] for entry in dig(request, "status.conditions", [])}
    if kinds & {"Denied", "Failed"}:
        return "denied"
    if dig(request, "status.certificate"):
        return "issued"
    return "approved" if "Approved" in kinds else "waiting"
