"""Services and pod addresses: every kind of Service, unmodified clients, DNS, connections that outlive a rollout."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest

from labkit.cluster.base import Cluster

from .helpers import Namespace, deployment, namespace, pod, service, until

pytestmark = pytest.mark.cluster
WHO = (
    "import http.server, os, signal, sys, threading\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    protocol_version = 'HTTP/1.1'\n"
    "    def do_GET(self):\n"
    "        body = (os.environ['HOSTNAME'] + ' ' + self.client_address[0]).encode()\n"
    "        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\n"
    "    def log_message(self, *a): pass\n"
    "http.server.ThreadingHTTPServer(('0.0.0.0', int(sys.argv[1])), H).serve_forever()"
)


def who(space: Namespace, replicas: int = 2, port: int = 80) -> None:
    """A Deployment `who` that answers with its pod's name and the client's address."""
    ready = {"readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1}}
    space.apply(deployment("who", replicas, "python3", "-c", WHO, str(port), container=ready))
    space.rolled("deployment/who")


def fetch(space: Namespace, url: str) -> str:
    """What the pod `client` gets from a URL."""
    return space.kubectl("exec", "client", "--", "curl", "-sS", "--max-time", "5", url)


def test_cluster_ip_balances_and_names_resolve(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        who(space)
        space.apply(service("who", 80, 80))
        space.run("client")
        pods = {p["metadata"]["name"] for p in space.items("pods", "app=who")}
        for name in ("who", f"who.{space.name}", f"who.{space.name}.svc.cluster.local"):
            assert until(lambda name=name: fetch(space, f"http://{name}/"), 15, name).split()[0] in pods
        seen = {fetch(space, "http://who/").split()[0] for _ in range(24)}
        assert seen == pods
        client = space.get("pod", "client")["status"]["podIP"]
        direct = space.items("pods", "app=who")[0]["status"]["podIP"]
        assert direct.startswith(("198.18.", "198.19."))
        assert fetch(space, f"http://{direct}/").split()[1].split(".")[2:] == client.split(".")[2:]


def test_headless_service_lists_pod_addresses(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        who(space)
        space.apply(service("who", 80, 80, clusterIP="None"))
        space.run("client")
        ask = (
            "import socket; print(*sorted({a[4][0] for a in socket.getaddrinfo('who', 80, socket.AF_INET)}))"
        )
        wanted = sorted(p["status"]["podIP"] for p in space.items("pods", "app=who"))
        until(lambda: space.exec("client", "python3", "-c", ask).split() == wanted, 20, "both addresses")
        reverse = space.exec("client", "getent", "hosts", "kubernetes.default.svc.cluster.local")
        assert reverse.split()[0] == cluster.kubectl(
            "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"
        )


def test_node_port_answers_on_every_node(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        who(space)
        space.apply(service("who", 80, 80, type="NodePort"))
        space.run("client")
        port = space.get("service", "who")["spec"]["ports"][0]["nodePort"]
        for node in cluster.nodes():
            assert until(lambda node=node: fetch(space, f"http://{node.address}:{port}/"), 15, node.name)


def test_load_balancer_address_is_served(cluster: Cluster) -> None:
    """Whoever sets the address (MetalLB, or a hand), the proxy serves it."""
    with namespace(cluster) as space:
        who(space)
        space.apply(service("who", 80, 80, type="LoadBalancer"))
        space.run("client")
        slot = (
            int(
                cluster.kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}").split(
                    "."
                )[1]
            )
            - 96
        )
        address = f"127.240.{slot}.77"
        status = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
        space.kubectl(
            "patch", "service", "who", "--subresource=status", "--type=merge", "-p", json.dumps(status)
        )
        assert until(lambda: fetch(space, f"http://{address}/"), 15, "an answer at the LoadBalancer address")


def test_service_is_reachable_from_this_process(cluster: Cluster) -> None:
    with namespace(cluster) as space:
        who(space)
        space.apply(service("who", 80, 80))
        url = cluster.url("who", namespace=space.name)
        assert until(lambda: urllib.request.urlopen(url, timeout=3).read().startswith(b"who-"), 15, url)


def test_localhost_is_the_pods_own(cluster: Cluster) -> None:
    """Two pods listen on 127.0.0.1:80; each reaches its own, the host's own localhost stays untouched."""
    serve = WHO.replace("0.0.0.0", "127.0.0.1")
    with namespace(cluster) as space:
        space.apply(*(pod(name, "python3", "-c", serve, "80") for name in ("one", "two")))
        for name in ("one", "two"):
            space.ready(name)
            get = ("curl", "-sS", "--max-time", "5", "http://localhost/")
            assert until(lambda name=name, get=get: space.exec(name, *get), 60, name).split()[0] == name


def test_pod_calls_the_api_with_its_service_account(cluster: Cluster) -> None:
    call = (
        "curl -sS --max-time 5 --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt "
        '-H "Authorization: Bearer $(cat /var/run/secrets/kubernetes.io/serviceaccount/token)" '
        "https://kubernetes.default.svc/api/v1/namespaces/$(cat /var/run/secrets/kubernetes.io/serviceaccount/namespace)/pods"
    )
    with namespace(cluster) as space:
        space.run("caller")
        assert '"reason": "Forbidden"' in until(
            lambda: space.exec("caller", "sh", "-c", call), 15, "an answer"
        )
        space.kubectl(
            "create", "rolebinding", "look", "--clusterrole=view", f"--serviceaccount={space.name}:default"
        )
        until(lambda: '"kind": "PodList"' in space.exec("caller", "sh", "-c", call), 15, "the list of pods")


def test_no_request_fails_during_a_rollout(cluster: Cluster) -> None:
    polite = "import signal, time; " + (
        "signal.signal(signal.SIGTERM, lambda *a: threading.Thread(target=lambda: (time.sleep(1.5), os._exit(0))).start())\n"
    )
    with namespace(cluster) as space:
        ready = {"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}}
        program = "import os, threading\n" + polite + WHO
        space.apply(
            deployment("who", 2, "python3", "-c", program, "80", container=ready), service("who", 80, 80)
        )
        space.rolled("deployment/who")
        url = cluster.url("who", namespace=space.name)
        until(lambda: urllib.request.urlopen(url, timeout=3).read(), 15, url)
        space.kubectl("rollout", "restart", "deployment/who")
        names, failed, deadline = set(), [], time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                names.add(urllib.request.urlopen(url, timeout=5).read().split()[0])
            except OSError as error:
                failed.append(str(error))
            time.sleep(0.01)
        assert not failed
        assert len(names) == 4
