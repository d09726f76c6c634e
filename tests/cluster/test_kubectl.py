"""kubectl against the cluster, as a person uses it."""

from __future__ import annotations

import os
import pty
import select
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from labkit.cluster.base import Cluster
from labkit.tools import kubectl

from .helpers import Namespace, container, deployment, namespace, pod, until

pytestmark = pytest.mark.cluster


def start(space: Namespace, *args: str, **popen: object) -> subprocess.Popen[bytes]:
    """kubectl in the background, in the test's namespace."""
    argv = [str(kubectl()), "--kubeconfig", str(space.cluster.kubeconfig), "-n", space.name, *args]
    return subprocess.Popen(argv, **{"stdout": subprocess.PIPE, **popen})  # type: ignore[call-overload,no-any-return]


def end(process: subprocess.Popen[bytes]) -> None:
    """End a background kubectl."""
    process.terminate()
    process.wait(10)


def test_client_and_server_are_of_the_same_minor_version(cluster: Cluster) -> None:
    versions = cluster.kubectl("version", "-o", "json")
    assert '"minor": "37"' in versions
    assert versions.count('"major": "1"') == 2


def test_logs_follow_streams_and_since(cluster: Cluster) -> None:
    talk = "for i in 1 2 3 4 5 6; do echo line $i; echo problem $i >&2; sleep 0.3; done; sleep 600"
    with namespace(cluster) as space:
        space.run("talker", "sh", "-c", talk)
        follow = start(space, "logs", "-f", "talker")
        assert follow.stdout
        lines = [follow.stdout.readline().decode().strip() for _ in range(12)]
        end(follow)
        assert [x for x in lines if x.startswith("line")] == [f"line {i}" for i in range(1, 7)]
        assert [x for x in lines if x.startswith("problem")] == [f"problem {i}" for i in range(1, 7)]
        assert space.kubectl("logs", "talker", "--tail=1").count("\n") == 1
        assert "T" in space.kubectl("logs", "talker", "--timestamps", "--tail=1").split()[0]


def test_exec_passes_input_output_and_exit_code(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.run("box")
        assert space.kubectl("exec", "-i", "box", "--", "tr", "a-z", "A-Z", stdin="shout") == "SHOUT"
        process = start(space, "exec", "box", "--", "sh", "-c", "exit 42", stderr=subprocess.PIPE)
        assert process.wait(20) == 42
        missing = start(space, "exec", "box", "--", "no-such-program", stderr=subprocess.PIPE)
        assert b"no-such-program" in missing.communicate(timeout=20)[1]
        assert missing.returncode != 0


def test_exec_with_a_terminal(cluster: Cluster) -> None:
    """The program in the pod sees a terminal of the caller's size, and Ctrl-C reaches it."""
    with namespace(cluster) as space:
        space.run("box")
        ours, theirs = pty.openpty()
        size = (40, 123)
        import fcntl
        import struct
        import termios

        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        process = start(space, "exec", "-it", "box", "--", "sh", stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        type_in(ours, "tty; stty size\n")
        assert "40 123" in read_until(ours, "40 123")
        type_in(ours, "sleep 100\n")
        time.sleep(0.5)
        type_in(ours, "\x03")
        type_in(ours, "echo still $((40+2))\n")
        assert "still 42" in read_until(ours, "still 42")
        type_in(ours, "exit 5\n")
        assert process.wait(20) == 5
        os.close(ours)


def type_in(fd: int, text: str) -> None:
    """Type into a terminal."""
    os.write(fd, text.encode())


def read_until(fd: int, text: str, seconds: float = 20) -> str:
    """What a terminal shows until `text` has appeared."""
    seen, deadline = "", time.monotonic() + seconds
    while text not in seen and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.5)[0]:
            seen += os.read(fd, 4096).decode(errors="replace")
    return seen


def test_attach_and_interactive_run(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        command = (
            "run",
            "calc",
            "--rm",
            "-i",
            "--restart=Never",
            "--image=labkit/host",
            "--command",
            "--",
            "python3",
            "-c",
        )
        answer = space.kubectl(
            *command, "import sys; print(sum(int(x) for x in sys.stdin))", stdin="20\n22\n"
        )
        assert "42" in answer
        space.run("ticker", "sh", "-c", "while :; do echo tick; sleep 0.2; done")
        attached = start(space, "attach", "ticker")
        assert attached.stdout
        assert attached.stdout.readline().strip() == b"tick"
        end(attached)


def test_port_forward(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.run("web", "python3", "-m", "http.server", "8080")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        forward = start(space, "port-forward", "pod/web", f"{port}:8080")
        try:
            page = until(
                lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=3).read(), 20, "a page"
            )
            assert b"Directory listing" in page
        finally:
            end(forward)


def test_cp_both_ways(cluster: Cluster, tmp_path: Path) -> None:
    with namespace(cluster) as space:
        space.run("box")
        (tmp_path / "there").write_text("over and back")
        space.kubectl("cp", str(tmp_path / "there"), f"{space.name}/box:/tmp/file")
        space.kubectl("cp", f"{space.name}/box:/tmp/file", str(tmp_path / "back"))
        assert (tmp_path / "back").read_text() == "over and back"


def test_watch_describe_events_and_wait(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        watch = start(space, "get", "pods", "-w", "--output-watch-events", "--no-headers")
        space.run("seen")
        space.kubectl("delete", "pod", "seen", "--now")
        assert watch.stdout
        kinds = []
        while "DELETED" not in kinds:
            kinds.append(watch.stdout.readline().decode().split()[0])
        end(watch)
        assert kinds[0] == "ADDED"
        reasons = space.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}").split()
        assert {"Scheduled", "Pulled", "Created", "Started"} <= set(reasons)


def test_describe_node_shows_what_was_asked_for(cluster: Cluster) -> None:
    node = cluster.nodes()[0].name
    text = cluster.kubectl("describe", "node", node)
    for expected in ("KubeletReady", "PodCIDR:", "Allocated resources", "Non-terminated Pods"):
        assert expected in text


def test_top_shows_nodes_and_pods(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        busy = "import time\nwhile True: sum(range(20000)); time.sleep(0.05)"  # of an idle pod there may be no sample
        space.run("box", "python3", "-c", busy)
        until(
            lambda: space.kubectl("top", "pod", "box", "--no-headers", check=False),
            120,
            "metrics of the pod",
            every=1,
        )
        nodes = len(cluster.nodes())
        of_nodes = ("top", "nodes", "--no-headers")
        # A node that was away is measured again after two more samples.
        until(
            lambda: len(cluster.kubectl(*of_nodes, check=False).splitlines()) == nodes,
            120,
            "metrics of all nodes",
            every=1,
        )


def test_autoscale_scales_up_under_load(cluster: Cluster) -> None:
    burn = container("main", "sh", "-c", "while :; do :; done", resources={"requests": {"cpu": "100m"}})
    with namespace(cluster) as space:
        work = deployment("work", 1)
        work["spec"]["template"]["spec"]["containers"] = [burn]
        space.apply(work)
        space.kubectl("autoscale", "deployment", "work", "--cpu=50%", "--min=1", "--max=2")
        until(
            lambda: space.get("deployment", "work")["spec"]["replicas"] == 2, 90, "a second replica", every=1
        )
        assert "SuccessfulRescale" in space.kubectl("get", "events")


def test_cordon_and_drain_move_pods(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        space.apply(deployment("web", 4))
        space.rolled("deployment/web")
        node = cluster.nodes()[0].name
        try:
            cluster.kubectl(
                "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"
            )
            space.rolled("deployment/web")
            running = [p for p in space.items("pods", "app=web") if "deletionTimestamp" not in p["metadata"]]
            assert node not in {item["spec"]["nodeName"] for item in running}
        finally:
            cluster.kubectl("uncordon", node)


def test_a_typo_in_a_manifest_is_named(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        wrong = pod("wrong")
        wrong["spec"]["contaners"] = wrong["spec"].pop("containers")
        process = start(space, "apply", "-f", "-", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        import yaml

        errors = process.communicate(yaml.safe_dump(wrong).encode(), timeout=20)[1]
        assert b"contaners" in errors
