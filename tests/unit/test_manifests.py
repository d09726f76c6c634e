"""The shop's manifests: they build, mean what they say, and agree with the docker-compose file they came from."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes.client
import pytest
import yaml

from labkit.kube import quantity
from labkit.tools import kubectl

ROOT = Path(__file__).resolve().parents[2]
SHOP, HPA = ROOT / "manifests" / "shop", ROOT / "manifests" / "hpa"
SERVICES = ("catalog", "frontend", "orders", "pricing")
FOLDERS = sorted(path.parent for top in (SHOP, HPA) for path in top.rglob("kustomization.yaml"))
SHOPS = [folder for folder in FOLDERS if folder.is_relative_to(SHOP)]
NAME = "app.kubernetes.io/name"
VERSION = "app.kubernetes.io/version"


@cache
def built(folder: Path) -> tuple[dict[str, Any], ...]:
    """What `kubectl apply -k` would send."""
    done = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower(), done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Objects of a kind, by name."""
    return {obj["metadata"]["name"]: obj for obj in built(folder) if obj["kind"] == kind}


def container(folder: Path, name: str) -> dict[str, Any]:
    """The only container of a Deployment."""
    (only,) = of_kind(folder, "Deployment")[name]["spec"]["template"]["spec"]["containers"]
    return dict(only)


def short(folder: Path) -> str:
    """A name for a parametrized test."""
    return str(folder.relative_to(ROOT / "manifests"))


# --- every object is one that Kubernetes knows


def model_of(api_version: str, kind: str) -> Any:
    """The official client's class for a kind."""
    group, _, version = api_version.rpartition("/")
    prefix = {"rbac.authorization.k8s.io": "Rbac"}.get(group, "")
    return getattr(kubernetes.client, f"{prefix}{version.capitalize()}{kind}")


def unknown_fields(value: Any, type_name: str, path: str = "") -> list[str]:
    """Paths of fields that the API does not have, by the official client's own list of them."""
    outer, _, inner = type_name.rstrip("])").replace("(", "[").partition("[")
    if outer.lower() == "list":
        items = enumerate(value) if isinstance(value, list) else [(-1, None)]
        return [bad for i, item in items for bad in unknown_fields(item, inner, f"{path}[{i}]")]
    if outer.lower() == "dict":
        inner = inner.split(", ")[1]
        return [bad for key, item in value.items() for bad in unknown_fields(item, inner, f"{path}.{key}")]
    model = getattr(kubernetes.client, type_name, None)
    if model is None:
        wanted = {"int": int, "bool": bool, "str": str}.get(type_name, object)
        return [] if isinstance(value, wanted) else [f"{path}: {value!r} is no {type_name}"]
    if not isinstance(value, dict):
        return [f"{path}: {value!r} is no {type_name}"]
    fields = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    bad = [f"{path}.{key}" for key in value if key not in fields]
    for key, item in value.items():
        if key in fields:
            bad += unknown_fields(item, fields[key], f"{path}.{key}")
    return bad


@pytest.mark.parametrize("folder", FOLDERS, ids=short)
def test_every_field_exists_and_every_object_is_in_the_shop(folder: Path) -> None:
    for obj in built(folder):
        model = model_of(obj["apiVersion"], obj["kind"])
        assert not unknown_fields(obj, model.__name__), f"{obj['kind']} {obj['metadata']['name']}"
        if obj["kind"] != "Namespace":
            assert obj["metadata"]["namespace"] == "shop"


def test_the_field_check_finds_typos() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "spec": {"selectr": {}, "ports": [{"port": "80"}]}}
    assert unknown_fields(wrong, "V1Service") == [".spec.selectr", ".spec.ports[0].port: '80' is no int"]


# --- what each pod must have


@pytest.mark.parametrize("folder", SHOPS, ids=short)
@pytest.mark.parametrize("name", SERVICES)
def test_pods_are_probed_limited_and_confined(folder: Path, name: str) -> None:
    deployment = of_kind(folder, "Deployment")[name]
    pod, main = deployment["spec"]["template"]["spec"], container(folder, name)
    assert [main[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")] == [
        "/healthz", "/readyz", "/healthz",
    ]  # fmt: skip
    assert main["imagePullPolicy"] == "IfNotPresent"
    assert set(main["resources"]["requests"]) == {"cpu", "memory"} and "memory" in main["resources"]["limits"]
    assert quantity(main["resources"]["requests"]["memory"]) <= quantity(
        main["resources"]["limits"]["memory"]
    )
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False and pod["serviceAccountName"] == name
    assert of_kind(folder, "ServiceAccount")[name]["automountServiceAccountToken"] is False
    user = (ROOT / "services" / name / "Dockerfile").read_text().split("USER ")[1].split()[0]
    assert pod["securityContext"]["runAsUser"] == int(user)


@pytest.mark.parametrize("name", SERVICES)
def test_the_grace_period_covers_drain_and_shutdown(name: str) -> None:
    pod = of_kind(SHOP / "base", "Deployment")[name]["spec"]["template"]["spec"]
    env = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert pod["terminationGracePeriodSeconds"] > int(env["DRAIN_SECONDS"]) + int(env["SHUTDOWN_SECONDS"])
    probe = pod["containers"][0]["readinessProbe"]
    assert int(env["DRAIN_SECONDS"]) > probe["periodSeconds"], "or nobody notices in time that it drains"


@pytest.mark.parametrize("folder", SHOPS, ids=short)
def test_selectors_services_and_budgets_point_at_pods(folder: Path) -> None:
    deployments = of_kind(folder, "Deployment")
    labels = {name: d["spec"]["template"]["metadata"]["labels"] for name, d in deployments.items()}
    assert set(deployments) == set(SERVICES)
    for name, deployment in deployments.items():
        assert deployment["spec"]["selector"]["matchLabels"] == {NAME: name}
        assert of_kind(folder, "Service")[name]["spec"]["selector"] == {NAME: name}
        assert labels[name][NAME] == name and labels[name]["app.kubernetes.io/part-of"] == "shop"
    for name, budget in of_kind(folder, "PodDisruptionBudget").items():
        replicas = deployments[name]["spec"].get("replicas", 1)
        assert budget["spec"]["selector"]["matchLabels"] == {NAME: name}
        least = budget["spec"].get("minAvailable", replicas - budget["spec"].get("maxUnavailable", 0))
        assert least < replicas, f"{name}: the budget forbids every drain"
    assert "orders" not in of_kind(folder, "PodDisruptionBudget")


@pytest.mark.parametrize("folder", SHOPS, ids=short)
def test_the_version_label_is_the_tag_of_the_image(folder: Path) -> None:
    for name, deployment in of_kind(folder, "Deployment").items():
        image, _, tag = container(folder, name)["image"].partition(":")
        assert image == f"shop/{name}"
        expected = "v2" if folder.name == "v2" and name != "orders" else "v1"
        template = deployment["spec"]["template"]["metadata"]["labels"]
        assert tag == template[VERSION] == deployment["metadata"]["labels"][VERSION] == expected


@pytest.mark.parametrize("folder", SHOPS, ids=short)
def test_everything_that_is_mounted_or_read_exists(folder: Path) -> None:
    there = {kind: of_kind(folder, kind) for kind in ("ConfigMap", "Secret", "PersistentVolumeClaim")}
    for deployment in of_kind(folder, "Deployment").values():
        pod = deployment["spec"]["template"]["spec"]
        for source in pod["containers"][0]["envFrom"]:
            assert source["configMapRef"]["name"] in there["ConfigMap"]
        mounted = {mount["name"] for mount in pod["containers"][0].get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod.get("volumes", [])}
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in there["ConfigMap"]
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in there["PersistentVolumeClaim"]
            if "secret" in volume:
                assert volume["secret"]["secretName"] in there["Secret"] or volume["secret"]["optional"]


def test_the_secret_is_done_right() -> None:
    assert not of_kind(SHOP / "base", "Secret"), "nothing secret in git"
    for folder in SHOPS:
        for name in SERVICES:
            sources = [entry.get("valueFrom", {}) for entry in container(folder, name)["env"]]
            assert not any("secretKeyRef" in source for source in sources), "a file, not a variable"
    (secret,) = of_kind(SHOP / "overlays" / "dev", "Secret")
    pod = of_kind(SHOP / "overlays" / "dev", "Deployment")["orders"]["spec"]["template"]["spec"]
    volume = next(volume["secret"] for volume in pod["volumes"] if "secret" in volume)
    assert volume["secretName"] == secret and volume["defaultMode"] == 0o440


# --- the overlays and the autoscaler do what their names say


def differences(folder: Path, name: str) -> set[str]:
    """Keys of a container's variables and of the Deployment that differ from the base."""
    old, new = container(SHOP / "base", name), container(folder, name)
    return {key for key in old | new if old.get(key) != new.get(key)}


def test_overlays_change_what_they_are_for() -> None:
    assert differences(SHOP / "overlays" / "v2", "frontend") == {"image"}
    assert differences(SHOP / "overlays" / "broken", "frontend") == {"env"}
    assert not differences(SHOP / "overlays" / "broken", "catalog")
    assert differences(SHOP / "overlays" / "dev", "catalog") == {"envFrom"}
    (settings,) = (m for n, m in of_kind(SHOP / "overlays" / "dev", "ConfigMap").items() if "settings" in n)
    assert settings["data"] == {"FAULTS": "on", "LOG_LEVEL": "debug"}


@pytest.mark.parametrize("folder", [HPA / "base", SHOP / "overlays" / "hpa"], ids=short)
def test_the_autoscaler_owns_the_number_of_pricing_pods(folder: Path) -> None:
    spec = of_kind(folder, "HorizontalPodAutoscaler")["pricing"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 6)
    assert spec["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
    assert "replicas" not in of_kind(SHOP / "base", "Deployment")[spec["scaleTargetRef"]["name"]]["spec"]
    resources = container(SHOP / "base", "pricing")["resources"]
    assert quantity(resources["limits"]["cpu"]) > quantity(resources["requests"]["cpu"]) * 0.6


def test_variants_of_the_autoscaler_change_one_thing() -> None:
    def behavior(name: str) -> dict[str, Any]:
        return dict(of_kind(HPA / name, "HorizontalPodAutoscaler")["pricing"]["spec"]["behavior"])

    base = behavior("base")
    changed = {
        name: {
            f"{way}.{key}"
            for way in ("scaleUp", "scaleDown")
            for key, value in behavior(name)[way].items()
            if base[way].get(key) != value
        }
        for name in ("tolerance", "slow-window", "strict-policy")
    }
    assert changed == {
        "tolerance": {"scaleUp.tolerance", "scaleDown.tolerance"},
        "slow-window": {"scaleUp.stabilizationWindowSeconds", "scaleDown.stabilizationWindowSeconds"},
        "strict-policy": {"scaleUp.policies", "scaleDown.policies"},
    }


# --- before and after: docker-compose.yml and the base describe the same shop

COMPOSE = yaml.safe_load((ROOT / "services" / "docker-compose.yml").read_text())
ONLY_KUBERNETES = {"POD_NAME", "DRAIN_SECONDS", "SHUTDOWN_SECONDS", "CPU_LIMIT_MILLICORES"}


def kubernetes_env(name: str) -> dict[str, str]:
    """Variables of a container, those of its ConfigMaps included, as they reach the process."""
    main = container(SHOP / "base", name)
    maps = of_kind(SHOP / "base", "ConfigMap")
    env = {k: v for ref in main["envFrom"] for k, v in maps[ref["configMapRef"]["name"]]["data"].items()}
    return env | {entry["name"]: entry.get("value", "") for entry in main["env"]}


def where(url: str) -> tuple[str, int]:
    """Host and container port behind a service's URL."""
    parts = urlsplit(url)
    if parts.port:
        return str(parts.hostname), parts.port
    (port,) = of_kind(SHOP / "base", "Service")[str(parts.hostname)]["spec"]["ports"]
    assert port["port"] == 80
    (named,) = container(SHOP / "base", str(parts.hostname))["ports"]
    assert port["targetPort"] == named["name"]
    return str(parts.hostname), named["containerPort"]


def test_compose_and_manifests_have_the_same_services_and_images() -> None:
    assert set(COMPOSE["services"]) == set(SERVICES)
    for name, service in COMPOSE["services"].items():
        assert service["image"] == container(SHOP / "base", name)["image"]
        assert service["build"]["args"]["VERSION"] == service["image"].partition(":")[2]
        assert (ROOT / "services" / service["build"]["context"] / "Dockerfile").is_file()


@pytest.mark.parametrize("name", SERVICES)
def test_compose_and_manifests_agree_on_variables(name: str) -> None:
    compose, cluster = COMPOSE["services"][name]["environment"], kubernetes_env(name)
    assert set(cluster) - set(compose) <= ONLY_KUBERNETES
    assert set(compose) <= set(cluster)
    for variable, value in compose.items():
        if variable.endswith("_URL"):
            assert where(value) == where(cluster[variable])
        else:
            assert value == cluster[variable], variable


@pytest.mark.parametrize("name", SERVICES)
def test_compose_and_manifests_agree_on_ports(name: str) -> None:
    service = COMPOSE["services"][name]
    (named,) = container(SHOP / "base", name)["ports"]
    published = [str(entry).rpartition(":")[2] for entry in service.get("ports", service.get("expose"))]
    assert published == [str(named["containerPort"])]
    assert f"EXPOSE {named['containerPort']}\n" in (ROOT / "services" / name / "Dockerfile").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_compose_and_manifests_agree_on_volumes(name: str) -> None:
    service = COMPOSE["services"][name]
    compose = {entry.split(":")[1] for entry in service.get("volumes", [])}
    compose |= {str(Path("/run/secrets", s["target"]).parent) for s in service.get("secrets", [])}
    mounts = container(SHOP / "base", name).get("volumeMounts", [])
    assert compose == {mount["mountPath"] for mount in mounts}
    env = kubernetes_env(name)
    for variable in ("CATALOG_FILE", "ORDERS_DB", "ORDERS_ADMIN_TOKEN_FILE"):
        if variable in env:
            assert str(Path(env[variable]).parent) in compose


def test_the_config_map_is_the_file_that_compose_mounts() -> None:
    file = ROOT / "services" / "catalog" / "config" / "products.toml"
    data = of_kind(SHOP / "base", "ConfigMap")["catalog-products"]["data"]
    assert data == {"products.toml": file.read_text()}
