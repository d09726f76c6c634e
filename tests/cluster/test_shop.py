"""The shop on a cluster: built from its Dockerfiles, applied from its manifests, used as a customer uses it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from labkit import load
from labkit.cluster.base import Cluster

from .helpers import Namespace, until

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
SERVICES = ("catalog", "frontend", "orders", "pricing")
STATELESS = ("catalog", "frontend", "pricing")
TOKEN = "of-this-test"


class Shop(Namespace):
    """The namespace shop, and a client that talks to its services from outside, as cluster.url allows."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, "shop")
        self.url = cluster.url("frontend", namespace="shop")
        self.http = httpx.Client(base_url=self.url, timeout=10, trust_env=False)

    def apply_folder(self, folder: str) -> None:
        """kubectl apply -k manifests/FOLDER."""
        self.cluster.kubectl("apply", "-k", str(MANIFESTS / folder))

    def all_rolled(self) -> None:
        """Wait until every Deployment is complete."""
        for name in SERVICES:
            self.rolled(f"deployment/{name}", 120)

    def order(self, **body: Any) -> httpx.Response:
        """POST /api/orders of one mug."""
        return self.http.post("/api/orders", json={"items": [{"sku": "mug"}], **body})

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Pods of a service that are not on their way out."""
        found = self.items("pods", f"app.kubernetes.io/name={name}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def uids(self, name: str) -> set[str]:
        """Who they are."""
        return {pod["metadata"]["uid"] for pod in self.pods(name)}


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    """The shop at v1, with v2 built; removed afterwards."""
    for name in SERVICES:
        for version in ("v1", "v2"):
            cluster.build_image(
                ROOT / "services" / name, f"shop/{name}:{version}", build_args={"VERSION": version}
            )
    cluster.kubectl("apply", "-f", str(MANIFESTS / "shop" / "base" / "namespace.yaml"))
    cluster.kubectl(
        "-n", "shop", "create", "secret", "generic", "orders-admin", f"--from-literal=token={TOKEN}"
    )  # fmt: skip
    cluster.kubectl("apply", "-k", str(MANIFESTS / "shop" / "base"))
    try:
        made = Shop(cluster)
        made.all_rolled()
        yield made
    finally:
        cluster.kubectl("delete", "namespace", "shop", "--timeout=120s", check=False)


@pytest.mark.parametrize(
    "folder",
    [
        *("shop/overlays/dev", "shop/overlays/v2", "shop/overlays/broken", "shop/overlays/hpa"),
        *("hpa/base", "hpa/tolerance", "hpa/slow-window", "hpa/strict-policy"),
    ],
)
def test_the_api_server_accepts_every_variant(shop: Shop, folder: str) -> None:
    shop.cluster.kubectl(
        "apply", "-k", str(MANIFESTS / folder), "--dry-run=server", "--validate=strict"
    )  # fmt: skip


def test_an_order_through_all_four(shop: Shop) -> None:
    placed = shop.order(customer="Ada")
    assert placed.status_code == 201, placed.text
    order = placed.json()
    assert shop.http.get(f"/api/orders/{order['id']}").json() == order
    pods = {name: {pod["metadata"]["name"] for pod in shop.pods(name)} for name in SERVICES}
    for part in placed.headers["x-served-by"].split(", "):
        name, _, who = part.partition("=")
        pod, _, version = who.partition("@")
        assert pod in pods[name] and version == "v1"
    page = shop.http.get("/")
    assert page.status_code == 200 and "Control-plane mug" in page.text and "list price</i>" not in page.text


def test_every_replica_gets_its_share(shop: Shop) -> None:
    ask = {"Connection": "close"}  # a Service spreads connections
    seen = [shop.http.get("/api/products", headers=ask).headers["x-pod"] for _ in range(40)]
    counts = {pod["metadata"]["name"]: seen.count(pod["metadata"]["name"]) for pod in shop.pods("frontend")}
    assert len(counts) == 2 and sum(counts.values()) == 40
    assert min(counts.values()) >= 5, counts


def test_the_request_id_is_in_the_logs_of_all(shop: Shop) -> None:
    shop.http.post(
        "/api/orders", json={"items": [{"sku": "cap"}]}, headers={"X-Request-ID": "traced-by-a-test"}
    )

    def logged(name: str) -> bool:
        text = shop.kubectl("logs", "-l", f"app.kubernetes.io/name={name}", "--tail=200")
        lines = [json.loads(line) for line in text.splitlines()]
        return any(line.get("request_id") == "traced-by-a-test" for line in lines)

    for name in SERVICES:
        until(lambda name=name: logged(name), 10, f"the id in the logs of {name}")


def test_orders_survive_the_pod(shop: Shop) -> None:
    placed = [shop.order(customer=f"customer {number}").json() for number in range(5)]
    before = shop.uids("orders")
    shop.kubectl("delete", "pod", "-l", "app.kubernetes.io/name=orders", "--grace-period=0", "--force")
    until(lambda: shop.uids("orders") - before, 30, "a new pod of orders")
    shop.rolled("deployment/orders")
    for order in placed:
        answer = until(lambda order=order: again(shop, order["id"]), 20, "orders answers")
        assert answer == order


def again(shop: Shop, order_id: str) -> Any:
    """The order, or None as long as the service does not answer."""
    answer = shop.http.get(f"/api/orders/{order_id}")
    assert answer.status_code in (200, 503), answer.text
    return answer.json() if answer.status_code == 200 else None


def test_only_the_token_of_the_secret_lists_orders(shop: Shop) -> None:
    url = shop.cluster.url("orders", namespace="shop") + "/orders"
    assert httpx.get(url, trust_env=False).status_code == 401
    listed = httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
    assert listed.status_code == 200 and len(listed.json()) >= 1


def test_a_changed_config_map_reaches_running_pods(shop: Shop) -> None:
    before = shop.uids("catalog")
    current = shop.get("configmap", "catalog-products")["data"]["products.toml"]
    try:
        set_products(shop, current.replace("price_cents = 1250", "price_cents = 990"))
        until(lambda: prices_of_mug(shop) == {990}, 150, "the new price, in both pods", every=1)
        assert shop.uids("catalog") == before
        set_products(shop, "this is no catalogue")
        until(lambda: "not TOML" in problem(shop), 150, "the refusal", every=1)
        assert prices_of_mug(shop) == {990}, "the last good one stays"
        assert all(ready(pod) for pod in shop.pods("catalog"))
    finally:
        set_products(shop, current)


def set_products(shop: Shop, text: str) -> None:
    """Change the ConfigMap, and touch the pods so that their kubelets look at once instead of within a minute."""
    shop.kubectl(
        "patch", "configmap", "catalog-products", "--type=merge", "-p", json.dumps({"data": {"products.toml": text}})
    )  # fmt: skip
    shop.kubectl(
        "annotate", "pods", "-l", "app.kubernetes.io/name=catalog", f"looked-at={time.time()}", "--overwrite"
    )  # fmt: skip


def prices_of_mug(shop: Shop) -> set[int]:
    """What several answers say, so that each pod is asked."""
    answers = [shop.http.get("/api/products").json() for _ in range(12)]
    return {p["price_cents"] for answer in answers for p in answer["products"] if p["sku"] == "mug"}


def problem(shop: Shop) -> str:
    """What the catalog says about its file."""
    return str(shop.http.get("/api/products").json()["problem"])


def ready(pod: dict[str, Any]) -> bool:
    """Whether its Ready condition is true."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def test_rollout_and_rollback_lose_no_request(shop: Shop) -> None:
    requests = [load.Request(shop.url + "/api/products", weight=3), load.Request(shop.url + "/", weight=1)]
    traffic = load.start(requests, load.constant(10, seconds=300))
    try:
        time.sleep(3)
        shop.apply_folder("shop/overlays/v2")
        shop.all_rolled()
        time.sleep(4)
        for name in STATELESS:
            shop.kubectl("rollout", "undo", f"deployment/{name}")
        shop.all_rolled()
        time.sleep(6)
    finally:
        result = traffic.stop()
    sent = result.requests
    failed = sent[sent["failed"]]
    assert failed.empty, failed[["t_scheduled_s", "status", "error", "pod", "version"]].to_string()
    assert len(sent) > 150
    by_time = sent.sort_values("t_scheduled_s")["version"]
    assert set(by_time) == {"v1", "v2"} and by_time.iloc[0] == by_time.iloc[-1] == "v1"
    assert all(ready(pod) for name in SERVICES for pod in shop.pods(name))


def test_a_broken_version_never_gets_traffic(shop: Shop) -> None:
    before = shop.uids("frontend")
    shop.apply_folder("shop/overlays/broken")
    try:
        said = until(lambda: stuck(shop), 90, "the rollout is reported as stuck", every=1)
        assert "has timed out progressing" in said
        assert before <= shop.uids("frontend"), "all old pods are still there"
        assert {shop.http.get("/api/products").status_code for _ in range(20)} == {200}
    finally:
        shop.kubectl("rollout", "undo", "deployment/frontend")
    shop.rolled("deployment/frontend")
    assert shop.uids("frontend") == before, "and they were never replaced"


def stuck(shop: Shop) -> str:
    """The message of a rollout that makes no progress."""
    conditions = shop.get("deployment", "frontend")["status"]["conditions"]
    reasons = {c["reason"]: c["message"] for c in conditions if c["type"] == "Progressing"}
    return str(reasons.get("ProgressDeadlineExceeded", ""))


def test_without_pricing_it_sells_at_list_price(shop: Shop) -> None:
    shop.kubectl("scale", "deployment/pricing", "--replicas=0")
    try:
        until(lambda: not shop.pods("pricing"), 30, "no pod of pricing")
        until(lambda: "list prices hold" in shop.http.get("/").text, 20, "the page says so")
        assert shop.order().status_code == 201
        assert all(ready(pod) for pod in shop.pods("frontend")), "an outage of one is not one of all"
    finally:
        shop.kubectl("scale", "deployment/pricing", "--replicas=1")
        shop.rolled("deployment/pricing")
    until(lambda: "x-degraded" not in price(shop).headers, 20, "live prices again")


def price(shop: Shop) -> httpx.Response:
    """The price of a mug."""
    return shop.http.get("/api/price", params={"sku": "mug"})


def test_pricing_keeps_to_its_cpu_limit_and_turns_the_rest_away(shop: Shop) -> None:
    url = shop.cluster.url("pricing", namespace="shop")
    before, began = cpu_s(url), time.monotonic()
    result = load.run(url + "/price", load.constant(45, seconds=12), spacing="uniform")
    cores = (cpu_s(url) - before) / (time.monotonic() - began)
    statuses = result.requests["status"].value_counts().to_dict()
    assert set(statuses) == {200, 503}, statuses
    assert cores < 0.6, f"{cores:.2f} cores; the limit is 0.5"
    assert 2 * 12 < statuses[200] < 26 * 12, "a busy machine gives it less than its limit, never more"


def cpu_s(url: str) -> float:
    """CPU seconds that the only pod of a service has used."""
    text = httpx.get(url + "/metrics", trust_env=False).text
    return float(
        next(line.split()[1] for line in text.splitlines() if line.startswith("process_cpu_seconds_total"))
    )


def test_a_graceful_end_leaves_exit_code_0(shop: Shop) -> None:
    pod = shop.pods("catalog")[0]["metadata"]["name"]
    hold(shop, pod, ["labkit.test/look-at-it-first"])
    try:
        shop.kubectl("delete", "pod", pod, "--wait=false")
        ended = until(lambda: terminated(shop, pod), 40, "the container's end")
        assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    finally:
        hold(shop, pod, [])
    shop.rolled("deployment/catalog")


def hold(shop: Shop, pod: str, finalizers: list[str]) -> None:
    """Keep a deleted pod's object for as long as it has finalizers."""
    patch = {"metadata": {"finalizers": finalizers}}
    shop.kubectl("patch", "pod", pod, "--type=merge", "-p", json.dumps(patch))


def terminated(shop: Shop, pod: str) -> dict[str, Any]:
    """How a pod's only container ended; empty as long as it runs."""
    (status,) = shop.get("pod", pod)["status"]["containerStatuses"]
    return dict(status["state"].get("terminated", {}))
