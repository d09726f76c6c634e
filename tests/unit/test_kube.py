"""labkit.kube without a cluster: manifests, conditions, and a server that misbehaves over real HTTP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import ConfigError, KubeError, WaitTimeout
from labkit.kube import Conflict, Forbidden, Kube, NotFound, Unreachable, dig, quantity
from labkit.kube.conditions import parse, rollout_lacks
from labkit.kube.manifests import Document, load

from .api_server import Answer, Server, events, kubeconfig

CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\n"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def kube(server: Server, tmp_path: Path) -> Kube:
    return Kube(kubeconfig(tmp_path, server.port), patience_s=2)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def pod(name: str, version: int, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}, "status": status}


def listed(version: int, *items: dict[str, Any]) -> Answer:
    return 200, {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": str(version)},
        "items": [*items],
    }


@pytest.mark.parametrize(
    ("code", "kind"), [(401, Forbidden), (403, Forbidden), (404, NotFound), (409, Conflict), (422, KubeError)]
)
def test_refusals_are_typed_and_carry_the_servers_words(
    code: int, kind: type, server: Server, kube: Kube
) -> None:
    server.answers["/x"] = [(code, {"message": "no, because"})]
    server.answers["/readyz"] = [(200, {})]
    with pytest.raises(kind, match="no, because"):
        kube.request("GET", "/x")
    assert server.seen.count("GET /x") == 1


def test_a_restarting_server_is_waited_for(server: Server, kube: Kube) -> None:
    server.answers["/x"] = [
        (503, {"message": "starting"}),
        (500, {"message": "etcdserver: no leader"}),
        (200, {"ok": 1}),
    ]
    assert kube.request("GET", "/x") == {"ok": 1}


def test_a_server_that_forbids_everything_while_it_starts_is_waited_for(server: Server, kube: Kube) -> None:
    server.answers["/x"] = [(403, {"message": "no roles yet"}), (200, {"ok": 1})]
    server.answers["/readyz"] = [(403, {})]
    assert kube.request("GET", "/x") == {"ok": 1}


def test_refused_connections_are_repeated_for_the_patience_and_no_longer(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kube = Kube(kubeconfig(tmp_path, port), patience_s=0.6)
    begin = time.monotonic()
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port} has not answered"):
        kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}})
    assert 0.5 < time.monotonic() - begin < 3


def test_a_post_that_may_have_arrived_is_not_repeated(server: Server, kube: Kube) -> None:
    server.answers["/api/v1/namespaces/default/pods"] = [hang_up]
    with pytest.raises(Unreachable, match="Look, then repeat"):
        kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}})
    assert len([line for line in server.seen if line.startswith("POST")]) == 1


def test_watch_survives_an_expired_version_and_tells_what_changed_meanwhile(
    server: Server, kube: Kube
) -> None:
    path = "/api/v1/namespaces/default/pods"
    expired = ("ERROR", {"code": 410, "reason": "Expired"})
    server.answers[path] = [
        listed(1, pod("a", 1), pod("b", 1)),
        events(("MODIFIED", pod("a", 2)), ("BOOKMARK", pod("", 5))),
        events(expired),
        listed(9, pod("a", 2), pod("c", 8)),
        events(("DELETED", pod("c", 10)), then="stay"),
    ]
    with kube.watch("Pod", count=6, timeout_s=10) as watch:
        found = [(event.type, dig(event.object, "metadata.name")) for event in watch]
    assert found == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("MODIFIED", "a"),
        ("DELETED", "b"),
        ("ADDED", "c"),
        ("DELETED", "c"),
    ]
    assert watch.gaps == 1
    assert any("resourceVersion=5" in line for line in server.seen), "goes on from the bookmark"


def test_watch_ends_in_time_and_by_close(server: Server, kube: Kube) -> None:
    server.answers["/api/v1/namespaces/default/pods"] = [listed(1), events(then="stay")]
    watch = kube.watch("Pod", timeout_s=60)
    closer = threading.Timer(0.3, watch.close)
    closer.start()
    begin = time.monotonic()
    assert list(watch) == [] and time.monotonic() - begin < 5


def test_wait_polls_until_true_and_names_the_state_when_late(server: Server, kube: Kube) -> None:
    path = "/api/v1/namespaces/default/pods/web"
    waiting = {
        "name": "c",
        "image": "shop/x:9",
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "gone"}},
    }
    full = {"kind": "Pod", "apiVersion": "v1", **pod("web", 1, containerStatuses=[waiting])}
    ready = {**full, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    server.answers[path] = [(404, {"message": "none"}), (200, full), (200, ready)]
    assert dig(kube.wait("Pod", "web", timeout_s=5), "metadata.name") == "web"
    server.answers[path] = [(200, full)]
    server.answers["/api/v1/namespaces/default/events"] = [(200, {"apiVersion": "v1", "items": []})]
    with pytest.raises(WaitTimeout) as caught:
        kube.wait("Pod", "web", timeout_s=0.1)
    assert "Pod web is not Ready after 0.1 s" in caught.value.message
    assert "ImagePullBackOff: image shop/x:9 cannot be pulled: gone" in caught.value.hint


def test_wait_gives_up_at_once_when_it_cannot_come_true(server: Server, kube: Kube) -> None:
    failed = {"conditions": [{"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}]}
    job = {"kind": "Job", "apiVersion": "batch/v1", **pod("job", 1, **failed)}
    server.answers["/api/v1/namespaces/default/pods/job"] = [(200, job)]
    server.answers["/api/v1/namespaces/default/events"] = [(200, {"apiVersion": "v1", "items": []})]
    begin = time.monotonic()
    with pytest.raises(WaitTimeout, match="BackoffLimitExceeded"):
        kube.wait("Pod", "job", "Complete", timeout_s=30)
    assert time.monotonic() - begin < 5


def test_unusable_kubeconfig_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    for file in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(KubeError, match="cannot be used"):
            Kube(file)


def test_documents_know_their_file_line_and_number(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(
        f"# first\n---\n{CONFIG_MAP}---\n---\n{CONFIG_MAP.replace('cm', 'two')}data:\n  key: v\n  keyy: v\n"
    )
    first, second = load(file, None)
    assert (first.number, first.line, second.number, second.line) == (1, 3, 2, 8)
    error = second.error(
        "failed to create typed patch object (x; v1): .data.keyy: field not declared in schema"
    )
    assert error.message == f"{file}, line 13, document 2 (ConfigMap two): there is no field data.keyy"
    assert "kubectl explain configmap.data" in error.hint
    listing = f"kind: List\napiVersion: v1\nitems:\n- {CONFIG_MAP.replace(chr(10), chr(10) + '  ')}\n"
    assert [document.obj["metadata"]["name"] for document in load(listing, None)] == ["cm"]
    assert [document.source for document in load(tmp_path, None)] == [str(file), str(file)]
    when = load(CONFIG_MAP + "data: {at: 2024-01-01T00:00:00Z}\n", None)[0].obj["data"]["at"]
    assert when == "2024-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [\nb: 1\n", "line 3: not valid YAML"),
        (CONFIG_MAP + "kind: Pod\n", "line 4: not valid YAML: the key 'kind' is there twice"),
        ("kind: Pod\nmetadata: {}\n", "apiVersion and metadata.name missing"),
        ("- 1\n- 2\n", "is not an object"),
    ],
)
def test_bad_manifests_are_refused_with_their_place(text: str, message: str) -> None:
    with pytest.raises(KubeError, match=message):
        load(text, None)


def test_kustomization_goes_through_the_real_kubectl(tmp_path: Path, kube: Kube) -> None:
    (tmp_path / "cm.yaml").write_text(CONFIG_MAP)
    (tmp_path / "kustomization.yaml").write_text("resources: [cm.yaml]\nnamePrefix: my-\n")
    assert load(tmp_path, kube.kubectl)[0].obj["metadata"]["name"] == "my-cm"
    (tmp_path / "kustomization.yaml").write_text("resources: [none.yaml]\n")
    with pytest.raises(KubeError, match=r"none\.yaml"):
        load(tmp_path, kube.kubectl)
    with pytest.raises(KubeError, match="kubectl was not found"):
        load(tmp_path, None)


OBJ = {
    "kind": "Deployment",
    "metadata": {"generation": 2},
    "spec": {"replicas": 2},
    "status": {"readyReplicas": 2, "conditions": [{"type": "Available", "status": "True"}], "phase": "Bound"},
}


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("Available", True),
        ("Available=False", False),
        ("Missing", False),
        ("status.readyReplicas >= 2", True),
        ("status.unavailableReplicas == 0", True),
        ("status.phase == Bound", True),
        ("status.phase != 'Bound'", False),
        ("status.phase > 3", False),
        ("status.conditions[0].type == Available", True),
        ("exists", True),
        ("deleted", False),
        ("rolled out", False),
        (lambda obj: obj["spec"]["replicas"] == 2, True),
    ],
)
def test_conditions(until: Any, expected: bool) -> None:
    test, _ = parse(until)
    assert test(OBJ) is expected
    assert test(None) is (until == "deleted")


@pytest.mark.parametrize("until", ["", "ready", "a b", "status.x = 1", "Ready=Yes"])
def test_no_condition_is_refused(until: str) -> None:
    with pytest.raises(ConfigError, match="is not a condition"):
        parse(until)


@pytest.mark.parametrize(
    ("status", "lacks"),
    [
        ({}, "not seen the change"),
        ({"observedGeneration": 2, "updatedReplicas": 1}, "1 of 2 new replicas exist"),
        ({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 3}, "1 old replicas"),
        (
            {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 1},
            "1 of 2 new replicas are",
        ),
        ({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 2}, ""),
    ],
)
def test_rollout(status: dict[str, int], lacks: str) -> None:
    found = rollout_lacks({**OBJ, "status": status})
    assert lacks in found and bool(lacks) == bool(found)


@pytest.mark.parametrize(
    ("text", "value"),
    [("250m", 0.25), ("1Gi", 2**30), (2, 2), ("1e3", 1000), ("12345678n", 0.012345678), ("1k", 1000)],
)
def test_quantities(text: str | int, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


@given(st.text(alphabet="0123456789.mKiGe+- ", max_size=6))
def test_quantities_are_numbers_or_refused(text: str) -> None:
    try:
        assert isinstance(quantity(text), float)
    except ConfigError as err:
        assert repr(text) in err.message


def test_errors_of_objects_say_object() -> None:
    assert (
        Document({"kind": "Pod", "metadata": {"name": "x"}}, "object", 1).where
        == "object, document 1 (Pod x)"
    )
