"""Checks of lab 02b: tune workers, so that the next failure costs less."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labkit.checks.core import Finding, expect
from labkit.checks.judging.resilience import keeps_apart, may_go, selects, toleration_s, worst_cost
from labkit.checks.nodes import about, ready_state, two_well_workers, well, workers
from labkit.checks.objects import container_state, ready, running_pods, seen
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.kube import dig, quantity
from labkit.record import Recorder
from labkit.record.memory import NodeMemory, node_memory
from labkit.record.outage import Outage

SLACK_MIB, WASTE_MIB = 15, 60
"""By how much a reservation may miss what the system uses."""


@define("02b-three-workers", "Three workers take pods", deadline_s=40)
def three_workers(cluster: Cluster) -> Iterator[Finding]:
    """worker-1 to worker-3 are Ready and take pods."""
    for number in (1, 2, 3):
        yield well(cluster, f"worker-{number}")


@define("02b-evicted", "The greedy pod was evicted, the agent was not", deadline_s=90)
def evicted(cluster: Cluster, node: str) -> Iterator[Finding]:
    """greedy has failed as Evicted, with the node's name; the agent runs; the node told of the pressure."""
    greedy, agent = cluster.kube.find("Pod", "greedy"), cluster.kube.find("Pod", "agent")
    reason = dig(greedy, "status.reason", "")
    yield expect(reason == "Evicted", "greedy is evicted", about(greedy))
    yield expect(ready(agent), "the agent runs", about(agent))
    told = [event.get("reason") for event in cluster.kube.events(cluster.kube.get("Node", node))]
    said = f"events of the node: {', '.join(sorted(set(filter(None, told))))}"
    yield expect("NodeHasInsufficientMemory" in told, f"{node} has told of memory pressure", said)


@define("02b-reserve", "The node promises only what it has", deadline_s=60)
def reserve(cluster: Cluster, node: str, before: NodeMemory, answer: object) -> Iterator[Finding]:
    """What the system uses is reserved, and little more; greedy stays Pending for lack of memory.

    Allocatable is capacity less threshold less reservation.

    Args:
        before: the node's memory with nothing reserved.
    """
    config = cluster.kubelet_config(node)
    reserved = quantity(dig(config, "systemReserved.memory", "0")) / 2**20
    used = f"what nobody requests uses {before.system_mib:.0f} MiB, reserved are {reserved:.0f}"
    said = f"{used}; you said {answer}"
    enough = reserved >= before.system_mib - SLACK_MIB
    yield expect(enough, "what the system uses is reserved", said, "too-little")
    sparing = reserved <= before.system_mib + WASTE_MIB
    yield expect(sparing, "and hardly more than that", said, "too-much")
    found, right = node_memory(cluster, node, 0), before.allocatable_mib - reserved
    near = abs(found.allocatable_mib - right) < 2
    yield expect(near, f"{right:.0f} MiB are allocatable", f"it is {found.allocatable_mib:.0f} MiB", "wait")
    yield well(cluster, node)
    greedy = cluster.kube.find("Pod", "greedy")
    conditions = dig(greedy, "status.conditions", [])
    why = [c.get("message", "") for c in conditions if c.get("reason") == "Unschedulable"]
    full = any("Insufficient memory" in message for message in why)
    yield expect(full, "greedy is not placed: there is not enough memory", about(greedy), "wait")


@define("02b-replaced", "All pods of web are ready, on other machines", deadline_s=120)
def replaced(cluster: Cluster, lost: str, replicas: int) -> Iterator[Finding]:
    """The node's Ready is Unknown; as many pods as wanted are ready elsewhere."""
    state = ready_state(cluster.kube.find("Node", lost))
    yield expect(state == "Unknown", f"{lost} is not heard of", f"its condition Ready is {state}")
    pods = running_pods(cluster, "app=web")
    good = [dig(pod, "spec.nodeName") for pod in pods if ready(pod) and dig(pod, "spec.nodeName") != lost]
    where = ", ".join(f"{dig(pod, 'spec.nodeName', 'nowhere')} ({container_state(pod)})" for pod in pods)
    said = f"pods that are not being deleted: {where or seen(cluster, 'Pod')}"
    yield expect(len(good) == replicas, f"{replicas} pods are ready elsewhere", said)


@define("02b-half-stayed", "All pods serve elsewhere, and half of them did all the time", deadline_s=120)
def half_stayed(cluster: Cluster, lost: str, replicas: int, elsewhere: Sequence[str]) -> Iterator[Finding]:
    """As 02b-replaced; and the pods that were elsewhere before are still there, at least half of all."""
    yield from replaced(cluster, lost, replicas)
    good = {dig(pod, "metadata.name") for pod in running_pods(cluster, "app=web") if ready(pod)}
    kept = good & set(elsewhere)
    said = f"of {', '.join(elsewhere) or 'none'} there are {len(kept)}"
    yield expect(2 * len(kept) >= replicas, "at least half of the pods were not touched", said)


@define("02b-machine-back", "The machine is back, and what was left on it is gone", deadline_s=90)
def machine_back(cluster: Cluster, node: str) -> Iterator[Finding]:
    """The node is Ready without taints; no pod of web is still being deleted."""
    yield well(cluster, node)
    pods = cluster.kube.list("Pod", labels="app=web")
    old = [dig(pod, "metadata.name") for pod in pods if dig(pod, "metadata.deletionTimestamp")]
    yield expect(not old, "no pod is left over", f"still being deleted: {', '.join(old)}")


@define("02b-back-again", "The machine is back once more, and clean", deadline_s=90)
def back_again(cluster: Cluster, node: str) -> Iterator[Finding]:
    """As 02b-machine-back."""
    yield from machine_back(cluster, node)


@define("02b-tuned", "A power cut costs little now", deadline_s=90)
def tuned(cluster: Cluster, notice_s: float = 18.0, limit: float = 60.0) -> Iterator[Finding]:
    """Short patience, pods apart, a budget of one; complete, evenly spread, and cheap at worst.

    Args:
        notice_s: until a silent node counts as lost, at most.
        limit: pod-seconds that a power cut may cost.
    """
    web = cluster.kube.find("Deployment", "web")
    yield expect(web is not None, "there is a Deployment web", seen(cluster, "Deployment"), "missing")
    if web is None:
        return
    template, replicas = dig(web, "spec.template", {}), int(dig(web, "spec.replicas", 1))
    yield expect(replicas == 4, "it has four pods", f"it has {replicas}", "missing")
    names = workers(cluster)
    patience, best = toleration_s(template), -(-replicas // max(1, len(names)))
    cost = worst_cost(best, notice_s, patience)
    said = f"tolerationSeconds is {patience:g}: with {best} pods on the machine up to {cost:.0f} are missing"
    yield expect(cost <= limit, f"its patience fits into {limit:g} pod-seconds", said, "toleration")
    apart = keeps_apart(template)
    yield expect(apart, "it asks for different machines", "nothing in its template does", "spread")
    labels = dig(template, "metadata.labels", {})
    budgets = [
        b for b in cluster.kube.list("PodDisruptionBudget") if selects(dig(b, "spec.selector"), labels)
    ]
    there = seen(cluster, "PodDisruptionBudget")
    yield expect(len(budgets) == 1, "one disruption budget covers its pods", there, "budget")
    for budget in budgets[:1]:
        number = may_go(budget, replicas)
        told = f"it lets {number} of {replicas} go at a time"
        yield expect(number > 0, "the budget lets a drain go on", told, "budget-blocks")
        yield expect(number <= 1, "one at a time", told, "budget")
    lacks = cluster.kube.rollout_status("Deployment", "web")
    yield expect(not lacks, "the Deployment web is complete", lacks, "not-ready")
    counts = dict.fromkeys(names, 0)
    for pod in running_pods(cluster, "app=web"):
        counts[dig(pod, "spec.nodeName", "")] = counts.get(dig(pod, "spec.nodeName", ""), 0) + 1
    even = bool(counts) and max(counts.values()) - min(counts.values()) <= 1
    yield expect(even, "its pods are spread evenly", f"pods per node: {counts}", "spread")


@define("02b-cost", "The power cut cost less than the limit", deadline_s=1)
def cost(outage: Outage, limit: float) -> Iterator[Finding]:
    """As measured."""
    lost = outage.pod_seconds_lost
    yield expect(lost < limit, f"fewer than {limit:g} pod-seconds were missing", f"{lost:.0f} were missing")


@define("02b-drained", "The node is empty, and the pods served on", deadline_s=60)
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


@define("02b-cleaned-up", "Two workers, both well, and nothing else left", deadline_s=90)
def cleaned_up(cluster: Cluster) -> Iterator[Finding]:
    """worker-1 and worker-2 are Ready and take pods; the lab's objects are gone."""
    yield from two_well_workers(cluster)
    objects = (("Deployment", "web"), ("Pod", "agent"), ("Pod", "greedy"))
    left = [f"{kind} {name}" for kind, name in objects if cluster.kube.find(kind, name)]
    yield expect(not left, "the lab's objects are gone", f"still there: {', '.join(left)}")
