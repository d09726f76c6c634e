"""Checks of lab 02: keep workers alive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labkit.checks.core import Finding, expect
from labkit.checks.objects import container_state, ready, running_pods, seen
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.errors import ClusterError, KubeError
from labkit.kube import Kube, Object, dig
from labkit.record import Recorder

ILL = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
PRESSURE = "node.kubernetes.io/memory-pressure"


@define("02-token-refused", "The worker was refused: its token has expired", deadline_s=10)
def token_refused(cluster: Cluster, node: str, token_id: str) -> Iterator[Finding]:
    """The worker's log tells of the signature that is missing; the token is gone; there is no Node."""
    yield from _refused(cluster, node, token_id, "could not find a JWS signature")
    secret = cluster.kube.find("Secret", f"bootstrap-token-{token_id}", namespace="kube-system")
    yield expect(secret is None, "the cluster has forgotten the token", "its Secret is still there")


@define("02-hash-refused", "The worker did not trust the cluster", deadline_s=10)
def hash_refused(cluster: Cluster, node: str, token_id: str) -> Iterator[Finding]:
    """The worker's log tells of a public key that is not the one it was told; there is no Node."""
    yield from _refused(cluster, node, token_id, "none of the public keys")


@define("02-third-worker-joined", "The third worker has joined", deadline_s=40)
def third_worker_joined(cluster: Cluster) -> Iterator[Finding]:
    """worker-3 is Ready and takes pods."""
    yield _well(cluster, "worker-3")


@define("02-both-unknown", "The cluster has lost sight of both workers", deadline_s=60)
def both_unknown(cluster: Cluster, nodes: Sequence[str]) -> Iterator[Finding]:
    """Ready is Unknown, and no new pods are sent there."""
    for name in nodes:
        node = cluster.kube.find("Node", name)
        state = _ready_state(node)
        yield expect(state == "Unknown", f"{name}: nobody knows how it is", f"its condition Ready is {state}")
        taints = _taints(node)
        said = f"its taints: {', '.join(taints) or 'none'}"
        yield expect(f"{ILL[1]}:NoSchedule" in taints, f"{name} gets no new pods", said)


@define("02-both-well", "Both are back, and their pods never noticed", deadline_s=60)
def both_well(cluster: Cluster, nodes: Sequence[str], before: Mapping[str, Object]) -> Iterator[Finding]:
    """The nodes are Ready without taints; on each runs the same pod as before, never restarted."""
    for name in nodes:
        yield _well(cluster, name)
        found = cluster.kube.find("Pod", dig(before[name], "metadata.name"))
        same = dig(found, "metadata.uid") == dig(before[name], "metadata.uid")
        yield expect(same and ready(found), f"the pod on {name} is the same, and ready", _about(found))
        count = [s.get("restartCount", 0) for s in dig(found, "status.containerStatuses", [])]
        was = [s.get("restartCount", 0) for s in dig(before[name], "status.containerStatuses", [])]
        yield expect(count == was, "its container was not restarted", f"restarts: {was} before, {count} now")


@define("02-kubelet-fails", "The kubelet refuses its configuration", deadline_s=20)
def kubelet_fails(cluster: Cluster, node: str) -> Iterator[Finding]:
    """Its last words are about the reservation, and it does not answer."""
    reserved = dig(cluster.kubelet_config(node), "systemReserved.memory", "nothing")
    yield expect(reserved != "nothing", f"{node} is told to reserve memory", f"it reserves {reserved}")
    said = cluster.kubelet_log(node, 1, r"invalid Node Allocatable|^E\d{4}|rror")
    words = "invalid Node Allocatable"
    yield expect(words in said, f"its log says: {words}", f"the last error there: {said[-160:] or 'none'}")
    answers = _kubelet_says(cluster, node) == "ok"
    yield expect(not answers, "the kubelet does not answer", "it still answers")


@define("02-kubelet-mended", "The kubelet runs again", deadline_s=60)
def kubelet_mended(cluster: Cluster, node: str) -> Iterator[Finding]:
    """It reserves no more than the machine has, answers the API server, and the node is Ready."""
    reserved = dig(cluster.kubelet_config(node), "systemReserved.memory")
    yield expect(reserved != "900Gi", "the bad reservation is gone", f"systemReserved.memory is {reserved}")
    yield from _answers(cluster, node)


@define("02-silent-fault", "Ready, and yet it takes no orders", deadline_s=30)
def silent_fault(cluster: Cluster, node: str) -> Iterator[Finding]:
    """The node is Ready, while its kubelet refuses the API server."""
    yield _well(cluster, node)
    said = _kubelet_says(cluster, node)
    yield expect("Unauthorized" in said, "its kubelet refuses the API server", f"asked, it says: {said}")


@define("02-orders-taken", "The kubelet knows the API server again", deadline_s=60)
def orders_taken(cluster: Cluster, node: str, pod: str) -> Iterator[Finding]:
    """It has a client CA, answers the API server, hands out its pod's log, and the node is Ready."""
    file = dig(cluster.kubelet_config(node), "authentication.x509.clientCAFile")
    yield expect(bool(file), "its configuration names a client CA", "authentication.x509 is empty")
    yield from _answers(cluster, node)
    try:
        cluster.kube.logs(pod, tail=1)
        said = ""
    except KubeError as error:  # a kubelet that has just started does not know its pods yet
        said = error.message
    yield expect(not said, f"the log of {pod} can be read", f"asked for, the API says: {said}")


@define("02-evicted", "The greedy pod was evicted, the agent was not", deadline_s=90)
def evicted(cluster: Cluster, node: str) -> Iterator[Finding]:
    """greedy has failed as Evicted, with the node's name; the agent runs; the node told of the pressure."""
    greedy, agent = cluster.kube.find("Pod", "greedy"), cluster.kube.find("Pod", "agent")
    reason = dig(greedy, "status.reason", "")
    yield expect(reason == "Evicted", "greedy is evicted", _about(greedy))
    yield expect(ready(agent), "the agent runs", _about(agent))
    told = [event.get("reason") for event in cluster.kube.events(cluster.kube.get("Node", node))]
    said = f"events of the node: {', '.join(sorted(set(filter(None, told))))}"
    yield expect("NodeHasInsufficientMemory" in told, f"{node} has told of memory pressure", said)


@define("02-promise-kept", "The node promises only what it has", deadline_s=60)
def promise_kept(cluster: Cluster, node: str, allocatable_mib: float) -> Iterator[Finding]:
    """Allocatable is capacity less threshold less reservation; greedy stays Pending for lack of memory."""
    from labkit.record.memory import node_memory

    found = node_memory(cluster, node, 0)
    near = abs(found.allocatable_mib - allocatable_mib) < 2
    said = f"it is {found.allocatable_mib:.0f} MiB; reserved are {found.reserved_mib:.0f}"
    yield expect(near, f"{allocatable_mib:.0f} MiB are allocatable", said)
    yield _well(cluster, node)
    greedy = cluster.kube.find("Pod", "greedy")
    conditions = dig(greedy, "status.conditions", [])
    why = [c.get("message", "") for c in conditions if c.get("reason") == "Unschedulable"]
    full = any("Insufficient memory" in message for message in why)
    yield expect(full, "greedy is not placed: there is not enough memory", _about(greedy))


@define("02-replaced", "All pods of web are ready, on other machines", deadline_s=120)
def replaced(cluster: Cluster, lost: str, replicas: int) -> Iterator[Finding]:
    """The node's Ready is Unknown; as many pods as wanted are ready elsewhere."""
    state = _ready_state(cluster.kube.find("Node", lost))
    yield expect(state == "Unknown", f"{lost} is not heard of", f"its condition Ready is {state}")
    pods = running_pods(cluster, "app=web")
    good = [dig(pod, "spec.nodeName") for pod in pods if ready(pod) and dig(pod, "spec.nodeName") != lost]
    where = ", ".join(f"{dig(pod, 'spec.nodeName', 'nowhere')} ({container_state(pod)})" for pod in pods)
    said = f"pods that are not being deleted: {where or seen(cluster, 'Pod')}"
    yield expect(len(good) == replicas, f"{replicas} pods are ready elsewhere", said)


@define("02-half-stayed", "All pods serve elsewhere, and half of them did all the time", deadline_s=120)
def half_stayed(cluster: Cluster, lost: str, replicas: int, elsewhere: Sequence[str]) -> Iterator[Finding]:
    """As 02-replaced; and the pods that were elsewhere before are still there, at least half of all."""
    yield from replaced(cluster, lost, replicas)
    good = {dig(pod, "metadata.name") for pod in running_pods(cluster, "app=web") if ready(pod)}
    kept = good & set(elsewhere)
    said = f"of {', '.join(elsewhere) or 'none'} there are {len(kept)}"
    yield expect(2 * len(kept) >= replicas, "at least half of the pods were not touched", said)


@define("02-machine-back", "The machine is back, and what was left on it is gone", deadline_s=90)
def machine_back(cluster: Cluster, node: str) -> Iterator[Finding]:
    """The node is Ready without taints; no pod of web is still being deleted."""
    yield _well(cluster, node)
    pods = cluster.kube.list("Pod", labels="app=web")
    old = [dig(pod, "metadata.name") for pod in pods if dig(pod, "metadata.deletionTimestamp")]
    yield expect(not old, "no pod is left over", f"still being deleted: {', '.join(old)}")


@define("02-back-again", "The machine is back once more, and clean", deadline_s=90)
def back_again(cluster: Cluster, node: str) -> Iterator[Finding]:
    """As 02-machine-back."""
    yield from machine_back(cluster, node)


@define("02-tuned", "The tuned Deployment is spread over the workers", deadline_s=90)
def tuned(cluster: Cluster) -> Iterator[Finding]:
    """Complete; at most one pod more on one node than on another; leaves after 2 s; has a budget."""
    web = cluster.kube.find("Deployment", "web")
    lacks = cluster.kube.rollout_status("Deployment", "web") if web else seen(cluster, "Deployment")
    yield expect(not lacks, "the Deployment web is complete", lacks)
    pods = running_pods(cluster, "app=web")
    counts = dict.fromkeys(_workers(cluster), 0)
    for pod in pods:
        counts[dig(pod, "spec.nodeName", "")] = counts.get(dig(pod, "spec.nodeName", ""), 0) + 1
    even = bool(counts) and max(counts.values()) - min(counts.values()) <= 1
    yield expect(even, "its pods are spread evenly", f"pods per node: {counts}")
    times = {
        t.get("tolerationSeconds") for p in pods for t in dig(p, "spec.tolerations", []) if t["key"] in ILL
    }
    yield expect(
        times == {2}, "they leave a lost node after 2 s", f"tolerationSeconds: {sorted(times, key=str)}"
    )
    budget = cluster.kube.find("PodDisruptionBudget", "web")
    yield expect(budget is not None, "they have a disruption budget", seen(cluster, "PodDisruptionBudget"))


@define("02-drained", "The node is empty, and the pods served on", deadline_s=60)
def drained(cluster: Cluster, node: str, recorder: Recorder, least: int) -> Iterator[Finding]:
    """The node takes no pods and has none of web; never fewer than `least` pods were ready, as recorded."""
    found = cluster.kube.find("Node", node)
    yield expect(dig(found, "spec.unschedulable", False), f"{node} takes no new pods", "it is not cordoned")
    pods = running_pods(cluster, "app=web")
    here = [dig(pod, "metadata.name") for pod in pods if dig(pod, "spec.nodeName") == node]
    yield expect(not here, f"no pod of web is on {node}", f"still there: {', '.join(here)}")
    good = sum(ready(pod) for pod in pods)
    yield expect(good == 4, "four pods are ready elsewhere", f"ready are {good} of {len(pods)}")
    counts = recorder.recording().transitions
    counts = counts[(counts["kind"] == "Deployment") & (counts["name"] == "web")]
    low = min((int(n or 0) for n in counts[counts["what"] == "ready_replicas"]["after"]), default=0)
    yield expect(low >= least, f"never fewer than {least} were ready", f"at one moment {low} were")


@define("02-cleaned-up", "Two workers, both well, and nothing else left", deadline_s=90)
def cleaned_up(cluster: Cluster) -> Iterator[Finding]:
    """worker-1 and worker-2 are Ready and take pods; the lab's objects are gone."""
    names = _workers(cluster)
    yield expect(names == ["worker-1", "worker-2"], "there are worker-1 and worker-2", f"there are: {names}")
    for name in ("worker-1", "worker-2"):
        yield _well(cluster, name)
    objects = (("Deployment", "web"), ("DaemonSet", "echo"), ("Pod", "agent"), ("Pod", "greedy"))
    left = [f"{kind} {name}" for kind, name in objects if cluster.kube.find(kind, name)]
    yield expect(not left, "the lab's objects are gone", f"still there: {', '.join(left)}")


def _refused(cluster: Cluster, node: str, token_id: str, words: str) -> Iterator[Finding]:
    """The end of a worker's log, from the last time it tried this token on, has these words."""
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


def _well(cluster: Cluster, name: str) -> Finding:
    node = cluster.kube.find("Node", name)
    if node is None:
        return expect(False, f"{name} is Ready", f"there is no Node {name}")
    wrong = [taint for taint in _taints(node) if taint.split(":")[0] in (*ILL, PRESSURE)]
    closed = ["it is cordoned"] if dig(node, "spec.unschedulable", False) else []
    state = _ready_state(node)
    said = "; ".join([f"Ready is {state}", *(f"taint {taint}" for taint in wrong), *closed])
    return expect(state == "True" and not wrong and not closed, f"{name} is Ready and takes pods", said)


def _answers(cluster: Cluster, node: str) -> Iterator[Finding]:
    said = _kubelet_says(cluster, node)
    yield expect(said == "ok", "its kubelet answers the API server", f"asked, it says: {said}")
    yield _well(cluster, node)


def _kubelet_says(cluster: Cluster, node: str) -> str:
    """What a kubelet answers to the API server: "ok", or why not."""
    impatient = Kube(cluster.kubeconfig, patience_s=0)
    try:
        answer = impatient.request("GET", f"/api/v1/nodes/{node}/proxy/healthz", timeout_s=5)
    except KubeError as error:
        return error.message
    return str(answer).strip()


def _workers(cluster: Cluster) -> list[str]:
    """Names of the nodes on which no control plane runs."""
    return [
        node.name for node in cluster.nodes() if "node-role.kubernetes.io/control-plane" not in node.labels
    ]


def _ready_state(node: Object | None) -> str:
    states = (c["status"] for c in dig(node, "status.conditions", []) if c["type"] == "Ready")
    return next(states, "unknown to the API")


def _taints(node: Object | None) -> list[str]:
    return [f"{taint['key']}:{taint['effect']}" for taint in dig(node, "spec.taints", [])]


def _restarts(pod: Object | None) -> int:
    return sum(status.get("restartCount", 0) for status in dig(pod, "status.containerStatuses", []))


def _about(pod: Object | None) -> str:
    if pod is None:
        return "there is no such pod"
    why = next((c["message"] for c in dig(pod, "status.conditions", []) if c.get("message")), "")
    return f"it is in {container_state(pod)}{': ' if why else ''}{why}"
