"""Checks of lab 03: from docker-compose to Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.checks.core import Finding, expect
from labkit.checks.objects import ready, running_pods, seen
from labkit.checks.registry import define
from labkit.cluster import Cluster
from labkit.kube import Object, dig
from labkit.labs.visit import VisitError, get
from labkit.load import Running
from labkit.load.result import failures

SHOP = "shop"
SERVICES = ("catalog", "frontend", "orders", "pricing")
VERSIONED = ("catalog", "frontend", "pricing")


@define("03-shop-runs", "The shop runs, and its page is reached through the Service", deadline_s=90)
def shop_runs(cluster: Cluster) -> Iterator[Finding]:
    """Four Deployments are complete, the claim is bound, the Secret is there, the page shows live prices."""
    for name in SERVICES:
        yield _rolled_out(cluster, name)
    claim = cluster.kube.find("PersistentVolumeClaim", "orders-data", namespace=SHOP)
    phase = dig(claim, "status.phase", "missing")
    yield expect(phase == "Bound", "the orders have storage", f"claim orders-data is {phase}")
    secret = cluster.kube.find("Secret", "orders-admin", namespace=SHOP)
    there = seen(cluster, "Secret", SHOP)
    yield expect(secret is not None, "there is a Secret orders-admin", there)
    yield from _page(cluster)


@define("03-orders-survive", "Another pod has the orders now", deadline_s=60)
def orders_survive(cluster: Cluster, before: Object, order_id: str) -> Iterator[Finding]:
    """The pod of orders is another one than before, is Ready, and knows the order."""
    pods = running_pods(cluster, "app.kubernetes.io/name=orders", SHOP)
    fresh = [pod for pod in pods if dig(pod, "metadata.uid") != dig(before, "metadata.uid")]
    yield expect(
        bool(fresh), "the old pod of orders is gone and a new one is there", "it is still the old pod"
    )
    good = any(ready(pod) for pod in fresh)
    yield expect(good, "the new pod is Ready", "; ".join(cluster.kube.explain(pod) for pod in fresh))
    if good:
        answer = _ask(cluster, f"/api/orders/{order_id}")
        yield expect(answer[0] == 200, f"order {order_id} is still known", f"the shop says: {answer[1]}")


@define("03-v2-serves", "Version 2 serves", deadline_s=60)
def v2_serves(cluster: Cluster) -> Iterator[Finding]:
    """Catalog, frontend and pricing are rolled out at v2."""
    yield from _version(cluster, "v2")


@define("03-rolled-back", "Version 1 serves again", deadline_s=60)
def rolled_back(cluster: Cluster) -> Iterator[Finding]:
    """Catalog, frontend and pricing are rolled out at v1."""
    yield from _version(cluster, "v1")


@define("03-no-request-lost", "Both changes of version, and not one request lost", deadline_s=5)
def no_request_lost(traffic: Running) -> Iterator[Finding]:
    """The load has ended; both versions answered; every request was sent and told of, and none failed."""
    yield expect(traffic.done, "the load has ended", "it is still being sent")
    if not traffic.done:
        return
    result = traffic.result()  # raises where a request is missing from it
    requests = result.requests
    good = requests[~requests["failed"]]
    versions = sorted(set(good["version"])) if len(good) else []
    yield expect(
        {"v1", "v2"} <= set(versions), "both versions have answered", f"answers came from {versions}"
    )
    order = good.sort_values("t_scheduled_s")["version"]
    back = len(order) > 0 and order.iloc[0] == "v1" and order.iloc[-1] == "v1"
    yield expect(
        back, "the first and the last answer are of v1", "the load began or ended at another version"
    )
    said = ", ".join(f"{count} × {kind}" for kind, count in failures(requests).value_counts().items())
    yield expect(not said, f"none of {len(requests)} requests failed", f"failed: {said}")
    unsent = ", ".join(f"{count} × {kind}" for kind, count in result.unsent["error"].value_counts().items())
    yield expect(
        not unsent, "the generator sent all that was due", f"not sent: {unsent}. Run the load again."
    )


def _rolled_out(cluster: Cluster, name: str) -> Finding:
    deployment = cluster.kube.find("Deployment", name, namespace=SHOP)
    if deployment is None:
        return expect(False, f"{name} runs", seen(cluster, "Deployment", SHOP))
    lacks = cluster.kube.rollout_status("Deployment", name, namespace=SHOP)
    why = cluster.kube.explain(deployment) if lacks else ""
    return expect(not lacks, f"{name} runs", f"{lacks}. {why}".strip())


def _version(cluster: Cluster, wanted: str) -> Iterator[Finding]:
    for name in VERSIONED:
        deployment = cluster.kube.find("Deployment", name, namespace=SHOP)
        image = dig(deployment, "spec.template.spec.containers[0].image", "missing")
        yield expect(image.endswith(f":{wanted}"), f"{name} is told to be {wanted}", f"its image is {image}")
        yield _rolled_out(cluster, name)
    try:
        answered = get(cluster.url("frontend", SHOP)).headers.get("x-version", "no version")
    except VisitError as error:
        answered = error.message
    yield expect(answered == wanted, f"the page says that it is {wanted}", f"it says: {answered}")


def _page(cluster: Cluster) -> Iterator[Finding]:
    if cluster.kube.find("Service", "frontend", namespace=SHOP) is None:
        yield expect(False, "the page is reached", seen(cluster, "Service", SHOP))
        return
    status, text = _ask(cluster, "/api/price?sku=mug")
    live = status == 200 and '"live":true' in text.replace(" ", "")
    yield expect(live, "the page is reached, and its prices are live", f"a price, asked for: {status} {text}")


def _ask(cluster: Cluster, path: str) -> tuple[int, str]:
    try:
        answer = get(cluster.url("frontend", SHOP) + path)
    except VisitError as error:
        return 0, error.message
    return answer.status, answer.text[:200]
