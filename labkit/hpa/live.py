"""An autoscaler of a running cluster, with everything that its controller looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from labkit.errors import KubeError
from labkit.hpa import observe
from labkit.hpa.errors import MetricUnavailable
from labkit.hpa.explain import Explanation, explain
from labkit.hpa.manifest import from_manifest
from labkit.hpa.spec import Controller, Metric
from labkit.kube import Kube
from labkit.kube.objects import Object


def explain_live(
    kube: Kube, name: str, namespace: str = "default", controller: Controller | None = None
) -> Explanation:
    """Explain an autoscaler of a cluster.

    Args:
        controller: its controller's flags; where None they are read from the kube-controller-manager's
            pod, or upstream's defaults where that cannot be seen.

    Raises:
        KubeError: there is no such autoscaler, or its target cannot be read.
    """
    hpa = kube.get("HorizontalPodAutoscaler", name, namespace=namespace)
    flags = controller or seen_controller(kube)
    spec = from_manifest(hpa, flags)
    scale = kube.request("GET", _scale_path(kube, hpa, namespace))
    selector = (scale.get("status") or {}).get("selector", "")
    pods = kube.list("Pod", namespace=namespace, labels=selector)
    answers = [_answer(kube, metric, namespace, selector) for metric in spec.metrics]
    return explain(hpa, pods, answers, kube.events(hpa), controller=flags)


def seen_controller(kube: Kube) -> Controller:
    """The flags of a kube-controller-manager that runs as a pod (kind, kubeadm); else the defaults."""
    try:
        found = kube.list("Pod", namespace="kube-system", labels="component=kube-controller-manager")
    except KubeError:
        found = []
    argv = [
        word
        for each in found[:1]
        for container in each["spec"]["containers"]
        for word in (*(container.get("command") or []), *(container.get("args") or []))
    ]
    return observe.controller(argv)


def _scale_path(kube: Kube, hpa: Mapping[str, Any], namespace: str) -> str:
    reference = hpa["spec"]["scaleTargetRef"]
    version, kind, name = reference.get("apiVersion", "apps/v1"), reference["kind"], reference["name"]
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    listed = kube.request("GET", base).get("resources") or []
    plural = next(
        (r["name"] for r in listed if r["kind"] == kind and "/" not in r["name"]), kind.lower() + "s"
    )
    return f"{base}/namespaces/{namespace}/{plural}/{quote(name)}/scale"


def _answer(kube: Kube, metric: Metric, namespace: str, selector: str) -> Object | MetricUnavailable:
    """What the metrics API says for one metric, or why it says nothing."""
    api = {"External": "external", "Pods": "custom", "Object": "custom"}.get(metric.source, "resource")
    try:
        answer: Object = kube.request("GET", _metrics_path(metric, namespace, selector))
        return answer
    except KubeError as error:
        return MetricUnavailable(f"unable to fetch metrics from {api} metrics API: {error.message}")


def _metrics_path(metric: Metric, namespace: str, selector: str) -> str:
    where = f"namespaces/{namespace}"
    query = urlencode({"labelSelector": selector})
    if metric.source == "External":
        return f"/apis/external.metrics.k8s.io/v1beta1/{where}/{quote(metric.name)}"
    if metric.source == "Pods":
        return f"/apis/custom.metrics.k8s.io/v1beta2/{where}/pods/*/{quote(metric.name)}?{query}"
    if metric.source == "Object":
        thing = f"{metric.object_kind.lower()}s/{quote(metric.object_name)}"
        return f"/apis/custom.metrics.k8s.io/v1beta2/{where}/{thing}/{quote(metric.name)}"
    return f"/apis/metrics.k8s.io/v1beta1/{where}/pods?{query}"
