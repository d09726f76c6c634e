"""Commands of labkit against a running cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit.cluster.embedded import EmbeddedCluster
from labkit.errors import ClusterError, KubeError

from .helpers import deployment, namespace, service, until

pytestmark = pytest.mark.cluster


def labkit(*args: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """The command, as a process."""
    argv = [sys.executable, "-m", "labkit", *args]
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=check,
        timeout=60,
        env={**os.environ, "COLUMNS": "160", **env},
    )


def test_status_shows_components_and_nodes(cluster: EmbeddedCluster) -> None:
    said = labkit("status", cluster.name).stdout
    for word in ("running", "kube-apiserver", "node-worker-1", "worker-2", "True", "https://127.", "MiB"):
        assert word in said
    assert cluster.name in labkit("status").stdout


def test_logs_of_one_and_of_all_components(cluster: EmbeddedCluster) -> None:
    one = labkit("logs", "kube-apiserver", "-c", cluster.name, "--tail", "5").stdout
    assert len(one.splitlines()) == 5
    everything = labkit("logs", "-c", cluster.name, "--tail", "2").stdout
    assert {line.split()[0] for line in everything.splitlines()} >= {
        "etcd",
        "kube-apiserver",
        "coredns",
        "vip",
    }
    wrong = labkit("logs", "etcdd", "-c", cluster.name, check=False)
    assert wrong.returncode == 2
    assert "kube-scheduler" in wrong.stderr


def test_logs_can_be_followed(cluster: EmbeddedCluster) -> None:
    argv = [sys.executable, "-m", "labkit", "logs", "supervise", "-c", cluster.name, "-f", "--tail", "0"]
    log = cluster.directory / "logs/supervise.log"
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        os.set_blocking(process.stdout.fileno(), False)
        seen = b""
        for number in range(100):
            with log.open("a") as stream:
                stream.write(f"test {number}\n")
            time.sleep(0.1)
            seen += process.stdout.read() or b""
            if b"test" in seen:
                break
        assert b"test" in seen
    finally:
        process.terminate()
        process.wait(10)


def test_kubeconfig_works_in_another_program(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    path = labkit("kubeconfig", cluster.name, "--path").stdout.strip()
    assert Path(path) == cluster.kubeconfig
    copy = tmp_path / "copy"
    copy.write_text(labkit("kubeconfig", cluster.name).stdout)
    merged = tmp_path / "merged"
    labkit("kubeconfig", cluster.name, "--merge", KUBECONFIG=str(merged))
    for options in (
        ["--kubeconfig", str(copy)],
        ["--kubeconfig", str(merged), "--context", f"labkit-{cluster.name}"],
    ):
        done = subprocess.run(
            [str(Path(sys.executable).with_name("kubectl")), *options, "auth", "whoami", "-o", "name"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_a_shell_sees_the_cluster_as_a_pod_does(cluster: EmbeddedCluster) -> None:
    with namespace(cluster, "shell") as space:
        space.apply(deployment("web", 1, "python3", "-m", "http.server", "80"), service("web", 80, 80))
        space.rolled("deployment/web")
        ask = f"curl -sS -o /dev/null -w '%{{http_code}}' --max-time 5 http://web.{space.name}/"
        until(lambda: labkit("shell", cluster.name, "-c", ask, check=False).stdout == "200", 20, "an answer")
        address = space.items("pods")[0]["status"]["podIP"]
        direct = f"curl -sS -o /dev/null -w '%{{http_code}}' --max-time 5 http://{address}/"
        assert labkit("shell", cluster.name, "-c", direct).stdout == "200"
        nodes = labkit("shell", cluster.name, "-c", "kubectl get nodes -o name").stdout.split()
        assert "node/worker-1" in nodes
    assert labkit("shell", cluster.name, "-c", "exit 7", check=False).returncode == 7
    wrong = labkit("shell", cluster.name, "-c", "no-such-program", check=False, SHELL="/bin/sh")
    assert wrong.returncode == 127


def test_urls_are_for_services_that_have_addresses(cluster: EmbeddedCluster) -> None:
    assert cluster.url("kubernetes").startswith("https://127.")
    assert cluster.url("kubernetes").endswith(":10443")
    assert cluster.url("kubernetes", port="https") == cluster.url("kubernetes", port=443)
    with pytest.raises(ClusterError, match="no Service 'nothing'") as caught:
        cluster.url("nothing")
    assert "kubernetes" in caught.value.hint
    with pytest.raises(ClusterError, match="has no port 81"):
        cluster.url("kubernetes", port=81)


def test_what_kubectl_says_is_in_the_error(cluster: EmbeddedCluster) -> None:
    with pytest.raises(KubeError, match=r"pods \"nothing\" not found"):
        cluster.kubectl("get", "pod", "nothing")
    assert cluster.kubectl("get", "pod", "nothing", check=False) == ""


def test_kubectl_leaves_nothing_in_the_home(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(tmp_path)
    try:
        cluster.kubectl("get", "pods,deployments", "-A")
    finally:
        if before:
            os.environ["HOME"] = before
    assert list(tmp_path.rglob("*")) == []
