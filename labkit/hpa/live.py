"""An autoscaler of a running cluster, with everything that its controller looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from labkit.cluster.base import Cluster
from labkit.cluster.commands import CONTROLLER_MANAGER, CommandLine, in_pod
from labkit.cluster.providers import cluster_at
from labkit.errors import ConfigError, KubeError, LabkitError
from labkit.hpa import observe
from labkit.hpa.errors import MetricUnavailable, SelectorFault
from labkit.hpa.explain import Explanation, explain
from labkit.hpa.manifest import from_manifest
from labkit.hpa.spec import Controller, HpaSpec, Metric
from labkit.kube import Kube, NotFound, dig
from labkit.kube.objects import Object, Objects, label_query

CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
APIS = {"External": "external", "Pods": "custom", "Object": "custom"}
MANY_HPAS = "Keep one of them, or let each scale a target whose selector matches none of the other's pods."


def explain_live(
    where: Kube | Cluster, name: str, namespace: str = "default", controller: Controller | None = None
) -> Explanation:
    """Explain an autoscaler of a cluster.

    Args:
        where: the cluster, or its API.
        controller: its controller's flags. Where None they are read from the kube-controller-manager that
            runs: on a labkit cluster from its process or pod, elsewhere from its pod in kube-system.
            Where it cannot be seen, upstream's defaults are assumed. The explanation says which it was.

    Raises:
        KubeError: there is no such autoscaler, or its target cannot be read.
    """
    kube = where if isinstance(where, Kube) else where.kube
    hpa = kube.get("HorizontalPodAutoscaler", name, namespace=namespace)
    flags, source = (controller, "the caller") if controller else seen_controller(where)
    spec = from_manifest(hpa, flags)
    scale = _scale(kube, spec)
    selector = str(dig(scale, "status.selector", ""))
    pods = kube.list("Pod", namespace=namespace, labels=selector) if selector else []
    return explain(
        hpa,
        pods,
        [_answer(kube, metric, namespace, selector) for metric in spec.metrics],
        kube.events(hpa),
        controller=flags,
        scale=scale,
        source=source,
        fault=_fault(kube, hpa, selector, pods),
    )


def seen_controller(where: Kube | Cluster) -> tuple[Controller, str]:
    """The flags of the kube-controller-manager that runs, and where they were read; "" where assumed."""
    line = _command_line(where)
    return observe.controller(line.words), line.source


def _command_line(where: Kube | Cluster) -> CommandLine:
    cluster = cluster_at(where.connection.settings.host) if isinstance(where, Kube) else where
    if cluster is not None:
        try:
            return cluster.controller_manager()
        except LabkitError:
            pass  # its API answers, its supervisor does not
    return in_pod(where if isinstance(where, Kube) else where.kube, CONTROLLER_MANAGER)


def _scale(kube: Kube, spec: HpaSpec) -> Object:
    """The scale subresource of an autoscaler's target."""
    resource = kube.connection.mapped(spec.target_kind, spec.target_api_version)
    path = resource.path(name=spec.target_name, namespace=spec.namespace)
    scale: Object = kube.request("GET", f"{path}/scale")
    return scale


def _fault(kube: Kube, hpa: Object, selector: str, pods: Objects) -> SelectorFault | None:
    """What keeps the controller from working with the pods, as validateAndParseSelector finds it."""
    if not selector:
        hint = "The target's kind must give the scale subresource a selector."
        return SelectorFault("InvalidSelector", "the HPA target's scale is missing a selector", hint)
    meta = hpa["metadata"]
    rivals = [each for each in _others(kube, hpa) if _shares(kube, each, pods)]
    if not rivals:
        return None
    names = ", ".join(sorted([meta["name"], *(each["metadata"]["name"] for each in rivals)]))
    said = f"the pods selected by {selector} are controlled by more than one autoscaler ({names})"
    return SelectorFault("AmbiguousSelector", said, MANY_HPAS)


def _others(kube: Kube, hpa: Object) -> Objects:
    namespace, name = hpa["metadata"]["namespace"], hpa["metadata"]["name"]
    every = kube.list("HorizontalPodAutoscaler", namespace=namespace)
    return [each for each in every if each["metadata"]["name"] != name]


def _shares(kube: Kube, hpa: Object, pods: Objects) -> bool:
    """Whether another autoscaler's target selects one of the pods."""
    try:
        spec = from_manifest(hpa)
        selector = dig(_scale(kube, spec), "status.selector", "")
    except (KubeError, ConfigError):
        return False  # the controller knows no selector of it either
    if not selector or not pods:
        return False
    theirs = kube.list("Pod", namespace=spec.namespace, labels=selector)
    return not {dig(each, "metadata.uid") for each in pods}.isdisjoint(
        dig(each, "metadata.uid") for each in theirs
    )


def _answer(kube: Kube, metric: Metric, namespace: str, selector: str) -> Object | MetricUnavailable:
    """What the metrics API says for one metric, or why it says nothing."""
    try:
        path, query = _question(kube, metric, namespace, selector)
        answer: Object = kube.request("GET", path, query=query)
        return answer
    except (KubeError, ConfigError) as error:
        api = APIS.get(metric.source, "resource")
        return MetricUnavailable(f"unable to fetch metrics from {api} metrics API: {error.message}")


def _question(kube: Kube, metric: Metric, namespace: str, selector: str) -> tuple[str, dict[str, Any]]:
    """Path and query for one metric, as the controller's clients ask (k8s.io/metrics/pkg/client)."""
    inside, name = f"namespaces/{namespace}", quote(metric.name, safe="")
    series = label_query(dict(metric.selector or {}))
    if metric.source == "External":
        return f"{_api(kube, EXTERNAL, ('v1beta1',))}/{inside}/{name}", {"labelSelector": series}
    if metric.source == "Pods":
        query = {"labelSelector": selector, "metricLabelSelector": series}
        return f"{_api(kube, CUSTOM)}/{inside}/pods/*/{name}", query
    if metric.source == "Object":
        thing = _described(kube, metric)
        return f"{_api(kube, CUSTOM)}/{inside}/{thing}/{name}", {"metricLabelSelector": series}
    return f"/apis/metrics.k8s.io/v1beta1/{inside}/pods", {"labelSelector": selector}


def _described(kube: Kube, metric: Metric) -> str:
    """`ingresses.networking.k8s.io/web`; the autoscaler's own namespace is `metrics`, whatever its name."""
    group = metric.object_api_version.rpartition("/")[0]
    if (metric.object_kind, group) == ("Namespace", ""):
        return "metrics"
    resource = kube.connection.mapped(metric.object_kind, metric.object_api_version)
    plural = f"{resource.name}.{group}" if group else resource.name
    return f"{plural}/{quote(metric.object_name, safe='')}"


def _api(kube: Kube, group: str, known: Sequence[str] = ("v1beta2", "v1beta1")) -> str:
    """The path of a metrics API, in the version that its server prefers of those the controller knows."""
    try:
        served = kube.request("GET", f"/apis/{group}")
        preferred = dig(served, "preferredVersion.version", "")
        versions = [preferred, *(each["version"] for each in served.get("versions") or [])]
    except NotFound:
        versions = []
    return f"/apis/{group}/{next((each for each in versions if each in known), known[0])}"
