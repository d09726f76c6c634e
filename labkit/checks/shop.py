"""What the checks of several labs ask about the shop."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.checks.core import Finding, expect
from labkit.checks.objects import seen
from labkit.cluster import Cluster
from labkit.kube import dig
from labkit.labs.visit import VisitError, get

SHOP = "shop"
PIPELINE_ACCOUNT = "system:serviceaccount:shop:pipeline"
SERVICES = ("catalog", "frontend", "orders", "pricing")


def rolled_out(cluster: Cluster, name: str, tag: str = "") -> Iterator[Finding]:
    """A Deployment of the shop is complete; and at a tag, if one is given."""
    deployment = cluster.kube.find("Deployment", name, namespace=SHOP)
    if deployment is None:
        yield expect(False, f"{name} runs", seen(cluster, "Deployment", SHOP))
        return
    if tag:
        image = image_of(cluster, name)
        yield expect(image.endswith(f":{tag}"), f"{name} is told to be {tag}", f"its image is {image}")
    lacks = cluster.kube.rollout_status("Deployment", name, namespace=SHOP)
    why = cluster.kube.explain(deployment) if lacks else ""
    yield expect(not lacks, f"{name} runs", f"{lacks}. {why}".strip())


def image_of(cluster: Cluster, name: str) -> str:
    """The image that a Deployment of the shop asks for, "" where it is missing."""
    deployment = cluster.kube.find("Deployment", name, namespace=SHOP)
    return str(dig(deployment, "spec.template.spec.containers[0].image", ""))


def products(cluster: Cluster) -> list[dict[str, object]] | str:
    """What the page offers, or why it cannot be read."""
    try:
        answer = get(cluster.url("frontend", SHOP) + "/api/products")
        return list(answer.json["products"])
    except (VisitError, ValueError, KeyError, TypeError) as error:
        return str(error)


def may(cluster: Cluster, verb: str, resource: str, group: str, namespace: str) -> bool:
    """Whether the pipeline's service account is allowed something."""
    attributes = {"verb": verb, "resource": resource, "group": group, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": PIPELINE_ACCOUNT, "resourceAttributes": attributes},
    }
    answer = cluster.kube.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
    return bool(answer["status"].get("allowed"))
