"""The processes of an embedded cluster: what each is started with.

Flags are upstream's; `kube COMPONENT --help` explains them.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from labkit.cluster.addresses import Slot, served
from labkit.cluster.credentials import API_PORT
from labkit.cluster.state import Directory, Options

CONTROL_PLANE = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "vip", "coredns", "metrics-server",
)  # fmt: skip
"""In the order in which they are started; they are stopped in the reverse one."""

PORTS = {"etcd": (2379, 2380), "kube-apiserver": (API_PORT,), "kube-controller-manager": (10257,),
         "kube-scheduler": (10259,)}  # fmt: skip
"""TCP ports of components on the control plane's address."""

KUBELET_PORT = 10250
METRICS_PORT = 4443
STATE_VARIABLE = "LABKIT_STATE"
"""Environment variable of every process that belongs to a cluster: the cluster's directory."""


@dataclass(frozen=True)
class Component:
    """One process that the supervisor keeps running.

    Attributes:
        policy: "host" (addresses that it binds or connects to are translated) or "none".
    """

    name: str
    argv: list[str]
    policy: str = "host"

    def request(self, directory: Directory) -> dict[str, Any]:
        """As the supervisor wants it."""
        return {
            "name": self.name, "argv": self.argv, "env": [f"{STATE_VARIABLE}={directory.path}"],
            "dir": str(directory.path), "policy": self.policy, "log": str(log_file(directory, self.name)),
        }  # fmt: skip


def log_file(directory: Directory, component: str) -> Path:
    """Where a component's output goes."""
    return directory / f"logs/{component}.log"


def control_plane(directory: Directory, slot: Slot, options: Options, kube: Path) -> list[Component]:
    """All components but the nodes, in the order in which they are started."""
    plan = _Plan(directory, slot, options)
    made = {
        "etcd": plan.etcd(),
        "kube-apiserver": plan.api_server(),
        "kube-controller-manager": plan.controller_manager(),
        "kube-scheduler": plan.scheduler(),
        "vip": plan.vip(),
        "coredns": ["-conf", str(directory / "Corefile")],
        "metrics-server": plan.metrics_server(),
    }
    plain = ("etcd", "vip")  # vip translates by itself, and has to tell a port from its shifted number
    return [
        Component(name, [str(kube), name, *made[name]], policy="none" if name in plain else "host")
        for name in CONTROL_PLANE
    ]


def corefile(directory: Directory, slot: Slot, resolv_conf: Path = Path("/etc/resolv.conf")) -> str:
    """CoreDNS's configuration: cluster.local from the API, everything else from the machine's name servers.

    No health, ready or metrics port: those know no authentication.
    """
    forward = f"    forward . {quoted(resolv_conf)} {{\n        max_concurrent 1000\n    }}\n    loop\n"
    return f""".:53 {{
    bind {slot.dns}
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {quoted(directory / "conf/coredns.kubeconfig")}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
{forward if _name_servers(resolv_conf) else ""}    cache 30 {{
        disable success cluster.local
        disable denial cluster.local
    }}
    loadbalance
}}
"""


def quoted(path: Path) -> str:
    """A path as one word of a Corefile, in which only a quotation mark needs a backslash."""
    return '"' + str(path).replace('"', '\\"') + '"'


def _name_servers(resolv_conf: Path) -> list[str]:
    """Name servers that CoreDNS can forward to; without one it refuses to start."""
    found = []
    try:
        lines = resolv_conf.read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            try:
                found.append(str(ip_address(words[1].partition("%")[0])))
            except ValueError:
                continue
    return found


class _Plan:
    """Arguments of the control plane's components."""

    def __init__(self, directory: Directory, slot: Slot, options: Options) -> None:
        self.pki = directory / "pki"
        self.conf = directory / "conf"
        self.directory, self.slot, self.options = directory, slot, options
        self.address = str(slot.control_plane.served)

    def etcd(self) -> list[str]:
        client, peer = f"https://{self.address}:2379", f"https://{self.address}:2380"
        own = self.pki / "etcd"
        return [
            "--name=control-plane", f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=control-plane={peer}",
            f"--cert-file={own}/server.crt", f"--key-file={own}/server.key",
            "--client-cert-auth", f"--trusted-ca-file={own}/ca.crt",
            f"--peer-cert-file={own}/server.crt", f"--peer-key-file={own}/server.key",
            "--peer-client-cert-auth", f"--peer-trusted-ca-file={own}/ca.crt",
            "--heartbeat-interval=20", "--election-timeout=200",  # a single member elects itself
            # Entries of the log that etcd keeps in memory: they are for members that lag behind.
            "--snapshot-count=2000", "--snapshot-catchup-entries=100", "--quota-backend-bytes=536870912",
            "--auto-compaction-mode=periodic", "--auto-compaction-retention=5m",
        ]  # fmt: skip

    def api_server(self) -> list[str]:
        pki = self.pki
        return [
            f"--etcd-servers=https://{self.address}:2379", f"--etcd-cafile={pki}/etcd/ca.crt",
            f"--etcd-certfile={pki}/etcd/client.crt", f"--etcd-keyfile={pki}/etcd/client.key",
            f"--bind-address={self.address}", f"--secure-port={API_PORT}",
            f"--advertise-address={self.slot.control_plane.address}",
            *self._serving("apiserver"), "--authorization-mode=Node,RBAC", "--anonymous-auth=true",
            "--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth=true",
            "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key",
            f"--service-cluster-ip-range={self.slot.service_cidr}", "--service-node-port-range=30000-32767",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
            f"--proxy-client-key-file={pki}/front-proxy-client.key", "--enable-aggregator-routing=true",
            f"--default-not-ready-toleration-seconds={self.options.eviction_after_s}",
            f"--default-unreachable-toleration-seconds={self.options.eviction_after_s}",
            "--profiling=false",
        ]  # fmt: skip

    def controller_manager(self) -> list[str]:
        pki, options = self.pki, self.options
        return [
            *self._identity("controller-manager"), f"--bind-address={self.address}", "--secure-port=10257",
            *self._serving("controller-manager"),
            f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt", "--leader-elect=false",
            "--use-service-account-credentials=true", "--controllers=*,bootstrapsigner,tokencleaner",
            "--kube-api-qps=200", "--kube-api-burst=400",
            f"--root-ca-file={pki}/ca.crt", f"--service-account-private-key-file={pki}/sa.key",
            f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key",
            f"--cluster-name={self.directory.name}", f"--service-cluster-ip-range={self.slot.service_cidr}",
            f"--node-monitor-period={options.node_monitor_period_s}s",
            f"--node-monitor-grace-period={options.node_monitor_grace_s}s",
            f"--horizontal-pod-autoscaler-sync-period={options.hpa_sync_s}s",
            f"--horizontal-pod-autoscaler-initial-readiness-delay={options.hpa_initial_readiness_s}s",
            f"--horizontal-pod-autoscaler-cpu-initialization-period={options.hpa_cpu_initialization_s}s",
            "--profiling=false",
        ]  # fmt: skip

    def scheduler(self) -> list[str]:
        return [
            *self._identity("scheduler"), f"--bind-address={self.address}", "--secure-port=10259",
            *self._serving("scheduler"), f"--requestheader-client-ca-file={self.pki}/front-proxy-ca.crt",
            "--leader-elect=false", "--profiling=false",
        ]  # fmt: skip

    def metrics_server(self) -> list[str]:
        return [
            *self._identity("metrics-server"), f"--bind-address={served(self.slot.metrics_server)}",
            f"--secure-port={METRICS_PORT}", *self._serving("metrics-server"),
            f"--requestheader-client-ca-file={self.pki}/front-proxy-ca.crt",
            f"--kubelet-certificate-authority={self.pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP", "--kubelet-use-node-status-port",
            f"--metric-resolution={self.options.metrics_s}s",
            f"--kubelet-request-timeout={max(1, self.options.metrics_s // 2)}s",
        ]  # fmt: skip

    def vip(self) -> list[str]:
        return [
            f"--kubeconfig={self.conf}/vip.kubeconfig", f"--slot={self.slot.number}",
            f"--volumes-dir={self.directory / 'volumes'}", *self._serving("vip"),
        ]  # fmt: skip

    def _identity(self, name: str) -> list[str]:
        file = self.conf / f"{name}.kubeconfig"
        purposes = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        return [f"--{purpose}={file}" for purpose in purposes]

    def _serving(self, name: str) -> list[str]:
        return [
            f"--tls-cert-file={self.pki}/{name}.crt", f"--tls-private-key-file={self.pki}/{name}.key",
            f"--client-ca-file={self.pki}/ca.crt",
        ]  # fmt: skip
