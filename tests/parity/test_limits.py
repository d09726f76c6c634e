"""What a node counts and what it enforces; metrics and the autoscaler."""

from __future__ import annotations

from tests.cluster.helpers import Namespace, service, until
from tests.parity.behaviours import Answer, behaviour, no, yes
from tests.parity.pods import python_deployment, python_pod

_BURN = "while True: pass"
_USED = (
    "import time\n"
    "def used():\n"
    "    begin, wall = time.process_time(), time.monotonic()\n"
    "    while time.monotonic() - wall < 3: pass\n"
    "    return (time.process_time() - begin) / (time.monotonic() - wall)\n"
    "print(used())"
)


@behaviour(
    "A CPU limit throttles",
    embedded=no("it is counted, not enforced: a process has no control group of its own"),
)
def test_cpu_limit(space: Namespace, answer: Answer) -> None:
    space.apply(python_pod("burns", container={"resources": {"limits": {"cpu": "200m", "memory": "128Mi"}}}))
    space.ready("burns")
    share = min(float(space.exec("burns", "python", "-c", _USED)) for _ in range(2))
    # A busy machine gives little to everybody: only more than the limit tells of a limit that does not hold.
    throttled = share < 0.3
    if answer.does:
        assert throttled, f"it got {share:.2f} CPUs"
    else:
        assert not throttled or _busy(), f"it got {share:.2f} CPUs"


def _busy() -> bool:
    import os

    return os.getloadavg()[0] > 2 * (os.cpu_count() or 1)


@behaviour("A container that takes more memory than its limit is killed: OOMKilled")
def test_memory_limit(space: Namespace) -> None:
    program = "import time\nparts = []\nwhile True:\n    parts.append(bytearray(8 << 20)); time.sleep(0.05)"
    limits = {"resources": {"limits": {"memory": "96Mi"}}}
    space.apply(python_pod("eats", program, container=limits, restartPolicy="Never"))

    def reason() -> bool:
        state = space.get("pod", "eats")["status"]["containerStatuses"][0]["state"]
        return bool(state.get("terminated", {}).get("reason") == "OOMKilled")

    until(reason, 90, "OOMKilled")


@behaviour(
    "A container sees only its pod's processes",
    embedded=yes(
        "where user namespaces are allowed; elsewhere pods are processes of the user, and see one another"
    ),
)
def test_processes_are_apart(space: Namespace, answer: Answer) -> None:
    space.apply(python_pod("looks"))
    space.ready("looks")
    count = "import os; print(sum(name.isdigit() for name in os.listdir('/proc')))"
    seen = int(space.exec("looks", "python", "-c", count))
    assert (seen < 10) == answer.does


@behaviour(
    "A container runs as the user that its security context names",
    embedded=yes("a user namespace shows it that user; its files are those of the user who runs the cluster"),
)
def test_run_as_user(space: Namespace, answer: Answer) -> None:
    space.apply(python_pod("who", container={"securityContext": {"runAsUser": 12345}}))
    space.ready("who")
    assert (
        space.exec("who", "python", "-c", "import os; print(os.getuid())").strip() == "12345"
    ) == answer.does


@behaviour("`kubectl top` shows what pods and nodes use")
def test_metrics(space: Namespace) -> None:
    space.apply(python_pod("burns", _BURN, container={"resources": {"requests": {"cpu": "100m"}}}))
    space.ready("burns")

    def millicores() -> int:
        said = space.kubectl("top", "pod", "burns", "--no-headers", check=False).split()
        return int(said[1].rstrip("m")) if len(said) > 1 else 0

    assert until(lambda: millicores() > 20, 90, "its CPU", every=2)
    assert len(space.cluster.kubectl("top", "nodes", "--no-headers").splitlines()) >= 2


@behaviour("A HorizontalPodAutoscaler adds replicas under load")
def test_autoscaler(space: Namespace) -> None:
    requests = {"resources": {"requests": {"cpu": "50m", "memory": "32Mi"}}}
    space.apply(python_deployment("busy", 1, _BURN, container=requests), service("busy", 80, 8080))
    space.rolled("deployment/busy")
    space.kubectl("autoscale", "deployment", "busy", "--cpu=50%", "--min=1", "--max=3")
    until(lambda: space.get("deployment", "busy")["spec"]["replicas"] == 3, 120, "three replicas", every=2)
