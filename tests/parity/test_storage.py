"""Volumes and configuration."""

from __future__ import annotations

from tests.cluster.helpers import Namespace, config_map, until
from tests.parity.behaviours import behaviour
from tests.parity.pods import python_pod


@behaviour("ConfigMaps and Secrets are files at their mount path and variables in the environment")
def test_configuration(space: Namespace) -> None:
    space.apply(config_map("settings", colour="green"))
    space.kubectl("create", "secret", "generic", "key", "--from-literal=token=s3cret")
    container = {
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "volumeMounts": [{"name": "key", "mountPath": "/etc/key", "readOnly": True}],
    }
    space.apply(
        python_pod("reads", container=container, volumes=[{"name": "key", "secret": {"secretName": "key"}}])
    )
    space.ready("reads")
    program = "import os; print(os.environ['colour'], open('/etc/key/token').read())"
    assert space.exec("reads", "python", "-c", program).split() == ["green", "s3cret"]


@behaviour("Containers of a pod share an emptyDir")
def test_empty_dir(space: Namespace) -> None:
    mount = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    two = python_pod("two", container=mount, volumes=[{"name": "shared", "emptyDir": {}}])
    two["spec"]["containers"].append({**two["spec"]["containers"][0], "name": "side"})
    space.apply(two)
    space.ready("two")
    space.kubectl("exec", "two", "-c", "side", "--", "sh", "-c", "echo hello > /shared/note")
    assert space.kubectl("exec", "two", "-c", "main", "--", "cat", "/shared/note").strip() == "hello"


@behaviour("A PersistentVolumeClaim is provisioned, and its data outlive the pod")
def test_claim(space: Namespace) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
    kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}}
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    claimed = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    keeper = python_pod("keeper", container=mount, volumes=claimed)
    space.apply({**kind, "spec": spec}, keeper)
    space.ready("keeper")
    assert space.get("pvc", "data")["status"]["phase"] == "Bound"
    space.exec("keeper", "sh", "-c", "echo kept > /data/note")
    space.kubectl("delete", "pod", "keeper", "--timeout=60s")
    space.apply(keeper)
    space.ready("keeper")
    assert space.exec("keeper", "cat", "/data/note").strip() == "kept"


@behaviour("A changed ConfigMap arrives in the volumes of running pods")
def test_configuration_changes(space: Namespace) -> None:
    space.apply(config_map("settings", colour="green"))
    mount = {"volumeMounts": [{"name": "settings", "mountPath": "/settings"}]}
    volumes = [{"name": "settings", "configMap": {"name": "settings"}}]
    space.apply(python_pod("watches", container=mount, volumes=volumes))
    space.ready("watches")
    space.apply(config_map("settings", colour="blue"))
    until(lambda: space.exec("watches", "cat", "/settings/colour") == "blue", 120, "the new value", every=2)
