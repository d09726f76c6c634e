"""What can go wrong between labkit.kube and an API server: answers that break off, refusals, old news."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import ConfigError, KubeError, WaitTimeout
from labkit.kube import Kube, NotFound, TooManyRequests, Unreachable, dig
from labkit.kube.conditions import hopeless, parse, rollout_lacks

from .api_server import Server, events, kubeconfig
from .test_kube import hang_up, listed, pod

PODS = "/api/v1/namespaces/default/pods"
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def kube(server: Server, tmp_path: Path) -> Kube:
    return Kube(kubeconfig(tmp_path, server.port), patience_s=2)


def torn(status: int = 200, *, chunked: bool = False) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer whose headers promise more than comes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", "100")))
        handler.end_headers()
        handler.wfile.write(b'5\r\n{"a":\r\n' if chunked else b'{"a":')
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    return answer


def half(handler: BaseHTTPRequestHandler) -> None:
    """Half an answer of a server that names no length, so that only the JSON tells."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(b'{"items": [')
    handler.close_connection = True


def refused(code: int, message: str, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps({"message": message}).encode()
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize("broken", [torn(), torn(chunked=True), torn(500), half])
def test_an_answer_that_breaks_off_is_asked_for_again(broken: Any, server: Server, kube: Kube) -> None:
    server.answers["/x"] = [broken, (200, {"ok": 1})]
    assert kube.request("GET", "/x") == {"ok": 1}
    server.answers["/x"] = [broken]
    with pytest.raises(Unreachable, match="has not answered"):
        Kube(kube.connection.kubeconfig, patience_s=0.3).request("GET", "/x")


def test_a_log_that_breaks_off_is_read_again(server: Server, kube: Kube) -> None:
    server.answers[f"{PODS}/x/log"] = [torn(), refused(200, "all of it")]
    assert "all of it" in kube.logs("x")


def test_discovery_that_breaks_off_is_asked_for_again(server: Server, kube: Kube) -> None:
    server.answers["/api/v1"].insert(0, torn())
    server.answers[PODS] = [listed(1)]
    assert kube.list("Pod") == []


@pytest.mark.parametrize(
    "answer",
    [
        torn(),
        torn(201, chunked=True),
        refused(504, "timeout"),
        refused(502, "bad gateway"),
        refused(503, "backend gone"),
        refused(500, "etcdserver: request timed out"),
    ],
)
def test_a_post_that_may_have_been_carried_out_is_not_repeated(
    answer: Any, server: Server, kube: Kube
) -> None:
    server.answers[PODS] = [answer]
    with pytest.raises(Unreachable, match="may have been carried out") as caught:
        kube.create(POD)
    assert caught.value.hint == "Look, then repeat."
    assert len([line for line in server.seen if line.startswith("POST")]) == 1


@pytest.mark.parametrize("code", [429, 503])
def test_a_post_that_was_put_off_is_repeated_when_the_server_says(
    code: int, server: Server, kube: Kube
) -> None:
    server.answers[PODS] = [refused(code, "later", Retry_After="1"), (201, POD)]
    begin = time.monotonic()
    assert kube.create(POD) == POD
    assert time.monotonic() - begin >= 1


def test_too_many_requests_is_told_as_what_it_is(server: Server, kube: Kube) -> None:
    budget = "Cannot evict pod as it would violate the pod's disruption budget."
    server.answers[f"{PODS}/x/eviction"] = [refused(429, budget, Retry_After="10")]
    with pytest.raises(TooManyRequests, match="disruption budget"):
        kube.request("POST", f"{PODS}/x/eviction", body={})
    asked = len([line for line in server.seen if "eviction" in line])
    assert asked == 1, "the pause that the server asks for is longer than the patience"


def test_a_watch_that_is_refused_again_and_again_makes_pauses(server: Server, kube: Kube) -> None:
    server.answers[PODS] = [
        answer
        for _ in range(500)
        for answer in (listed(1), events(("ERROR", {"code": 410, "reason": "Expired"})))
    ]
    with kube.watch("Pod", timeout_s=2) as watch:
        assert list(watch) == []
    assert watch.gaps and len(server.seen) < 40, len(server.seen)
    assert watch.error and "Expired" in watch.error.message


@pytest.mark.parametrize("answer", [events(), torn(), half, events(("MODIFIED", pod("a", 2)))])
def test_a_watch_whose_connections_end_at_once_makes_pauses(answer: Any, server: Server, kube: Kube) -> None:
    server.answers[PODS] = [listed(1, pod("a", 1)), answer]
    with kube.watch("Pod", timeout_s=2) as watch:
        assert "ADDED" in [event.type for event in watch]
    assert len(server.seen) < 30, len(server.seen)


def test_a_watch_survives_lists_that_break_off_and_says_when_it_is_not_connected(
    server: Server, kube: Kube
) -> None:
    patient = Kube(kube.connection.kubeconfig, patience_s=0)
    server.answers[PODS] = [torn(), torn(), half, listed(1, pod("a", 1)), events(then="stay")]
    watch = patient.watch("Pod", timeout_s=20)
    states = []
    for event in watch:
        states.append((event.type, watch.gaps))
        threading.Timer(0.5, watch.close).start()
    assert states == [("ADDED", 3)]
    assert watch.error and not watch.connected, "an iterator that has ended follows nothing"


def test_a_watch_of_a_server_that_hangs_is_not_connected(
    server: Server, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    thawed = threading.Event()

    def hang(_: BaseHTTPRequestHandler) -> None:
        """A stopped server's connections open, but not even headers come."""
        thawed.wait(60)

    monkeypatch.setattr("labkit.kube.watching._MARGIN_S", 0.5)
    server.answers[PODS] = [listed(1, pod("a", 1)), events(then="stay"), hang]
    watch = kube.watch("Pod", timeout_s=30, renew_s=1)
    follower = threading.Thread(target=lambda: list(watch))
    follower.start()
    try:
        _until(lambda: watch.connected)
        _until(lambda: not watch.connected)
        assert watch.error and "broke" in watch.error.message
    finally:
        watch.close()
        thawed.set()
        follower.join(10)


def test_a_watch_that_is_left_by_an_error_is_not_connected(server: Server, kube: Kube) -> None:
    server.answers[PODS] = [listed(1, pod("a", 1)), events(("MODIFIED", pod("a", 2)), then="stay")]
    watch = kube.watch("Pod", timeout_s=30)

    def follow() -> None:
        for event in watch:
            if event.type == "MODIFIED":
                raise RuntimeError("a bug of the follower's")

    with pytest.raises(RuntimeError):
        follow()
    _until(lambda: not watch.connected)


def _until(true: Callable[[], bool], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def test_a_log_that_breaks_off_while_it_is_followed_is_a_typed_error(server: Server, kube: Kube) -> None:
    server.answers[f"{PODS}/x/log"] = [torn(chunked=True)]
    with pytest.raises(Unreachable, match="broke off"):
        list(kube.follow_logs("x", timeout_s=20))


def test_a_log_is_followed_for_no_longer_than_asked(server: Server, kube: Kube) -> None:
    def late(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for pause_s, line in ((1.0, b"in time\n"), (3.6, b"too late\n")):
            time.sleep(pause_s)
            handler.wfile.write(line)
            handler.wfile.flush()
        time.sleep(20)

    server.answers[f"{PODS}/x/log"] = [late]
    assert list(kube.follow_logs("x", timeout_s=4)) == ["in time"]


# What waiting makes of a status that is older than the last change.


def deployment(generation: int, observed: int, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "generation": generation},
        "spec": {"replicas": 1},
        "status": {"observedGeneration": observed, **status},
    }


OVER = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
DONE = {"updatedReplicas": 1, "replicas": 1, "availableReplicas": 1, "readyReplicas": 1}
FAILED = {"conditions": [{"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}]}
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": "default"}}


def test_a_mended_rollout_is_waited_for(server: Server, kube: Kube) -> None:
    server.answers[f"{PODS}/web"] = [
        (200, deployment(2, 1, conditions=[OVER])),
        (200, deployment(2, 1, conditions=[OVER])),
        (200, deployment(2, 2, conditions=[], **DONE)),
    ]
    assert dig(kube.wait("Pod", "web", "rolled out", timeout_s=20), "status.observedGeneration") == 2


def test_a_failed_job_that_is_deleted_is_waited_for(server: Server, kube: Kube) -> None:
    server.answers[f"{PODS}/job"] = [(200, {**JOB, "status": FAILED})] * 3 + [(404, {"message": "gone"})]
    assert kube.wait("Pod", "job", "deleted", timeout_s=20) is None


@pytest.mark.parametrize(
    ("until", "obj", "vain"),
    [
        ("rolled out", deployment(2, 2, conditions=[OVER]), True),
        ("Rolled Out", deployment(2, 2, conditions=[OVER]), True),
        ("rolled out", deployment(3, 2, conditions=[OVER]), False),
        ("Available", deployment(2, 2, conditions=[OVER]), False),
        ("deleted", deployment(2, 2, conditions=[OVER]), False),
        ("status.readyReplicas >= 1", deployment(2, 2, conditions=[OVER]), False),
        ("Complete", {**JOB, "status": FAILED}, True),
        ("Complete=True", {**JOB, "status": FAILED}, True),
        ("Complete=False", {**JOB, "status": FAILED}, False),
        ("Suspended", {**JOB, "status": FAILED}, False),
        ("Failed", {**JOB, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}, True),
        (lambda _: False, {**JOB, "status": FAILED}, False),
        ("Complete", None, False),
    ],
)
def test_only_what_is_waited_for_can_be_hopeless(until: Any, obj: Any, vain: bool) -> None:
    assert bool(hopeless(until, obj)) is vain


AVAILABLE = {"type": "Available", "status": "True"}


@pytest.mark.parametrize(
    ("until", "obj", "done"),
    [
        ("Available", deployment(2, 1, conditions=[AVAILABLE]), False),
        ("Available", deployment(2, 2, conditions=[AVAILABLE]), True),
        ("Available", deployment(2, 1, conditions=[{**AVAILABLE, "observedGeneration": 2}]), True),
        ("Available", deployment(2, 2, conditions=[{**AVAILABLE, "observedGeneration": 1}]), False),
        ("status.readyReplicas >= 1", deployment(2, 1, **DONE), False),
        ("status.readyReplicas >= 1", deployment(2, 2, **DONE), True),
        ("status.observedGeneration >= 1", deployment(2, 1, **DONE), True),
        ("spec.replicas == 1", deployment(2, 1, **DONE), True),
        ("rolled out", deployment(2, 1, **DONE), False),
    ],
)
def test_an_old_status_is_no_success(until: str, obj: Any, done: bool) -> None:
    test, _ = parse(until)
    assert test(obj) is done


def test_a_partitioned_rollout_ends_as_kubectl_says() -> None:
    update = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    status = {"observedGeneration": 1, "readyReplicas": 3, "updateRevision": "b", "currentRevision": "a"}
    obj = {
        "kind": "StatefulSet",
        "metadata": {"generation": 1},
        "spec": {"replicas": 3, "updateStrategy": update},
    }
    assert "0 of 1 new" in rollout_lacks({**obj, "status": {**status, "updatedReplicas": 0}})
    assert rollout_lacks({**obj, "status": {**status, "updatedReplicas": 1}}) == ""


# Exec, over a real WebSocket.


def session(*frames: tuple[int, bytes], end: bool = True) -> Callable[[BaseHTTPRequestHandler], None]:
    """An exec stream that sends frames (channel, data), and says good-bye if `end`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        key = handler.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        handler.send_response(101)
        handler.send_header("Upgrade", "websocket")
        handler.send_header("Connection", "Upgrade")
        handler.send_header(
            "Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        )
        handler.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        handler.end_headers()
        for channel, data in frames:
            handler.wfile.write(
                bytes([0x82, 126]) + (len(data) + 1).to_bytes(2, "big") + bytes([channel]) + data
            )
        if end:
            handler.wfile.write(bytes([0x88, 2]) + (1000).to_bytes(2, "big"))
        handler.wfile.flush()
        time.sleep(0.2)
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    return answer


def status(**fields: Any) -> bytes:
    return json.dumps({"kind": "Status", "apiVersion": "v1", **fields}).encode()


SUCCESS = status(status="Success")
CODE_3 = status(
    status="Failure", reason="NonZeroExitCode", details={"causes": [{"reason": "ExitCode", "message": "3"}]}
)
NO_PROGRAM = status(
    status="Failure", reason="InternalError", message="exec: no such file",
    details={"causes": [{"message": "exec: no such file"}]},
)  # fmt: skip
EXEC = f"{PODS}/x/exec"


def test_a_command_gives_output_and_exit_code(server: Server, kube: Kube) -> None:
    umlaut = "ü".encode()
    server.answers[EXEC] = [session((1, umlaut[:1]), (1, umlaut[1:]), (2, b"err"), (3, CODE_3))]
    found = kube.exec("x", ["cat", "--", Path("/x")], check=False)  # type: ignore[list-item]
    assert (found.stdout, found.stderr, found.exit_code) == ("ü", "err", 3)
    server.answers[EXEC] = [session((1, b"out"), (3, SUCCESS))]
    assert kube.exec("x", ["ls"]).stdout == "out"


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (session((3, NO_PROGRAM)), KubeError, "ls in pod default/x cannot be run: exec: no such file"),
        (session((3, status(status="Failure", message="gone"))), KubeError, "gone"),
        (session((1, b"half")), Unreachable, "ended before"),
        (session((3, b"no status")), Unreachable, "ended before"),
        (session((3, b"[]")), Unreachable, "ended before"),
        (session((1, b"half"), end=False), Unreachable, "broke while|ended before"),
        (refused(404, 'pods "x" not found'), NotFound, '^pods "x" not found$'),
        (refused(400, "container c is not valid"), KubeError, "^container c is not valid$"),
        (hang_up, Unreachable, "cannot begin"),
    ],
)
def test_a_command_that_cannot_be_run_is_a_typed_error(
    answer: Any, kind: type[KubeError], said: str, server: Server, kube: Kube
) -> None:
    server.answers[EXEC] = [answer]
    with pytest.raises(kind, match=said):
        kube.exec("x", ["ls"], timeout_s=10)


@pytest.mark.parametrize("argv", ["ls -l", b"ls", []])
def test_what_is_no_list_of_words_is_no_command(argv: Any, kube: Kube) -> None:
    with pytest.raises(ConfigError, match="is not a command"):
        kube.exec("x", argv)


@pytest.mark.parametrize("text", ["{", "[1]", "text", "clusters: 3", "\x00", "current-context: [x]"])
def test_a_malformed_kubeconfig_is_one_clear_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(KubeError, match="cannot be used"):
        Kube(tmp_path / "config")


def test_a_wait_whose_api_breaks_off_ends_with_a_typed_error(server: Server, kube: Kube) -> None:
    server.answers[f"{PODS}/x"] = [torn()]
    with pytest.raises((Unreachable, WaitTimeout)):
        Kube(kube.connection.kubeconfig, patience_s=0.2).wait("Pod", "x", timeout_s=1)
