"""What another user of the machine gets from a cluster: refusals, and no file.

Another user really tries: root can become one, and whoever has subordinate ids (/etc/subuid) takes one of those.
Where neither is possible, requests without credentials do, which is all that another user has.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from labkit.cluster.addresses import Slot, served, served_port, service_at
from labkit.cluster.embedded import EmbeddedCluster
from labkit.cluster.processes import cluster_pids

pytestmark = pytest.mark.cluster
STRANGER = 1234
PATHS = (
    "/",
    "/metrics",
    "/pods",
    "/configz",
    "/logs/",
    "/debug/pprof/",
    "/api/v1/secrets",
    "/v3/kv/range",
    "/version",
)
PUBLIC = {"/version"}
"""What Kubernetes' own default role system:public-info-viewer lets everybody read."""

ASK = """
import json, socket, ssl, sys
address, port, paths = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
answers = {}
for path in paths:
    for scheme in ("https", "http"):
        try:
            connection = socket.create_connection((address, port), 5)
            if scheme == "https":
                connection = context.wrap_socket(connection)
            connection.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
            status = connection.recv(4096).split(b" ", 2)
            answers[f"{scheme} {path}"] = int(status[1]) if len(status) > 1 else "closed"
        except (OSError, ValueError) as err:
            answers[f"{scheme} {path}"] = type(err).__name__
print(json.dumps(answers))
"""


def as_stranger(*argv: str | Path) -> list[str]:
    """The command that runs another one as a user who has nothing to do with the cluster."""
    become = ["setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups"]
    if os.getuid() != 0:
        become = ["unshare", "--user", "--map-auto", "--map-root-user", *become]
    return [*become, *map(str, argv)]


@functools.cache
def why_no_stranger() -> str:
    """Why this machine lets us become nobody else; "" where it does."""
    done = subprocess.run(as_stranger("true"), capture_output=True, text=True)
    return f"cannot become another user (install uidmap): {done.stderr.strip()}" if done.returncode else ""


@pytest.fixture(scope="module")
def stranger() -> None:
    """Another user who really is one: without this, a refusal would prove nothing."""
    if why_no_stranger():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why_no_stranger())
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "secret"
        secret.write_text("mine")
        secret.chmod(0o600)
        Path(folder).chmod(0o755)
        assert subprocess.run(as_stranger("cat", secret), capture_output=True).returncode
        secret.chmod(0o644)
        assert subprocess.run(as_stranger("cat", secret), capture_output=True).stdout == b"mine"


def listening(cluster: EmbeddedCluster) -> dict[tuple[str, int], str]:
    """TCP address and port → program, of every socket that the cluster's programs listen on, pods' own ones aside."""
    inodes = {}
    for pid in cluster_pids(cluster.directory):
        with contextlib.suppress(OSError):
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(argv[0]).name not in ("kube", "shim"):
                continue
            name = argv[1]
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    match = re.fullmatch(r"socket:\[(\d+)\]", str(fd.readlink()))
                    if match:
                        inodes[match[1]] = name
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            address, port = fields[1].split(":")
            plain = ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
            found[plain, int(port, 16)] = inodes[fields[9]]
    return found


def asked(address: str, port: int, *paths: str) -> dict[str, object]:
    """What a stranger gets for each path, by https and by http: a status code or an exception's name."""
    ask = ["-c", ASK, address, str(port), *paths]
    argv = [sys.executable, *ask] if why_no_stranger() else as_stranger("/usr/bin/python3", *ask)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    answers: dict[str, object] = json.loads(done.stdout)
    return answers


def test_every_port_asks_for_credentials(cluster: EmbeddedCluster) -> None:
    state = cluster.directory.load()
    assert state
    slot = Slot(state.slot)
    open_ports = listening(cluster)
    programs = set(open_ports.values())
    assert programs >= {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "vip", "coredns",
                        "metrics-server", "node"}  # fmt: skip
    dns = (str(slot.dns), served_port(slot.dns, 53))
    assert dns in open_ports
    own = ("default/kubernetes", "kube-system/metrics-server")
    services = json.loads(cluster.kubectl("get", "services", "-A", "-o", "json"))["items"]
    of_tests = {
        service["spec"]["clusterIP"]
        for service in services
        if f"{service['metadata']['namespace']}/{service['metadata']['name']}" not in own
    }
    of_tests |= {service_at(address, 10001)[0] for address in of_tests}
    for (address, port), program in open_ports.items():
        assert address.startswith("127."), f"{program} listens on {address}:{port}"
        if (address, port) == dns:
            continue  # it speaks DNS, which has no credentials; it tells names and addresses
        if program == "vip" and address in of_tests:
            continue  # the Service of another test's pods
        for request, answer in asked(address, port, *PATHS).items():
            scheme, path = request.split()
            refused = (
                answer in (401, 403, 404) or isinstance(answer, str) or (scheme == "http" and answer == 400)
            )
            assert refused or path in PUBLIC, f"{program} answers {answer} to {request} on {address}:{port}"


@pytest.mark.usefixtures("stranger")
def test_another_user_cannot_read_any_file(cluster: EmbeddedCluster) -> None:
    look = "import os, sys; print(sum(len(f) for _, _, f in os.walk(sys.argv[1])))"
    done = subprocess.run(
        as_stranger("/usr/bin/python3", "-c", look, cluster.directory.path),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "0"
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(as_stranger("cat", cluster.kubeconfig), capture_output=True, check=True)


def test_files_are_the_users_own(cluster: EmbeddedCluster) -> None:
    top = cluster.directory.path
    assert stat.S_IMODE(top.stat().st_mode) == 0o700
    for part in ("pki", "conf", "logs", "etcd", "admin.kubeconfig", "state.json", "control.sock"):
        paths = [top / part, *(top / part).rglob("*")] if (top / part).is_dir() else [top / part]
        loose = [path for path in paths if path.stat().st_mode & 0o077 and not path.is_dir()]
        if part == "etcd":  # which gives its snapshots the mode 0644, in a folder that nobody else may enter
            loose = [path for path in loose if path.parent.stat().st_mode & 0o077]
        assert part == "logs" or loose == [], part


@pytest.mark.usefixtures("stranger")
def test_another_user_cannot_order_the_supervisor_about(cluster: EmbeddedCluster) -> None:
    ask = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(3)\n"
        "s.connect(f'/proc/self/fd/{sys.argv[1]}/control.sock')\n"
        's.sendall(b\'{"op": "status"}\\n\'); print(len(s.recv(100)))'
    )
    folder = os.open(cluster.directory.path, os.O_PATH)  # even somebody who was handed the directory
    try:
        argv = as_stranger("/usr/bin/python3", "-c", ask, str(folder))
        done = subprocess.run(argv, capture_output=True, text=True, pass_fds=[folder])
    finally:
        os.close(folder)
    assert "PermissionError" in done.stderr or done.stdout.strip() == "0", done.stderr


def test_bootstrap_tokens_may_only_ask_for_a_certificate(cluster: EmbeddedCluster) -> None:
    from labkit.cluster.join import Token

    token = Token.random()
    cluster.kubectl("apply", "-f", "-", input=json.dumps(token.manifest("nobody", approve=True)))
    server = cluster.status().urls["api"].removeprefix("https://")
    address, port = server.split(":")
    context = ssl.create_default_context(cafile=str(cluster.directory / "pki/ca.crt"))
    codes = {}
    for path in (
        "/api/v1/secrets",
        "/api/v1/nodes",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    ):
        with context.wrap_socket(
            socket.create_connection((address, int(port)), 5), server_hostname=address
        ) as secure:
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
            secure.sendall(head.encode())
            codes[path] = int(secure.recv(4096).split(b" ")[1])
    cluster.kubectl("delete", "secret", "-n", "kube-system", f"bootstrap-token-{token.id}")
    assert codes["/api/v1/secrets"] == 403
    assert codes["/api/v1/nodes"] == 403


def test_a_node_may_only_touch_what_is_its_own(cluster: EmbeddedCluster) -> None:
    mine = cluster.directory.node("worker-1") / "kubelet.kubeconfig"
    with_nodes_certificate = ("--kubeconfig", str(mine))
    from labkit.tools import kubectl

    def may(*args: str) -> str:
        argv = [str(kubectl()), *with_nodes_certificate, *args]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30).stdout.strip()

    assert may("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}") == "system:node:worker-1"
    assert may("auth", "can-i", "list", "secrets", "-A").startswith("no")
    denied = subprocess.run(
        [str(kubectl()), *with_nodes_certificate, "label", "node", "worker-2", "x=y"],
        capture_output=True,
        text=True,
    )
    assert denied.returncode
    assert "not allowed to modify node" in denied.stderr or "forbidden" in denied.stderr.lower()


def test_kubelets_certificates_are_signed_by_the_cluster(cluster: EmbeddedCluster) -> None:
    state = cluster.directory.load()
    assert state
    machine = Slot(state.slot).machine(state.nodes["worker-1"].machine)
    context = ssl.create_default_context(cafile=str(cluster.directory / "pki/ca.crt"))
    plain = socket.create_connection((str(served(machine.address)), 10250), 5)
    with context.wrap_socket(plain, server_hostname=str(machine.address)) as secure:
        subject = dict(part[0] for part in secure.getpeercert()["subject"])  # type: ignore[index,misc]
    assert subject["commonName"] == "system:node:worker-1"
