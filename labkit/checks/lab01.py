"""Checks of lab 01: build the cluster."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.checks.core import Finding, expect
from labkit.checks.judging.placement import kept_out_by, tolerates, wants
from labkit.checks.judging.requests import CLIENT_SIGNER, NODE, asked, state_of
from labkit.checks.objects import container_state, ready, running_pods, seen
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.errors import ClusterError
from labkit.kube import Object, dig
from labkit.labs.orders import SAYS, Order


@define("01-request-waits", "The machine has asked for a certificate, and waits", deadline_s=20)
def request_waits(cluster: Cluster, node: str) -> Iterator[Finding]:
    """A bootstrap token has asked for the node's client certificate; nobody has approved; no Node exists."""
    mine = _requests(cluster, node)
    said = ", ".join(f"{dig(one, 'metadata.name')} is {state_of(one)}" for one in mine) or "there is none"
    yield expect(bool(mine), f"a certificate was asked for in the name of {node}", f"such requests: {said}")
    waiting = [one for one in mine if state_of(one) == "waiting"]
    yield expect(bool(waiting), "it waits for approval", f"such requests: {said}")
    known = cluster.kube.find("Node", node)
    yield expect(known is None, f"there is no Node {node} yet", f"the API knows a Node {node} already")


@define("01-requests", "The third worker is in, the stranger is out", deadline_s=60)
def requests(cluster: Cluster, node: str, *answers: object) -> Iterator[Finding]:
    """The node's own request has a yes, and it joined; whoever asks for more than a node may has a no."""
    del answers
    mine = _requests(cluster, node)
    yield expect(bool(mine), f"{node} has asked for its certificate", "there is no such request", "waiting")
    if not mine:
        return
    state, name = state_of(mine[-1]), asked(mine[-1]).name
    yield expect(state != "denied", f"nobody sent {node} away", f"{name} is {state}", "denied-right")
    others = [one for one in _by_tokens(cluster) if asked(one).too_much]
    for one in others:
        wish, answer = asked(one), state_of(one)
        given = answer in ("approved", "issued")
        said = f"it is {answer}; {wish.too_much}"
        yield expect(not given, f"{wish.name} got nothing", said, "too-much")
        yield expect(given or answer == "denied", f"{wish.name} is answered", said, "waiting")
    yield expect(bool(others), "the other request is still there", "somebody has deleted it", "deleted")
    good = state in ("approved", "issued")
    yield expect(good or state == "denied", f"{node}'s request is answered", f"{name} is {state}", "waiting")
    yield from _third_worker_ready(cluster)


@define("01-token-refused", "The worker was refused: its token has expired", deadline_s=10)
def token_refused(cluster: Cluster, node: str, token_id: str) -> Iterator[Finding]:
    """The worker was told of a missing signature; the token is gone; there is no Node."""
    yield from _refused(cluster, node, token_id, SAYS["token"])
    secret = cluster.kube.find("Secret", f"bootstrap-token-{token_id}", namespace="kube-system")
    yield expect(secret is None, "the cluster has forgotten the token", "its Secret is still there")


@define("01-order-refused", "The worker could not join by its order", deadline_s=10)
def order_refused(cluster: Cluster, node: str, order: Order) -> Iterator[Finding]:
    """The words that it was told are those of the order's fault; there is no Node."""
    yield from _refused(cluster, node, order.token_id, SAYS[order.fault])


@define("01-join", "You know what was wrong, and the worker has joined", deadline_s=40)
def join(cluster: Cluster, node: str, order: Order, cause: object) -> Iterator[Finding]:
    """The cause is the one that was drawn; the node is Ready."""
    right = str(cause).strip().lower() == order.fault
    words = f'you said {cause!r}; the worker was told "… {SAYS[order.fault]} …"'
    yield expect(right, "you name what was wrong", words, order.fault)
    nodes = {each.name: each.ready for each in cluster.nodes()}
    said = f"now: {', '.join(f'{name} Ready={state}' for name, state in nodes.items())}"
    yield expect(nodes.get(node) == "True", f"{node} has joined and is Ready", said, "not-joined")


@define("01-intruder-refused", "The intruder did not become a node", deadline_s=10)
def intruder_refused(cluster: Cluster, node: str) -> Iterator[Finding]:
    """Its certificate request was denied, and there is no Node of its name."""
    states = ", ".join(state_of(one) for one in _requests(cluster, node)) or "missing"
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


@define("01-reserved", "The pod runs on its node, and could run on no other", deadline_s=40)
def reserved(cluster: Cluster, pod: str, node: str) -> Iterator[Finding]:
    """The pod tolerates the node's taint, asks for what only that node has, and runs there."""
    found = cluster.kube.find("Pod", pod)
    nodes = {dig(each, "metadata.name"): each for each in cluster.kube.list("Node")}
    yield expect(found is not None, f"there is a pod {pod}", seen(cluster, "Pod"), "missing")
    yield expect(node in nodes, f"there is a node {node}", f"there are: {', '.join(nodes)}", "missing")
    if found is None or node not in nodes:
        return
    own = [t for t in dig(nodes[node], "spec.taints", []) if not t["key"].startswith("node.kubernetes.io/")]
    yield expect(bool(own), f"{node} is tainted", "it has no taint of yours any more", "missing")
    out = ", ".join(kept_out_by(found, nodes[node]))
    kept = all(tolerates(found, taint) for taint in own)
    yield expect(kept, f"it tolerates the taint of {node}", f"it is kept out by {out}", "toleration")
    fit = sorted(name for name, each in nodes.items() if wants(found, each))
    asks = f"what it asks for, these nodes have: {', '.join(fit) or 'none'}"
    yield expect(node in fit, f"it accepts {node}", asks, "nowhere")
    yield expect(fit in ([node], []), "it accepts no other node", asks, "elsewhere")
    where = dig(found, "spec.nodeName", "no node")
    said = f"it is on {where}: {cluster.kube.explain(found) or container_state(found)}"
    yield expect(where == node and ready(found), f"it runs on {node}", said, "not-running")


@define("01-cleaned-up", "Two workers again, nothing else left", deadline_s=40)
def cleaned_up(cluster: Cluster) -> Iterator[Finding]:
    """Only the first two workers are there; the Deployment is gone."""
    names = [node.name for node in cluster.workers()]
    yield expect(
        names == ["worker-1", "worker-2"], "the workers are worker-1 and worker-2", f"there are: {names}"
    )
    for kind, name in (("Deployment", "hello"), ("Pod", "report")):
        gone = cluster.kube.find(kind, name) is None
        yield expect(gone, f"there is no {kind} {name}", f"the {kind} {name} is still there")


def _third_worker_ready(cluster: Cluster) -> Iterator[Finding]:
    """Three workers are Ready, and worker-3 got its certificate by the token's way."""
    nodes = {node.name: node.ready for node in cluster.workers()}
    there = "worker-3" in nodes
    yield expect(there, "there is a Node worker-3", f"the API knows {', '.join(nodes) or 'no node'}")
    states = ", ".join(f"{name} Ready={state}" for name, state in nodes.items())
    yield expect(nodes.get("worker-3") == "True", "worker-3 is Ready", f"now: {states}")
    yield expect(list(nodes.values()).count("True") >= 3, "three workers are Ready", f"now: {states}")
    states = ", ".join(state_of(one) for one in _requests(cluster, "worker-3")) or "missing"
    yield expect("issued" in states, "its certificate was asked for and issued", f"its request is {states}")


def _requests(cluster: Cluster, node: str) -> list[Object]:
    """Requests that a bootstrap token made for a kubelet's client certificate in the name of a node."""
    mine = [one for one in _by_tokens(cluster) if asked(one).common_name == f"{NODE}{node}"]
    return [one for one in mine if dig(one, "spec.signerName") == CLIENT_SIGNER]


def _by_tokens(cluster: Cluster) -> list[Object]:
    """All requests that bearers of bootstrap tokens made, oldest first."""
    found = cluster.kube.list("CertificateSigningRequest")
    sent = [one for one in found if str(dig(one, "spec.username", "")).startswith("system:bootstrap:")]
    return sorted(sent, key=lambda one: str(dig(one, "metadata.creationTimestamp", "")))


def _refused(cluster: Cluster, node: str, token_id: str, words: str) -> Iterator[Finding]:
    """What a worker was told since it last tried this token on has these words; there is no Node."""
    known = cluster.kube.find("Node", node)
    yield expect(known is None, f"there is no Node {node}", f"the API knows a Node {node}")
    try:
        _, tried, after = cluster.kubelet_log(node, 500).rpartition(f'"{token_id}"')
    except ClusterError as error:
        yield expect(False, f"{node} has tried to join", error.message)
        return
    yield expect(bool(tried), f"{node} has tried to join with token {token_id}", "its log does not name it")
    last = cluster.kubelet_log(node, 1)
    yield expect(words in after or words in last, f"it was told: {words}", f"its last words: {last[-200:]}")
