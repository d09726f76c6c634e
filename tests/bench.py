"""`make bench`: what the embedded cluster costs, measured in one run, side by side with what it is compared with.

Figures are medians of several runs. Aims are printed beside them; none of them fails anything, since machines differ.

    python -m tests.bench            # everything, about six minutes on two cores
    python -m tests.bench up pods    # some parts
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.table import Table

import labkit
from labkit import acquire
from labkit.acquire.build import FLAGS, environment
from labkit.cluster.base import Cluster
from labkit.tools import go
from tests.cluster.helpers import Namespace, deployment, namespace, pod, service, until

CONSOLE = Console(highlight=False)
MIB = 1 << 20


class Report:
    """Rows of the table, printed as they come and again at the end."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def add(self, what: str, measured: str, aim: str = "") -> None:
        """One figure with its unit, and the aim it is compared with."""
        self.rows.append((what, measured, aim))
        CONSOLE.print(f"  {what}: [bold]{measured}[/]" + (f"   (aim {aim})" if aim else ""))

    def table(self) -> Table:
        """All rows."""
        table = Table(title=f"labkit on {os.cpu_count()} processors")
        for heading in ("what", "measured", "aim"):
            table.add_column(heading)
        for row in self.rows:
            table.add_row(*row)
        return table


def silent(_phase: object) -> None:
    """Phases of `up` are not shown here."""


def seconds(action: Callable[[], Any]) -> float:
    """How long an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def bench_import(report: Report) -> None:
    """`import labkit` in a fresh interpreter, above an interpreter that imports nothing."""
    run = lambda code: seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))  # noqa: E731
    pairs = [(run("import labkit"), run("pass")) for _ in range(5)]
    report.add("import labkit, s above bare python", spread([a - b for a, b in pairs], 3), "0.3")


def bench_up(report: Report) -> None:
    """`labkit up` with two workers until both are Ready, `labkit down`, and memory at rest."""
    ups, downs, memory = [], [], []
    for _ in range(3):
        clusters: list[Cluster] = []
        ups.append(
            seconds(lambda made=clusters: made.append(labkit.up("bench-up", workers=2, listener=silent)))
        )
        time.sleep(20)
        memory.append(clusters[0].status().memory_bytes / MIB)
        downs.append(seconds(clusters[0].down))
    report.add("labkit up, control plane and 2 workers Ready, s", spread(ups), "6")
    report.add("memory of the cluster at rest (PSS), MiB", spread(memory, 0), "750")
    report.add("labkit down, s", spread(downs))


def bench_pods(report: Report, cluster: Cluster) -> None:
    """From pod created to Ready, when a Deployment goes from 1 to 10 replicas; the readiness probe's period is 1 s."""
    probe = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
    with namespace(cluster, "bench-pods") as space:
        space.apply(deployment("web", 1, "python3", "-m", "http.server", "8080", container=probe))
        space.rolled("deployment/web")
        known = {item["metadata"]["uid"] for item in space.items("pods")}
        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(ready_times, cluster, space.name, known, 9)
            time.sleep(1)
            space.kubectl("scale", "deployment/web", "--replicas=10")
            took = watching.result(timeout=120)
        report.add(
            "pod created → Ready, 1 → 10 replicas, s", spread(took), "1 beyond the probe's period of 1"
        )


def ready_times(cluster: Cluster, space: str, known: set[str], count: int) -> list[float]:
    """Seconds from ADDED to Ready of `count` new pods of a namespace, seen by a watch."""
    argv = ["get", "pods", "-n", space, "-w", "--output-watch-events", "-o", "json"]
    from labkit.tools import kubectl

    watch = subprocess.Popen(
        [str(kubectl()), "--kubeconfig", str(cluster.kubeconfig), *argv], stdout=subprocess.PIPE, text=True
    )
    added: dict[str, float] = {}
    took: dict[str, float] = {}
    decoder, text, deadline = json.JSONDecoder(), "", time.monotonic() + 90
    assert watch.stdout
    try:
        while len(took) < count and time.monotonic() < deadline:
            text += watch.stdout.readline()
            try:
                event, end = decoder.raw_decode(text.lstrip())
            except json.JSONDecodeError:
                continue
            text = text.lstrip()[end:]
            item, now = event["object"], time.perf_counter()
            uid = item["metadata"]["uid"]
            if uid in known:
                continue
            added.setdefault(uid, now)
            conditions = {c["type"]: c["status"] for c in item["status"].get("conditions", [])}
            if conditions.get("Ready") == "True":
                took.setdefault(uid, now - added[uid])
    finally:
        watch.terminate()
        watch.wait(10)
    return list(took.values())


def bench_service(report: Report, cluster: Cluster) -> None:
    """Requests through a Service against a direct connection: one redis-server, redis-benchmark on the host."""
    if not (shutil.which("redis-server") and shutil.which("redis-benchmark")):
        report.add("Service against direct connection", "not measured: redis is not installed")
        return
    command = ("redis-server", "--port", "6379", "--save", "", "--protected-mode", "no", "--dir", "/tmp")
    with namespace(cluster, "bench-vip") as space:
        space.apply(pod("redis", *command), service("redis", 6379, 6379))
        space.ready("redis")
        direct = mapped(space.get("pod", "redis")["status"]["podIP"])
        virtual = space.get("service", "redis")["spec"]["clusterIP"]
        until(lambda: redis_benchmark(virtual, 100)[0], 20, "an answer through the Service")
        pairs = [(redis_benchmark(direct, 50_000), redis_benchmark(virtual, 50_000)) for _ in range(5)]
    ratios = [100 * through[0] / straight[0] for straight, through in pairs]
    report.add("requests/s through a Service, % of direct", spread(ratios, 0), "60")
    report.add("requests/s direct and through", f"{pairs[2][0][0]:.0f} and {pairs[2][1][0]:.0f}")
    added = [through[1] - straight[1] for straight, through in pairs]
    report.add("added latency (median, 10 clients), ms", spread(added, 3), "0.3")


def mapped(address: str) -> str:
    """The loopback address at which a pod's address is served."""
    return "127." + address.split(".", 1)[1]


def redis_benchmark(host: str, requests: int) -> tuple[float, float]:
    """Requests per second and median latency in ms of 10 clients."""
    argv = [
        "redis-benchmark",
        "-h",
        host,
        "-p",
        "6379",
        "-c",
        "10",
        "-n",
        str(requests),
        "-t",
        "ping_inline",
        "--csv",
    ]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    fields = dict(zip(*([x.strip('"') for x in line.split(",")] for line in lines[:2]), strict=False))
    return float(fields["rps"]), float(fields["p50_latency_ms"])


def bench_sockets(report: Report, cluster: Cluster) -> None:
    """What the socket supervisor adds to a connect: the same program in a pod and on the host, to the same listener."""
    program = (
        "import socket, sys, time\n"
        "target = (sys.argv[1], 18099)\n"
        "def rounds(n):\n"
        "    begin = time.perf_counter()\n"
        "    for _ in range(n):\n"
        "        s = socket.socket(); s.connect(target); s.close()\n"
        "    return (time.perf_counter() - begin) / n * 1e6\n"
        "rounds(300); print(sorted(rounds(1000) for _ in range(5))[2])"
    )
    listen = (
        "import socket\n"
        "s = socket.create_server(('0.0.0.0', 18099), backlog=512)\n"
        "while True: s.accept()[0].close()"
    )
    with namespace(cluster, "bench-connect") as space:
        space.run("server", "python3", "-c", listen)
        space.run("client")
        address = space.get("pod", "server")["status"]["podIP"]
        inside, outside = [], []
        for _ in range(3):
            inside.append(float(space.exec("client", "python3", "-c", program, address)))
            argv = [sys.executable, "-c", program, mapped(address)]
            outside.append(float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout))
    report.add(
        "connect in a pod and on the host, µs",
        f"{statistics.median(inside):.0f} and {statistics.median(outside):.0f}",
    )
    added = [a - b for a, b in zip(inside, outside, strict=True)]
    report.add("added by the socket supervisor, µs per connect", spread(added, 0), "60")


def bench_nodes(report: Report) -> None:
    """Time to Ready and memory with 2, 5 and 10 workers."""
    cells = []
    for workers in (2, 5, 10):
        clusters: list[Cluster] = []
        took = seconds(
            lambda n=workers, made=clusters: made.append(labkit.up("bench-nodes", workers=n, listener=silent))
        )
        time.sleep(10)
        memory = clusters[0].status().memory_bytes / MIB
        clusters[0].down()
        cells.append(f"{workers}: {took:.1f} s, {memory:.0f} MiB")
    report.add("labkit up by workers", " · ".join(cells))


def bench_many_pods(report: Report, cluster: Cluster) -> None:
    """Time until 10, 50 and 100 pods are Ready, and what each adds to memory. They only sleep."""
    cells = []
    sleeper = {"resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}
    with namespace(cluster, "bench-many") as space:
        space.apply(deployment("many", 0, "sleep", "3600", container=sleeper))
        before = cluster.status().memory_bytes / MIB
        for count in (10, 50, 100):
            space.kubectl("scale", "deployment/many", "--replicas=0")
            until(lambda: not space.items("pods", "app=many"), 120, "the pods before are gone", every=1)
            took = seconds(lambda n=count, s=space: scale(s, n))
            added = cluster.status().memory_bytes / MIB - before
            cells.append(f"{count}: {took:.1f} s, {added / count:.1f} MiB each")
    report.add("pods Ready by number", " · ".join(cells))


def scale(space: Namespace, count: int) -> None:
    """Scale Deployment `many` and wait for all of its pods."""
    space.kubectl("scale", "deployment/many", f"--replicas={count}")
    space.rolled("deployment/many", 300)


def bench_load(report: Report) -> None:
    """CPU that the load generator takes for each request, sent to a server that answers at once."""
    from labkit import load

    server = subprocess.Popen(
        [sys.executable, "-c", "import asyncio\n" + ASYNC_SERVER], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout
        port = int(server.stdout.readline())
        before = os.times()
        result = load.run(f"http://127.0.0.1:{port}/", load.constant(300, seconds=10))
        after = os.times()
    finally:
        server.terminate()
        server.wait(10)
    cpu = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    summary = result.summary()
    report.add("load generator, CPU ms per request at 300/s", f"{1000 * cpu / 3000:.2f}")
    report.add(
        "load generator, latency p50 and p99 of an empty server, ms",
        f"{summary.p50_ms:.1f} and {summary.p99_ms:.1f}",
    )
    report.add(
        "load generator, its own part at p99: sent late, and answers unread, ms",
        f"{summary.lag_p99_ms:.1f} and {summary.unread_p99_ms:.1f}",
    )


def bench_hpa(report: Report) -> None:
    """The simulator: one day in steps of its metrics, and a thousand settings over that day."""
    from labkit.hpa import workload
    from labkit.hpa.simulate import simulate, sweep

    load = workload.sine(mean=150, amplitude=140)
    simulate(hpa_scenario(0), load, seed=1)
    days = [1000 * seconds(lambda: simulate(hpa_scenario(0), load, seed=1)) for _ in range(5)]
    report.add("HPA simulator, 24 h of one autoscaler, ms", spread(days, 0), "100")
    several = [hpa_scenario(i) for i in range(1000)]
    report.add(
        "HPA simulator, 24 h of 1,000 settings, s",
        f"{seconds(lambda: sweep(several, load, seed=1)):.1f}",
        "30",
    )
    report.add(
        "HPA explorer, one redraw, ms", spread([redraw_ms(percent) for percent in (40, 50, 70)], 0), "100"
    )


def redraw_ms(percent: int) -> float:
    """Milliseconds from moving a slider of a new explorer until everything is drawn."""
    from labkit.hpa.explorer import Explorer

    explorer = Explorer()

    def move() -> None:
        explorer.controls["A"]["target_percent"].value = percent

    return 1000 * seconds(move)


def hpa_scenario(i: int) -> Any:
    """One of many settings."""
    from labkit.hpa import Behavior, HpaSpec, Policy, ScalingRules, cpu_utilization
    from labkit.hpa.scenario import Scenario

    up = ScalingRules((Policy("Pods", 1 + i % 9, 60), Policy("Percent", 50, 15)))
    down = ScalingRules((Policy("Percent", 50, 60),), "Max", (0, 60, 300, 3600)[i % 4])
    return Scenario(
        HpaSpec(30 + i % 20, metrics=(cpu_utilization(20 + i % 70),), behavior=Behavior(up, down))
    )


ASYNC_SERVER = """
async def answer(reader, writer):
    while await reader.readline() not in (b"\\r\\n", b""): pass
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok"); await writer.drain(); writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def bench_proxy(report: Report) -> None:
    """The Service proxy's own Go benchmark."""
    program = go()
    argv = [str(program), "test", *FLAGS, "-run=^$", "-bench=.", "./vip"]
    done = subprocess.run(
        argv, cwd=acquire.sources(), env=environment(program), capture_output=True, text=True
    )
    for name, value, unit in re.findall(r"^Benchmark(\S+)\s+\d+\s+([\d.]+) (\S+)", done.stdout, re.MULTILINE):
        report.add(f"go benchmark {name}", f"{value} {unit}")


def bench_providers(report: Report) -> None:
    """The embedded cluster and kind, side by side."""
    from tests.bench_providers import side_by_side

    side_by_side(report.add)


ALONE = {
    "import": bench_import,
    "up": bench_up,
    "nodes": bench_nodes,
    "load": bench_load,
    "hpa": bench_hpa,
    "proxy": bench_proxy,
    "providers": bench_providers,
}
ON_A_CLUSTER = {
    "pods": bench_pods,
    "service": bench_service,
    "sockets": bench_sockets,
    "many": bench_many_pods,
}


def main(names: list[str]) -> int:
    """Run the parts named, or all."""
    unknown = set(names) - set(ALONE) - set(ON_A_CLUSTER)
    if unknown:
        CONSOLE.print(f"There is no part {', '.join(unknown)}. Parts: {', '.join([*ALONE, *ON_A_CLUSTER])}.")
        return 2
    wanted = names or [*ALONE, *ON_A_CLUSTER]
    report = Report()
    for name in filter(ALONE.__contains__, wanted):
        ALONE[name](report)
    shared = list(filter(ON_A_CLUSTER.__contains__, wanted))
    if shared:
        with labkit.up("bench", workers=2, listener=silent) as cluster:
            for name in shared:
                ON_A_CLUSTER[name](report, cluster)
    CONSOLE.print(report.table())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
