"""Load: profiles and their arrivals; the generator against real servers, good and bad."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit import load
from labkit.errors import ConfigError, LabkitError
from labkit.load.result import frame_of

profiles = st.recursive(
    st.one_of(
        st.builds(load.constant, st.floats(0, 300), st.floats(0.1, 20)),
        st.builds(load.ramp, st.floats(0, 300), st.floats(0, 300), st.floats(0.1, 20)),
        st.builds(
            lambda mean, part, s: load.sine(mean, mean * part, 5, s),
            st.floats(1, 100),
            st.floats(0, 1),
            st.floats(1, 20),
        ),
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a + b, inner, inner), st.builds(lambda a, b: a | b, inner, inner)
    ),
    max_leaves=4,
)


@given(profiles)
def test_uniform_arrivals_follow_the_rate_exactly(profile: load.Profile) -> None:
    arrivals = profile.arrivals("uniform")
    assert len(arrivals) == pytest.approx(profile.expected_requests(), abs=0.51)
    assert (np.diff(arrivals) >= 0).all()
    assert len(arrivals) == 0 or (arrivals[0] >= 0 and arrivals[-1] <= profile.duration_s + 1e-9)
    half = profile.duration_s / 2
    grid = np.linspace(0, half, 20001)
    expected = np.trapezoid(profile.rate(grid), grid)
    assert abs((arrivals < half).sum() - expected) < 2 + 0.01 * expected


@given(st.integers(0, 2**31), st.floats(5, 100))
def test_poisson_arrivals_have_the_right_number_and_spread(seed: int, rate: float) -> None:
    arrivals = load.constant(rate, 100).arrivals("poisson", seed)
    assert abs(len(arrivals) - rate * 100) < 6 * np.sqrt(rate * 100)
    gaps = np.diff(arrivals)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.35), "exponential gaps: deviation equals mean"


def test_seeds_repeat_and_differ() -> None:
    profile = load.constant(50, 10)
    assert (profile.arrivals(seed=1) == profile.arrivals(seed=1)).all()
    assert not np.array_equal(profile.arrivals(seed=1), profile.arrivals(seed=2))


def test_profiles_compose() -> None:
    profile = load.constant(10, 5) + load.ramp(10, 30, 10) | load.constant(5, 2)
    assert profile.duration_s == 15
    assert profile.rate([0, 1.9, 2, 5, 10, 14.999, 15]) == pytest.approx(
        [15, 15, 10, 10, 20, 30, 0], abs=0.01
    )
    spikes = load.spikes(5, 50, every_s=10, width_s=2, seconds=20)
    assert spikes.rate([7.9, 8, 9.9, 10, 18]) == pytest.approx([5, 50, 50, 5, 50])
    assert load.trace([1, 2, 3], 4).rate([0, 4, 8]) == pytest.approx([1, 2, 3])
    assert (load.steps([(1, 2), (3, 4)]) * 10).expected_requests() == pytest.approx(140)
    assert load.sine(10, 10, 8, 16).rate([2, 6]) == pytest.approx([20, 0], abs=0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: load.constant(-1, 5),
        lambda: load.constant(1, 0),
        lambda: load.constant(float("nan"), 1),
        lambda: load.sine(5, 6, 2, 10),
        lambda: load.spikes(1, 2, 5, 6, 10),
        lambda: load.steps([]),
        lambda: load.constant(1e6, 10).arrivals(),
        lambda: load.start("ftp://x", load.constant(1, 1)),
        lambda: load.start("nonsense", load.constant(1, 1)),
        lambda: load.start([], load.constant(1, 1)),
        lambda: load.start(load.Request("http://x", weight=0), load.constant(1, 1)),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()


class Server(asyncio.Protocol):
    """Answers / at once, /slow after 0.5 s, /hold not before second 1, /hang never; /500 and /drop fail."""

    connections = 0
    began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Server.connections += 1
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        path = data.split()[1].decode()
        if path == "/drop":
            self.transport.close()
            return
        Server.began = Server.began or time.monotonic()
        if path == "/hang":
            return
        delay = {"/slow": 0.5, "/hold": max(0, Server.began + 1 - time.monotonic())}.get(path, 0)
        status = "500 Oops" if path == "/500" else "200 OK"
        answer = f"HTTP/1.1 {status}\r\ncontent-length: 2\r\nx-pod: web-1\r\nx-version: v2\r\n\r\nok".encode()
        loop = asyncio.get_running_loop()
        loop.call_later(delay, lambda: self.transport.is_closing() or self.transport.write(answer))  # type: ignore[attr-defined]


@pytest.fixture
def url() -> Iterator[str]:
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Server, "127.0.0.1", 0))
    Server.connections, Server.began = 0, 0.0
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_requests_are_sent_as_scheduled_and_recorded(url: str) -> None:
    profile = load.constant(100, 1.5)
    result = load.run(url, profile, seed=3)
    frame = result.requests
    assert frame["t_scheduled_s"].to_numpy() == pytest.approx(profile.arrivals(seed=3), abs=1e-5)
    assert set(frame.columns) == {
        "t_scheduled_s",
        "latency_ms",
        "lag_ms",
        "status",
        "error",
        "failed",
        "pod",
        "version",
        "own_ms",
        "unread_ms",
    }
    assert set(frame["pod"]) == {"web-1"} and set(frame["version"]) == {"v2"}
    summary = result.summary()
    assert (summary.failed, summary.requests, summary.unsent) == (0, len(frame), ())
    assert Server.connections == len(frame), "a connection per request"
    assert 0 < summary.p50_ms <= summary.p95_ms <= summary.p99_ms <= summary.max_ms < 1000
    assert summary.offered_rps == pytest.approx(len(frame) / 1.5)
    assert summary.lag_p99_ms <= summary.own_p99_ms and frame["unread_ms"].notna().any()
    table = result.over_time(0.5, by="version")
    assert (table["offered_rps"] * 0.5).sum() == len(frame)
    assert abs(result.started_at + 1.5 - time.time()) < 10


def test_kept_connections_are_reused(url: str) -> None:
    load.run(url, load.constant(100, 0.5), keep_alive=True)
    assert Server.connections < 20


def test_a_slow_server_does_not_slow_the_load_nor_hide_its_latency(url: str) -> None:
    """All answers wait until second 1: a closed loop would have sent next to nothing."""
    result = load.run(f"{url}/hold", load.constant(40, 1.4), spacing="uniform")
    early = result.requests[result.requests["t_scheduled_s"] < 0.9]
    assert len(early) == 36
    assert early["lag_ms"].max() < 200
    waits = (1.0 - early["t_scheduled_s"]) * 1000
    assert (early["latency_ms"] > waits - 120).all(), "each waited from its own arrival until the answer"


def test_failures_have_kinds(url: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    short = load.constant(20, 0.3)
    kinds = {
        f"{url}/500": "HTTP 500",
        f"{url}/drop": "closed without answer",
        f"{url}/slow": "timeout",
        closed: "refused",
    }
    for target, kind in kinds.items():
        timeout_s = 0.2 if kind == "timeout" else 10.0
        summary = load.run(target, short, timeout_s=timeout_s, spacing="uniform").summary()
        assert summary.failures == ((kind, 6),), target
        assert np.isnan(summary.p50_ms) and summary.answered_rps == 0


def test_more_than_max_in_flight_is_not_sent_and_is_not_the_servers_failure(url: str) -> None:
    result = load.run(f"{url}/slow", load.constant(50, 0.4), spacing="uniform", max_in_flight=5)
    summary = result.summary()
    assert summary.unsent == (("in-flight limit", 15),) and len(result.unsent) == 15
    assert (summary.requests, summary.failed, summary.failures) == (5, 0, ())
    assert summary.offered_rps == pytest.approx(50), "what was due was offered"
    assert not summary.kept_up and "did not send 15 more requests" in str(summary)


@pytest.mark.parametrize("stop_after_s", [0.5, 1.1])
def test_stopping_loses_no_request_that_was_sent(url: str, stop_after_s: float) -> None:
    """A server that only hangs: each request is told, as timed out after its own time."""
    with load.start(f"{url}/hang", load.constant(20, 30), spacing="uniform", timeout_s=1.0) as running:
        time.sleep(stop_after_s)
        result = running.stop()
    expected = (load.constant(20, 30).arrivals("uniform") < result.span_s).sum()
    assert len(result.requests) == expected > 0
    assert result.summary().failures == (("timeout", expected),)
    assert result.profile.duration_s == pytest.approx(result.span_s)


def test_stopping_at_once_tells_open_requests_as_not_answered(url: str) -> None:
    running = load.start(f"{url}/hang", load.constant(20, 30), spacing="uniform")
    time.sleep(0.8)
    begin = time.monotonic()
    result = running.stop(wait_s=0.1)
    assert time.monotonic() - begin < 5, "does not wait for the time-out of 10 s"
    assert len(result.requests) == (load.constant(20, 30).arrivals("uniform") < result.span_s).sum() > 0
    assert set(result.requests["error"]) == {"not answered"} and result.requests["failed"].all()
    assert running.stop().summary().requests == len(result.requests), "stopping twice is safe"


def test_a_load_that_has_been_sent_can_be_stopped_while_answers_are_open(url: str) -> None:
    running = load.start(f"{url}/hang", load.constant(20, 0.3), spacing="uniform", timeout_s=20)
    time.sleep(1)
    begin = time.monotonic()
    result = running.stop(wait_s=0.1)
    assert time.monotonic() - begin < 5
    assert result.summary().failures == (("not answered", 6),) and result.span_s == 0.3


@pytest.mark.parametrize(("hard", "unsent"), [(4096, False), (64, True)])
def test_too_many_open_files_are_not_the_servers_failure(url: str, hard: int, unsent: bool) -> None:
    """A soft limit of 64 is raised; where the hard one is 64 too, what could not be sent says so."""
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
from labkit import load
summary = load.run("{url}/slow", load.constant(300, 0.5), spacing="uniform").summary()
print(summary.requests, summary.failures, summary.unsent)
assert not summary.failures, summary.failures
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert ("too many open files" in said.stdout) is unsent, said.stdout
    assert said.stdout.startswith("150 ()") is not unsent


def test_latency_ends_when_the_kernel_has_the_answer_not_when_it_is_read(url: str) -> None:
    """The generator's process sleeps while the answer comes: that is its own time, and not the server's."""
    running = load.start(f"{url}/slow", load.constant(4, 0.3), spacing="uniform")
    time.sleep(max(0.0, running.started_at + 0.35 - time.time()))
    os.kill(running._process.pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(running._process.pid, signal.SIGCONT)
    result = running.result()
    [row] = result.requests.to_dict("records")
    assert row["latency_ms"] + row["unread_ms"] > 1500
    assert row["unread_ms"] > row["latency_ms"], "it took the server half a second"
    assert "to be read, which is not counted" in str(result)


def made(latencies: list[float], own_ms: float, duration_s: float = 10.0) -> load.LoadResult:
    times = np.linspace(0, duration_s * 0.9, len(latencies))
    rows = [
        [float(t), latency, own_ms, 200, "", own_ms, 0.1] for t, latency in zip(times, latencies, strict=True)
    ]
    return load.LoadResult(frame_of(rows, []), load.constant(10, duration_s), 0.0)


def test_the_generators_own_part_is_held_against_p99() -> None:
    assert made([100.0] * 50, own_ms=24).summary().kept_up
    hidden = made([40.0] * 50, own_ms=14).summary()
    assert not hidden.kept_up and "14.0 ms at p99 are its own" in str(hidden)
    assert made([3.0] * 50, own_ms=1.9).summary().kept_up, "below what is worth a warning"
    assert "the generator's own part: 1.9 ms at p99" in str(made([3.0] * 50, own_ms=1.9))


def test_rates_are_of_the_time_that_was_asked_for() -> None:
    result = made([10.0] * 3, own_ms=0.1, duration_s=3.0)  # at 0, 1.35 and 2.7 s
    assert result.summary().offered_rps == pytest.approx(1.0)
    assert result.over_time(2.0)["offered_rps"].tolist() == pytest.approx([1.0, 1.0]), (
        "the last window has 1 s"
    )
    single = load.LoadResult(frame_of([[0.06, 5.0, 0.1, 200, "", 0.1, 0.1]], []), load.constant(1, 6), 0.0)
    assert single.summary().offered_rps == pytest.approx(1 / 6)


def test_a_result_as_last_line_of_a_cell_is_its_summary(url: str) -> None:
    result = load.run(url, load.constant(300, 1))
    assert repr(result) == str(result.summary()) and len(repr(result)) < 600
    assert 0 < len(result._repr_html_()) < 6000 and "p99" in result._repr_html_()


def test_a_day_in_seconds_is_one_profile_and_not_a_sum_of_thousands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding stages one by one checks all points each time: a day took half an hour."""
    looked_at: list[int] = []
    check = load.Profile.__post_init__
    monkeypatch.setattr(
        load.Profile, "__post_init__", lambda p: (looked_at.append(len(p.points)), check(p))[1]
    )
    day = load.trace([1, 2] * 43_200, 1)
    load.spikes(1, 2, 10, 2, 86_400)
    assert sum(looked_at) < 400_000
    assert day.duration_s == 86_400 and day.rate([0.5, 1.5, 86_399.5]) == pytest.approx([1, 2, 2])
    assert len(day.arrivals("uniform")) == 129_600


@pytest.mark.parametrize("seconds", [25, 24, 20, 3, 0.5, 29.5])
def test_spikes_last_as_long_as_asked(seconds: float) -> None:
    profile = load.spikes(5, 50, every_s=10, width_s=2, seconds=seconds)
    assert profile.duration_s == pytest.approx(seconds)
    assert profile.rate([min(seconds, 8) - 0.1]) == [5]


def test_answers_are_read_as_http_has_them() -> None:
    """Chunks, interim answers, an end without a length, a HEAD, names, queries, users and own headers."""
    asked: list[str] = []
    answers = {
        "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Pod: a\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "/interim": b"HTTP/1.1 103 Early Hints\r\nx-pod: no\r\n\r\nHTTP/1.1 201 C\r\nX-Pod: a\r\ncontent-length: 0\r\n\r\n",
        "/until-end": b"HTTP/1.1 200 OK\r\nx-pod: a\r\n\r\nsome",
        "/head": b"HTTP/1.1 200 OK\r\nx-pod: a\r\ncontent-length: 99\r\n\r\n",
        "/short": b"HTTP/1.1 200 OK\r\nx-pod: a\r\ncontent-length: 99\r\n\r\nonly",
        "/nonsense": b"220 ready\r\n",
    }
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                asked.append(peer.recv(65536).decode())
                peer.sendall(answers[asked[-1].split()[1].split("?")[0]])

    threading.Thread(target=serve, daemon=True).start()
    base = f"http://me:pass%20word@localhost:{server.getsockname()[1]}"
    once = load.constant(10, 0.1)
    for path in answers:
        request = load.Request(
            f"{base}{path}?a=ü b", "HEAD" if path == "/head" else "GET", headers={"Host": "shop.example"}
        )
        [row] = load.run(request, once, spacing="uniform").requests.to_dict("records")
        wanted = {"/short": "closed without answer", "/nonsense": "no HTTP answer"}.get(path, "")
        assert row["error"] == wanted, path
        assert wanted or (row["status"], row["pod"]) == (201 if path == "/interim" else 200, "a"), path
        head = asked[-1].lower().split("\r\n")
        assert head[0].split()[1] == f"{path}?a=%c3%bc%20b" and "host: shop.example" in head
        assert "authorization: basic bwu6cgfzcyb3b3jk" in head
    server.close()


def test_weights_choose_requests(url: str) -> None:
    targets = [load.Request(url, weight=3), load.Request(f"{url}/500", method="POST", body="x")]
    frame = load.run(targets, load.constant(300, 1)).requests
    assert 0.15 < frame["failed"].mean() < 0.35


def test_stop_ends_early_and_keeps_what_was_measured(url: str) -> None:
    with load.start(url, load.constant(50, 0.6) + load.constant(0, 60)) as running:
        time.sleep(1.3)
        assert len(running.snapshot().requests) > 10 and not running.done
        begin = time.monotonic()
        result = running.stop()
    assert time.monotonic() - begin < 5 and len(result.requests) > 10 and running.done
    assert 0.6 < result.profile.duration_s < 10


def test_the_beginning_of_a_profile() -> None:
    profile = load.ramp(0, 10, 10) + load.constant(20, 10)
    assert profile.until(5).points == ((0.0, 0.0), (5, 5.0))
    assert profile.until(10).points[-1] == (10, 10.0)
    assert profile.until(15).rate(12) == 20 and profile.until(15).duration_s == 15
    assert profile.until(99) is profile


def test_a_killed_generator_is_one_clear_error(url: str) -> None:
    running = load.start(url, load.constant(10, 30))
    os.kill(running._process.pid, signal.SIGKILL)
    with pytest.raises(LabkitError, match="ended early"):
        running.result()


def test_no_generator_outlives_its_parent(url: str) -> None:
    code = f"from labkit import load; running = load.start({url!r}, load.constant(5, 60))\n"
    code += "print(running._process.pid, flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and alive(child):
        time.sleep(0.1)
    assert not alive(child)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_overloaded_generator_says_so(url: str) -> None:
    summary = load.run(url, load.constant(20000, 0.5), spacing="uniform", max_in_flight=100000).summary()
    assert not summary.kept_up and "could not keep up" in str(summary)
