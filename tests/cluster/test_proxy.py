"""A proxy that refuses everything stands in the environment: the cluster does not notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labkit.cluster.embedded import EmbeddedCluster
from labkit.labs.visit import get
from tests.unit.refusing_proxy import RefusingProxy

from .helpers import deployment, namespace, service, until
from .test_commands import labkit

pytestmark = pytest.mark.cluster
SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"


def test_a_cluster_behind_a_proxy_is_whole(
    make_cluster: Callable[..., EmbeddedCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = RefusingProxy()
    for name, value in proxy.environment.items():
        monkeypatch.setenv(name, value)
    cluster = make_cluster("proxied", workers=1, metrics_s=10)
    with namespace(cluster) as space:
        space.apply(deployment("web", 1, "python3", "-c", SERVE), service("web", 80, 8080))
        space.rolled("deployment/web")
        pod = space.items("pods", "app=web")[0]["metadata"]["name"]
        assert space.exec(pod, "echo", "here") == "here\n"
        assert cluster.kube.exec(pod, ["echo", "here"], namespace=space.name).stdout == "here\n"
        url = cluster.url("web", space.name)
        assert get(url).status == 200
        until(lambda: "GET / " in space.kubectl("logs", pod), 20, "the request in the log")
        assert (
            "200"
            in labkit("shell", cluster.name, "-c", f"curl -s -o /dev/null -w '%{{http_code}}' {url}").stdout
        )
        until(lambda: space.kubectl("top", "pods"), 90, "metrics", every=2)
        assert "_proxy" not in space.exec(pod, "env").lower()
    assert proxy.asked == []
    proxy.close()
