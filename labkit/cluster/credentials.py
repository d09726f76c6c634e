"""Who is who in an embedded cluster: the files that phase `certs` writes."""

from __future__ import annotations

from labkit.cluster.addresses import Slot, served
from labkit.cluster.pki import Authority, Pair, key_pair, kubeconfig
from labkit.cluster.state import Directory
from labkit.folders import write

API_PORT = 6443
ADMINS = "kubeadm:cluster-admins"
"""The group that a ClusterRoleBinding makes administrators, as kubeadm has it."""

USERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("kubernetes-admin", (ADMINS,)),
    "super-admin": ("kubernetes-super-admin", ("system:masters",)),
    "controller-manager": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "metrics-server": ("system:metrics-server", ()),
    "coredns": ("system:coredns", ()),
    "vip": ("system:labkit-vip", ()),
}
"""Kubeconfig → user and groups. `admin` is the user's; the others stay in conf/."""

_KUBERNETES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


def server_url(slot: Slot) -> str:
    """Where the API server answers."""
    return f"https://{slot.control_plane.served}:{API_PORT}"


def write_credentials(directory: Directory, slot: Slot) -> int:
    """Write pki/, conf/ and admin.kubeconfig; returns the number of certificates."""
    pki = directory / "pki"
    authorities = {
        "ca": Authority.create("kubernetes"),
        "front-proxy-ca": Authority.create("front-proxy-ca"),
        "etcd/ca": Authority.create("etcd-ca"),
    }
    for name, authority in authorities.items():
        authority.pair.write(pki / name)
    servers = _servers(slot, authorities)
    for name, pair in servers.items():
        pair.write(pki / name)
    private, public = key_pair()
    write(pki / "sa.key", private)
    write(pki / "sa.pub", public)
    ca = authorities["ca"]
    for name, (user, groups) in USERS.items():
        pair = ca.issue(user, groups=groups, client=True)
        file = directory.kubeconfig if name == "admin" else directory / f"conf/{name}.kubeconfig"
        text = kubeconfig(directory.name, server_url(slot), ca.pair.certificate, name, pair)
        write(file, text)
    return len(authorities) + len(servers) + len(USERS)


def write_bootstrap(directory: Directory, slot: Slot, node: str, token: str) -> None:
    """Write the kubeconfig with which a worker asks for its certificate."""
    authority = (directory / "pki/ca.crt").read_bytes()
    text = kubeconfig(directory.name, server_url(slot), authority, "kubelet-bootstrap", token=token)
    write(directory.node(node) / "bootstrap.kubeconfig", text)


def _servers(slot: Slot, authorities: dict[str, Authority]) -> dict[str, Pair]:
    """Certificates of servers, and of clients that use files instead of a kubeconfig."""
    machine = slot.control_plane
    here = (machine.served, machine.address)
    metrics = (slot.metrics_server, served(slot.metrics_server))
    ca, etcd, front = authorities["ca"], authorities["etcd/ca"], authorities["front-proxy-ca"]
    names = (*_KUBERNETES, "localhost")
    return {
        "etcd/server": etcd.issue(
            "control-plane", client=True, server=True, names=("localhost",), addresses=here
        ),
        "etcd/client": etcd.issue("kube-apiserver-etcd-client", client=True),
        "apiserver": ca.issue(
            "kube-apiserver", server=True, names=names, addresses=(slot.kubernetes_service, *here)
        ),
        "apiserver-kubelet-client": ca.issue("kube-apiserver-kubelet-client", groups=(ADMINS,), client=True),
        "front-proxy-client": front.issue("front-proxy-client", client=True),
        "controller-manager": ca.issue(
            "kube-controller-manager", server=True, names=("localhost",), addresses=here
        ),
        "scheduler": ca.issue("kube-scheduler", server=True, names=("localhost",), addresses=here),
        "vip": ca.issue("vip", server=True, names=("localhost",), addresses=here),
        "metrics-server": ca.issue(
            "metrics-server", server=True, names=("metrics-server.kube-system.svc",), addresses=metrics
        ),
    }
