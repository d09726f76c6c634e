"""What a client of a Service meets: refusals, changes of endpoints, affinity, datagrams; and that pods keep to themselves."""

from __future__ import annotations

import socket
import time
from ipaddress import ip_address

import pytest

from labkit.cluster.addresses import served, served_port
from labkit.cluster.base import Cluster

from .helpers import deployment, namespace, pod, service, until
from .test_network import WHO, fetch, who

pytestmark = pytest.mark.cluster

TRY = (
    "import socket, sys\n"
    "seen = set()\n"
    "for _ in range(100):\n"
    "    try: socket.create_connection((sys.argv[1], 5432), 5).close(); seen.add('connected')\n"
    "    except OSError as err: seen.add(err.strerror)\n"
    "print(*sorted(seen))"
)
ECHO = (
    "import socket\n"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5353))\n"
    "while True:\n"
    "    data, peer = s.recvfrom(9999); s.sendto(data.upper(), peer)"
)


def test_a_connection_tells_whether_the_pod_takes_it(cluster: Cluster) -> None:
    """`until nc -z db 5432` is how many manifests wait for a database."""
    with namespace(cluster) as space:
        late = "import pathlib, time\nwhile not pathlib.Path('/tmp/go').exists(): time.sleep(0.05)\n"
        space.apply(service("db", 5432, 5432), service("nobody", 5432, 5432))
        space.apply(pod("db", "python3", "-c", late + WHO, "5432"))
        space.run("client")
        space.ready("db")

        def tried(name: str) -> str:
            return space.exec("client", "python3", "-c", TRY, name).strip()

        until(
            lambda: space.items("endpointslices", "kubernetes.io/service-name=db")[0]["endpoints"],
            20,
            "an endpoint",
        )
        time.sleep(0.5)  # for the proxy to know it, or the answer would be the one of no endpoint
        assert tried("db") == "Connection refused"
        assert tried("nobody") == "Connection refused"
        space.exec("db", "touch", "/tmp/go")
        until(lambda: tried("db") == "connected", 20, "connections")


def test_new_endpoints_are_found_and_old_ones_left(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        who(space)
        space.apply(service("who", 80, 80))
        space.run("client")
        until(lambda: fetch(space, "http://who/"), 15, "an answer")
        space.kubectl("scale", "deployment/who", "--replicas=1")
        until(lambda: len(space.items("pods", "app=who")) == 1, 30, "one pod")
        (left,) = space.items("pods", "app=who")
        assert {fetch(space, "http://who/").split()[0] for _ in range(10)} == {left["metadata"]["name"]}
        client = space.get("pod", "client")["status"]["podIP"]
        assert fetch(space, "http://who/").split()[1].split(".")[2:] == client.split(".")[2:]


def test_session_affinity_keeps_a_pod_at_one_endpoint(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        who(space, 3)
        space.apply(service("who", 80, 80, sessionAffinity="ClientIP"))
        space.run("client")
        until(lambda: fetch(space, "http://who/"), 15, "an answer")
        assert len({fetch(space, "http://who/").split()[0] for _ in range(12)}) == 1


def _ask(address: str, port: int) -> bytes:
    """What a datagram from this machine is answered; b"" for nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect((address, port))
        client.send(b"hello")
        try:
            return client.recv(99)
        except OSError:
            return b""


def test_datagrams_of_this_machine_are_answered(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        udp = {"ports": [{"port": 5353, "targetPort": 5353, "protocol": "UDP"}]}
        space.apply(service("echo", 5353, 5353, **udp), pod("echo", "python3", "-c", ECHO))
        space.ready("echo")
        at = ip_address(space.get("pod", "echo")["status"]["podIP"])
        until(lambda: _ask(str(served(at)), served_port(at, 5353)) == b"HELLO", 15, "an answer of the pod")
        virtual = space.get("service", "echo")["spec"]["clusterIP"]
        until(lambda: _ask(virtual, 5353) == b"HELLO", 15, "an answer of the Service")


def test_a_pod_that_cannot_start_says_why(cluster: Cluster) -> None:
    """The reason is an event, the pod does not run, and what it starts later has its own address."""
    with namespace(cluster) as space:
        listens = "import socket, time; s = socket.create_server(('', 8085)); print(s.getsockname()[0], flush=True); time.sleep(99)"
        broken = {"workingDir": "/etc/hostname"}
        space.apply(pod("broken", "python3", "-c", listens, container=broken, restartPolicy="Never"))

        def told() -> bool:
            events = space.kubectl("get", "events", "--field-selector=involvedObject.name=broken")
            return "working directory" in events

        until(told, 30, "an event with the reason")
        assert space.get("pod", "broken")["status"]["phase"] != "Running"
        space.run("sound", "python3", "-c", listens)
        assert until(lambda: space.kubectl("logs", "sound").startswith("127."), 20, "its address")


def test_replicas_may_use_one_abstract_name(cluster: Cluster) -> None:
    program = (
        "import socket, time\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(b'\\0labkit-replica'); s.listen(); print('bound', flush=True); time.sleep(999)"
    )
    with namespace(cluster) as space:
        space.apply(deployment("app", 2, "python3", "-c", program))
        space.rolled("deployment/app")
        names = [each["metadata"]["name"] for each in space.items("pods", "app=app")]
        assert len(names) == 2
        for name in names:
            until(lambda name=name: "bound" in space.kubectl("logs", name), 20, name)
