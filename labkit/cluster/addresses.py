"""The address plan of embedded clusters: slots, machines, and where an address of the cluster is served.

The same plan is in embedded/loopback (Go). A slot is one running cluster on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from labkit.errors import ConfigError

SLOTS = 8
MACHINES = 62
"""Workers a cluster can have; machine 0 is the control plane."""

PODS = IPv4Network("198.18.0.0/15")
_SERVED_PODS = IPv4Network("127.18.0.0/15")
_CLUSTER = (_SERVED_PODS, IPv4Network("127.96.0.0/13"), IPv4Network("127.240.0.0/21"))
_BESIDE = {
    IPv4Network("127.96.0.0/13"): IPv4Address("127.104.0.0"),
    IPv4Network("127.240.0.0/21"): IPv4Address("127.241.0.0"),
}
_PRIVILEGED = 1024
_MOVED_BY = 10000


@dataclass(frozen=True)
class Machine:
    """One machine of a cluster.

    Attributes:
        number: 0 for the control plane, 1 … 62 for workers.
        address: its own address, as Kubernetes sees it.
        pod_cidr: the /24 its pods get addresses from.
    """

    number: int
    address: IPv4Address
    pod_cidr: IPv4Network

    @property
    def served(self) -> IPv4Address:
        """The loopback address that stands for `address` on this host."""
        return served(self.address)


@dataclass(frozen=True)
class Slot:
    """The addresses of the cluster that holds slot `number` (0 … 7)."""

    number: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < SLOTS:
            raise ConfigError(f"Slot {self.number} is not one of 0 … {SLOTS - 1}.")

    @property
    def service_cidr(self) -> IPv4Network:
        """Range of ClusterIPs, native loopback addresses."""
        return IPv4Network((f"127.{96 + self.number}.0.0", 16))

    @property
    def kubernetes_service(self) -> IPv4Address:
        """ClusterIP of the Service `kubernetes`."""
        return self.service_cidr[1]

    @property
    def dns(self) -> IPv4Address:
        """ClusterIP of cluster DNS."""
        return self.service_cidr[10]

    @property
    def load_balancer_cidr(self) -> IPv4Network:
        """Range for LoadBalancer Services."""
        return IPv4Network((f"127.240.{self.number}.0", 24))

    @property
    def pod_cidr(self) -> IPv4Network:
        """Range of all machines and pods."""
        return list(PODS.subnets(new_prefix=18))[self.number]

    @property
    def lock(self) -> str:
        """Name of the abstract Unix socket that the running cluster holds."""
        return f"\0labkit-slot-{self.number}"

    def machine(self, number: int) -> Machine:
        """Machine `number`: 0 is the control plane, 1 … 62 are workers."""
        if not 0 <= number <= MACHINES:
            raise ConfigError(f"A cluster has room for {MACHINES} workers; {number} is too many.")
        base = int(self.pod_cidr.network_address) + number * 256
        network = IPv4Network((base, 24))
        return Machine(number, network[1], network)

    @property
    def control_plane(self) -> Machine:
        """The machine of etcd, API server, controller manager and scheduler."""
        return self.machine(0)

    @property
    def metrics_server(self) -> IPv4Address:
        """Address of metrics-server as Kubernetes sees it, on the control plane's machine."""
        return self.machine(0).pod_cidr[2]


def served(address: IPv4Address | str) -> IPv4Address:
    """The loopback address that stands for a pod's or machine's address; others unchanged.

    198.18.a.b ↔ 127.18.a.b and 198.19.a.b ↔ 127.19.a.b.
    """
    given = IPv4Address(address)
    if given not in PODS:
        return given
    return IPv4Address(int(given) - int(PODS.network_address) + int(_SERVED_PODS.network_address))


def served_port(address: IPv4Address | str, port: int) -> int:
    """The port at which `port` of an address is served: privileged ones of the cluster move up by 10000."""
    inside = any(served(address) in network for network in _CLUSTER)
    return port + _MOVED_BY if inside and 0 < port < _PRIVILEGED else port


def service_at(address: IPv4Address | str, port: int) -> tuple[str, int]:
    """Where a Service's or LoadBalancer's port is served.

    Its ports 10001 to 11023 make room for the privileged ones: they are at an address beside its own.
    """
    given = IPv4Address(address)
    for network, beside in _BESIDE.items():
        if given in network and _MOVED_BY < port < _MOVED_BY + _PRIVILEGED:
            return str(beside + (int(given) - int(network.network_address))), port
    return str(given), served_port(given, port)
