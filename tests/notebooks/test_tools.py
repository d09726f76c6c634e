"""What notebooks and the runner use beside the cluster: visits, the log of phases, the claim on a name."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labkit.cluster.phases import Phase
from labkit.errors import ConfigError
from labkit.labs.phaselog import PhaseLog
from labkit.labs.site import ClusterSite
from labkit.labs.visit import VisitError, get, post, show
from labkit.plots.phases import phases_figure


class Echo(BaseHTTPRequestHandler):
    def do_GET(self):
        status = 404 if self.path == "/missing" else 200
        self.send_response(status)
        self.send_header("X-Pod", "echo-1")
        self.end_headers()
        self.wfile.write(f'<p title="{self.headers.get("Authorization", "")}">{self.path}</p>'.encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_visit_returns_whatever_the_status_is(url):
    assert get(f"{url}/a", Authorization="Bearer x").text == '<p title="Bearer x">/a</p>'
    assert get(f"{url}/missing").status == 404
    assert get(url).headers["x-pod"] == "echo-1"
    assert post(url, {"a": 1}).json == {"a": 1} and post(url, {"a": 1}).status == 201


def test_a_page_is_shown_in_a_frame_of_its_own(url):
    page = show(url, height=99)
    assert (
        "<p" not in page._repr_html_() and "&lt;p" in page._repr_html_() and "sandbox" in page._repr_html_()
    )
    assert "200" in repr(page)


def test_nobody_there_is_said():
    with pytest.raises(VisitError, match="does not answer"):
        get("http://127.0.0.1:1/")


def test_phases_are_remembered_and_drawn(capsys):
    log = PhaseLog()
    log(Phase("binaries", "building", "running", 1.0))
    log(Phase("binaries", "built", "done", 100.0))
    log(Phase("etcd", "127.18.0.1:2379", "done", 0.5))
    assert [bar.name for bar in log.bars] == ["binaries", "etcd"]
    assert log.seconds("none") == pytest.approx(100, abs=1) and log.seconds() < 1
    assert "[etcd]" in capsys.readouterr().out
    figure = phases_figure(log.bars)
    assert figure._repr_png_()[0].startswith(b"\x89PNG")
    with pytest.raises(ConfigError):
        phases_figure([])


def test_two_runs_do_not_share_a_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    first, second = ClusterSite("labs", "embedded"), ClusterSite("labs", "embedded")
    first.claim()
    with pytest.raises(ConfigError, match="Another"):
        second.claim()
    first.release()
    second.claim()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    site = ClusterSite("nowhere", "embedded")
    assert site.cluster() is None and site.warnings() == [] and site.facts() == {}
    site.remove()
