"""The provider kind without an engine: what is told to kind and kubeadm, and what is made of what docker says."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from labkit.cluster.discovery import key_hash
from labkit.cluster.kind.config import (
    Host,
    Joining,
    cluster_configuration,
    join_configuration,
)
from labkit.cluster.kind.engine import Engine
from labkit.cluster.kind.images import bases, build_error
from labkit.cluster.kind.objects import added_objects
from labkit.cluster.kind.preflight import Machine, check_machine, look
from labkit.cluster.kind.progress import failure, phase_of, run_create
from labkit.cluster.kind.serving import refusal
from labkit.cluster.kind.state import KindDirectory, KindNode, KindOptions, KindState, check_images
from labkit.cluster.phases import Phase
from labkit.cluster.pki import Authority
from labkit.errors import ClusterError, ConfigError, ImageError, LabkitError, MachineError

GIB = 1 << 30
HOST = Host(8, 32 * GIB, "1")


def workers(count: int) -> dict[str, KindNode]:
    return {
        f"worker-{n}": KindNode(f"labkit-lab-worker{n if n > 1 else ''}", 2, "4Gi")
        for n in range(1, count + 1)
    }


def test_kind_is_told_names_sizes_and_times() -> None:
    options = KindOptions(hpa_sync_s=7, eviction_after_s=9, node_monitor_grace_s=16)
    config = yaml.safe_load(cluster_configuration(options, workers(2), HOST))
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker"]
    names = [
        yaml.safe_load(node["kubeadmConfigPatches"][0])["nodeRegistration"]["name"]
        for node in config["nodes"]
    ]
    assert names == ["control-plane", "worker-1", "worker-2"]
    cluster, kubelet = (yaml.safe_load(patch) for patch in config["kubeadmConfigPatches"])
    flags = {arg["name"]: arg["value"] for arg in cluster["controllerManager"]["extraArgs"]}
    assert flags["horizontal-pod-autoscaler-sync-period"] == "7s"
    assert flags["node-monitor-grace-period"] == "16s"
    assert flags["enable-hostpath-provisioner"] == "true"
    tolerations = {arg["name"]: arg["value"] for arg in cluster["apiServer"]["extraArgs"]}
    assert tolerations["default-unreachable-toleration-seconds"] == "9"
    assert kubelet["systemReserved"] == {"cpu": "6", "memory": f"{28 * 1024 - 100}Mi"}
    assert kubelet["failCgroupV1"] is False and kubelet["serverTLSBootstrap"] is True


def test_a_host_with_control_groups_of_version_2_is_not_told_of_version_1() -> None:
    config = yaml.safe_load(cluster_configuration(KindOptions(), workers(1), Host(2, 8 * GIB, "2")))
    assert "failCgroupV1" not in yaml.safe_load(config["kubeadmConfigPatches"][1])


def test_a_worker_larger_than_the_machine_is_told_so() -> None:
    assert HOST.fits(8, "32Gi") == ""
    assert "16 CPUs, and the machine has 8" in HOST.fits(16, "1Gi")
    assert "64Gi of memory, and the machine has 32 GiB" in HOST.fits(1, "64Gi")
    assert HOST.reserved(16, "64Gi") == {"cpu": "0", "memory": "0Mi"}


def test_a_joining_worker_is_told_token_and_authority() -> None:
    taints = ["gpu=yes:NoSchedule"]
    node = KindNode("labkit-lab-worker-3", 2, "4Gi", "172.19.0.9", labels={"zone": "b"}, taints=taints)
    to = Joining("labkit-lab-control-plane:6443", "sha256:1f", "abcdef.0123456789abcdef", discovery_s=6)
    config = yaml.safe_load(join_configuration("worker-3", node, "labkit-lab", to, 900))
    registration, bootstrap = config["nodeRegistration"], config["discovery"]["bootstrapToken"]
    arguments = {arg["name"]: arg["value"] for arg in registration["kubeletExtraArgs"]}
    assert registration["name"] == "worker-3" and arguments["node-ip"] == "172.19.0.9"
    assert arguments["node-labels"] == "zone=b"
    assert registration["taints"] == [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]
    assert bootstrap["token"] == "abcdef.0123456789abcdef"
    assert bootstrap["caCertHashes"] == ["sha256:1f"]
    assert config["timeouts"]["tlsBootstrap"] == "930s" and config["timeouts"]["discovery"] == "6s"


def test_the_public_keys_hash_is_that_of_openssl(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_bytes(Authority.create("kubernetes").pair.certificate)
    key = subprocess.run(
        ["openssl", "x509", "-pubkey", "-noout", "-in", file], capture_output=True, check=True
    )
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "der"], input=key.stdout, capture_output=True
    )
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-r"], input=der.stdout, capture_output=True)
    assert key_hash(file.read_bytes()) == f"sha256:{digest.stdout.split()[0].decode()}"


def test_metrics_server_verifies_and_is_verified() -> None:
    objects = {(o["kind"], o["metadata"]["name"]): o for o in added_objects(KindOptions(metrics_s=8), "x:v1")}
    container = objects["Deployment", "metrics-server"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "x:v1" and "--metric-resolution=8s" in container["args"]
    assert not [a for a in container["args"] if "insecure" in a]
    service = objects["APIService", "v1beta1.metrics.k8s.io"]["spec"]
    authority = x509.load_pem_x509_certificate(base64.b64decode(service["caBundle"]))
    served = base64.b64decode(objects["Secret", "metrics-server-tls"]["data"]["tls.crt"])
    x509.load_pem_x509_certificate(served).verify_directly_issued_by(authority)


def serving_request(node: str, names: list[str], *, user: str = "", common: str = "") -> dict[str, object]:
    """A request as a kubelet makes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common or f"system:node:{node}")])
    dns = [x509.DNSName(name) for name in names]
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject)
    csr = csr.add_extension(x509.SubjectAlternativeName(dns), critical=False)
    pem = csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    spec = {
        "signerName": "kubernetes.io/kubelet-serving", "username": user or f"system:node:{node}",
        "groups": ["system:nodes", "system:authenticated"], "request": base64.b64encode(pem).decode(),
    }  # fmt: skip
    return {"metadata": {"name": "csr-1"}, "spec": spec, "status": {}}


def test_a_serving_certificate_is_given_for_the_nodes_own_names_only() -> None:
    allowed = {"worker-1", "172.19.0.3"}
    assert refusal(serving_request("worker-1", ["worker-1"]), "worker-1", allowed) == ""
    wrong = serving_request("worker-1", ["worker-1", "kubernetes.default"])
    assert "kubernetes.default" in refusal(wrong, "worker-1", allowed)
    assert "made by" in refusal(
        serving_request("worker-1", ["worker-1"], user="mallory"), "worker-1", allowed
    )
    other = serving_request("worker-1", ["worker-1"], common="system:node:worker-2")
    assert "worker-2" in refusal(other, "worker-1", allowed)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("permission denied while trying to connect to the Docker daemon socket at unix:///x", MachineError, "may not use"),
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", MachineError, "no engine"),
        ("write /var/lib/docker/tmp: no space left on device", MachineError, "disk of the Docker engine is full"),
        ("Failed to create inotify object: Too many open files", MachineError, "inotify"),
        ("Error response from daemon: something else", ClusterError, "something else"),
    ],
)  # fmt: skip
def test_each_fault_of_the_engine_is_one_typed_error(said: str, kind: type[LabkitError], words: str) -> None:
    error = Engine.fault(said)
    assert type(error) is kind and words in error.message
    assert error.hint or kind is ClusterError


def test_no_docker_and_no_engine_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no program `docker`"):
        Engine("docker-of-nobody").info()
    client = tmp_path / "docker"
    client.write_text(
        '#!/bin/sh\necho "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?" >&2\nexit 1\n'
    )
    client.chmod(0o755)
    with pytest.raises(MachineError, match="no engine answers"):
        Engine(str(client)).info()
    client.write_text(
        '#!/bin/sh\necho \'{"ServerErrors": ["permission denied while trying to connect to the Docker daemon socket"]}\'\n'
    )
    with pytest.raises(MachineError, match="may not use"):
        Engine(str(client)).info()
    client.write_text("#!/bin/sh\nexec sleep 30\n")
    with pytest.raises(MachineError, match="not answered within"):
        Engine(str(client)).run("ps", limit_s=0.3)


def test_a_machine_that_is_too_small_is_refused_with_numbers() -> None:
    check_machine(Machine(8 * GIB, 50 * GIB, 512), 2)
    check_machine(Machine(), 2)  # what cannot be told is not refused
    with pytest.raises(MachineError, match=r"0\.5 GiB of memory available; .* 2 workers needs 1\.4 GiB"):
        check_machine(Machine(memory_bytes=GIB // 2), 2)
    with pytest.raises(MachineError, match=r"1\.0 GiB free"):
        check_machine(Machine(disk_bytes=GIB), 2)
    with pytest.raises(MachineError, match="max_user_instances is 100") as caught:
        check_machine(Machine(inotify_instances=100), 2)
    assert "sysctl fs.inotify.max_user_instances=512" in caught.value.hint


def test_the_limits_of_an_engine_elsewhere_are_not_read_here(tmp_path: Path) -> None:
    seen = look({"OperatingSystem": "Docker Desktop", "MemTotal": 3 * GIB, "Name": "vm"})
    assert seen == Machine(memory_bytes=3 * GIB, remote=True)
    with pytest.raises(MachineError, match="Docker's virtual machine has"):
        check_machine(Machine(GIB, remote=True), 3)
    import platform

    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 2048 kB\n")
    (tmp_path / "max_user_instances").write_text("128\n")
    info = {"OperatingSystem": "Debian", "Name": platform.node(), "DockerRootDir": str(tmp_path / "not/yet")}
    here = look(info, meminfo, tmp_path)
    assert (here.memory_bytes, here.inotify_instances, here.remote) == (2 << 20, 128, False)
    assert here.disk_bytes > 0


def test_the_line_of_the_dockerfile_is_named(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM python:3.12-slim\nWORKDIR /app\nRUN   pip install nothing-of-that-name\nCMD x\n")
    legacy = "Step 3/4 : RUN   pip install nothing-of-that-name\n ---> Running in 1\nERROR: No matching distribution\n"
    legacy += "The command '/bin/sh -c pip install' returned a non-zero code: 1\n"
    error = build_error(file, legacy)
    assert isinstance(error, ImageError) and f"{file}, line 3" in error.message
    assert "No matching distribution" in error.hint
    assert (
        "line 2" in build_error(file, "dockerfile parse error line 2: unknown instruction: WORKDIRS").message
    )
    assert (
        "line 3" in build_error(file, "Dockerfile:3\n----\n 3 | >>> RUN pip\nERROR: failed to solve").message
    )
    assert isinstance(build_error(file, "no space left on device"), MachineError)


def test_the_images_that_a_dockerfile_begins_from(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(
        "ARG TAG=3.12\nFROM golang:1.26 AS build\nFROM python:${TAG}-slim\nCOPY --from=build /a /a\nFROM build\n"
    )
    assert bases(file, {}) == ["golang:1.26", "python:3.12-slim"]


FAKE_KIND = """#!/bin/sh
echo 'Creating cluster "labkit-lab" ...'
echo ' • Preparing nodes 📦 📦   ...'; echo ' ✓ Preparing nodes 📦 📦 '
echo ' • Starting control-plane 🕹️  ...'
%s
"""


def test_what_kind_says_becomes_phases(tmp_path: Path) -> None:
    program = tmp_path / "kind"
    program.write_text(FAKE_KIND % "echo ' ✓ Starting control-plane 🕹️ '")
    program.chmod(0o755)
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    seen: list[Phase] = []
    run_create(Engine(str(docker)), program, ["create"], "net", tmp_path / "log", seen.append)
    assert [(p.name, p.state) for p in seen if p.state != "running"] == [
        ("containers", "done"),
        ("control-plane", "done"),
    ]
    program.write_text(FAKE_KIND % "echo 'ERROR: failed to create cluster: kubeadm init failed'; exit 1")
    seen.clear()
    with pytest.raises(ClusterError, match="kubeadm init failed") as caught:
        run_create(Engine(str(docker)), program, ["create"], "net", tmp_path / "log", seen.append)
    assert str(tmp_path / "log") in caught.value.hint
    assert (seen[-1].name, seen[-1].state) == ("control-plane", "failed")


def test_known_faults_are_found_in_what_kind_says(tmp_path: Path) -> None:
    said = "ERROR: failed to create cluster\nFailed to allocate manager object: inotify: Too many open files"
    assert isinstance(failure(said, tmp_path / "log", 1), MachineError)
    assert "within 10 min" in failure("", tmp_path / "log", None).message
    assert phase_of("Installing CNI 🔌  ...") == "network-plugin"
    assert phase_of("Something new") == ""


def test_the_state_is_kept_and_damage_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    directory = KindDirectory("lab")
    assert directory.read() is None
    directory.create()
    state = KindState("lab", KindOptions(workers=1), 1.0, nodes=workers(1), images=["a:v1"])
    directory.store(state)
    assert directory.read() == state
    with directory.changed() as now:
        now.nodes["worker-1"].lost = True
    again = directory.read()
    assert again and again.nodes["worker-1"].lost
    (directory / "kind.json").write_text("{")
    with pytest.raises(ClusterError, match="damaged"):
        directory.read()
    (directory / "kind.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ClusterError, match="format 99"):
        directory.read()


def test_a_source_of_images_that_is_not_there_is_refused() -> None:
    assert check_images(KindOptions(images="airgap")).images == "airgap"
    with pytest.raises(ConfigError, match="images='cloud'"):
        check_images(KindOptions(images="cloud"))
