"""The dashboard: text and widget say the same, and it ends when told to."""

from __future__ import annotations

import re
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from labkit import widgets
from labkit.errors import KubeError
from labkit.load import LoadResult, constant
from labkit.load.result import frame_of
from labkit.record.facts import hpa, node, pod

from .synthetic import HPA


class Recorder:
    """The part of a Recorder that the dashboard reads, with facts made by the real functions."""

    def __init__(self) -> None:
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        stuck = {"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}}
        gone = {"metadata": {"deletionTimestamp": "x"}, "spec": {"nodeName": "w1"}}
        state = {
            "desiredReplicas": 3,
            "currentMetrics": [{"resource": {"name": "cpu", "current": {"averageUtilization": 90}}}],
        }
        self.state: dict[str, dict[tuple[str, str], dict[str, Any]]] = {
            "nodes": {
                ("", "w1"): node(ready),
                ("", "<w2>"): node({"spec": {"taints": [{"key": "a", "effect": "b"}]}}),
            },
            "pods": {
                ("shop", "a"): {**pod(ready), "node": "w1", "phase": "Running"},
                ("shop", "b"): pod(stuck),
                ("shop", "c"): pod(gone),
            },
            "hpas": {("shop", "pricing"): hpa({**HPA, "status": state})},
            "deployments": {("shop", "pricing"): {"ready_replicas": 2}},
        }
        self.t_seconds = 42.0

    def now(self) -> dict[str, Any]:
        return self.state


class Load:
    def snapshot(self) -> LoadResult:
        rows = [[t / 10, 20.0, 0.1, 200 if t else 500, "", 0.1, 0.1] for t in range(100)]
        return LoadResult(frame_of(rows, []), constant(10, 10), 0.0)


def test_text_and_widget_say_the_same() -> None:
    state = widgets.view(Recorder(), Load())  # type: ignore[arg-type]
    line = widgets.as_text(state)
    assert line == (
        "   42 s | nodes 1/2 Ready | pods 1/3 ready | pricing: CPU 90 of 60 %, 3 desired, 2 ready"
        " | 10 requests/s, p95 20 ms, 1 failed of 100"
    )
    page = widgets.as_html(state)
    assert "&lt;w2&gt;" in page and "<w2>" not in page and "a:b" in page
    assert [kind for _, _, kind in state.pods] == ["ready", "failed", "ending"]
    assert page.count("■</span>") == len(state.pods) + len(widgets._COLOURS)
    assert "CPU 90 of 60 %, 3 desired, 2 ready" in page and "10 requests/s" in page
    assert not re.search(r"<(script|img)", page)


def test_missing_metrics_and_an_empty_cluster() -> None:
    recorder = Recorder()
    recorder.state["hpas"] = {("shop", "x"): hpa({})}
    assert "x: CPU ? of ? %, 0 desired" in widgets.as_text(widgets.view(recorder, None))  # type: ignore[arg-type]
    recorder.state = {"nodes": {}, "pods": {}, "hpas": {}, "deployments": {}}
    assert "nodes 0/0" in widgets.as_text(widgets.view(recorder, None))  # type: ignore[arg-type]
    assert "<table" in widgets.as_html(widgets.view(recorder, None))  # type: ignore[arg-type]


def test_headless_prints_lines_at_bounded_intervals_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with widgets.Dashboard(Recorder(), text_every_s=0.2) as dashboard:  # type: ignore[arg-type]
        assert dashboard.live is False
        time.sleep(0.9)
    lines = capsys.readouterr().out.splitlines()
    assert 4 <= len(lines) <= 7 and all("nodes 1/2" in line for line in lines)
    dashboard.stop()
    time.sleep(0.3)
    assert capsys.readouterr().out == ""
    assert not any(thread.name == "labkit-dashboard" for thread in threading.enumerate())


def test_widget_is_updated() -> None:
    recorder = Recorder()
    dashboard = widgets.Dashboard(recorder, live=True).start()  # type: ignore[arg-type]
    recorder.state["nodes"] = {}
    dashboard.stop()
    assert "w1" not in dashboard._widget.value


def test_only_what_differs_is_sent_to_the_browser_and_the_end_is_said() -> None:
    recorder = Recorder()
    dashboard = widgets.Dashboard(recorder, live=True).start()  # type: ignore[arg-type]
    heard: list[str] = []
    dashboard._widget.observe(lambda change: heard.append(change["new"]), "value")
    recorder.t_seconds = 43.0
    dashboard._refresh()
    assert not heard and "43 s" in dashboard._clock.value
    recorder.state["pods"] = {}
    dashboard.stop()
    assert len(heard) == 1 and "no pod" in heard[0] and "ended after 43 s" in dashboard._clock.value


def test_states_are_told_in_words_and_no_colour_of_text_is_fixed() -> None:
    page = widgets.as_html(widgets.view(Recorder(), None))  # type: ignore[arg-type]
    assert "1 ready, 1 ending (c)" in page or "1 ending (c)" in page
    assert "1 failed (b)" in page and "#222" not in page and "#6e6e6e" not in page


def test_more_rows_are_shown_and_a_line_comes_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    board = widgets.Dashboard(
        Recorder(),  # type: ignore[arg-type]
        live=False,
        text_every_s=0,
        rows=lambda: [("customers", "99 % <good>")],
    )
    board.start()
    board.tell()
    board.stop()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.endswith("| customers: 99 % <good>") for line in lines)
    assert "99 % &lt;good&gt;" in widgets.as_html(board._view())


class Broken:
    """Rows that cannot be had, once."""

    def __init__(self, error: Exception) -> None:
        self.errors = [error]

    def __call__(self) -> list[tuple[str, str]]:
        if self.errors:
            raise self.errors.pop()
        return [("customers", "fine again")]


@pytest.mark.parametrize("live", [True, False])
def test_an_error_is_shown_and_does_not_end_the_dashboard(
    live: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Broken(KubeError("the API <server> is away"))
    board = widgets.Dashboard(Recorder(), live=False, text_every_s=0.2, rows=rows)  # type: ignore[arg-type]
    if live:
        board.live, board._widget = True, SimpleNamespace(value="")
        board._refresh()
        assert "the API &lt;server&gt; is away" in board._widget.value
        board._refresh()
        assert "fine again" in board._widget.value
        return
    board.start()
    said = ""
    end = time.monotonic() + 20
    while "fine again" not in said and time.monotonic() < end:
        said += capsys.readouterr().out
        time.sleep(0.05)
    board.stop()
    assert "KubeError: the API <server> is away" in said and "fine again" in said


def test_a_bug_in_the_dashboards_thread_is_raised_by_stop(capsys: pytest.CaptureFixture[str]) -> None:
    rows = Broken(ZeroDivisionError("division by zero"))
    with (
        pytest.raises(ZeroDivisionError),
        widgets.Dashboard(
            Recorder(),
            live=False,
            text_every_s=60,
            rows=rows,  # type: ignore[arg-type]
        ) as board,
    ):
        end = time.monotonic() + 20
        while board._error is None and time.monotonic() < end:
            time.sleep(0.05)
    assert "ZeroDivisionError" in capsys.readouterr().out
    with (
        pytest.raises(LookupError),
        widgets.Dashboard(
            Recorder(),
            live=False,
            text_every_s=60,
            rows=Broken(ValueError("x")),  # type: ignore[arg-type]
        ),
    ):
        raise LookupError("the block's own")
