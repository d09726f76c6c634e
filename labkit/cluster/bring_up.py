"""`labkit up`: create an embedded cluster, or bring one back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from labkit.acquire import Binaries, binaries
from labkit.cluster import components, kubelet
from labkit.cluster.addresses import Slot, served_port
from labkit.cluster.background import Background
from labkit.cluster.credentials import write_bootstrap, write_credentials
from labkit.cluster.discovery import DISCOVERY_S, cluster_info, discover, key_hash
from labkit.cluster.join import Join, Token, kept_out
from labkit.cluster.objects import apply_all, cluster_objects, is_for_joining
from labkit.cluster.phases import Listener, Step, phase
from labkit.cluster.preflight import check_kernel, claim_slot, reclaim_slot
from labkit.cluster.state import Directory, Node, Options, State, check_options, settled
from labkit.cluster.supervisor import NoComponent, Supervisor
from labkit.cluster.tear_down import end_processes, tear_down
from labkit.cluster.waiting import accepts, log_tail, wait_for
from labkit.errors import ClusterError, MachineError
from labkit.folders import write
from labkit.images import default_root
from labkit.kube import Kube
from labkit.kube.objects import is_true

FIRST = ("etcd", "kube-apiserver")
_READY_S = 90.0
_RESTARTS = 3


def bring_up(directory: Directory, listener: Listener, given: dict[str, Any]) -> None:
    """Create the cluster, or start what is missing of it.

    Args:
        given: options that were asked for; a resumed cluster must have been made with the same ones.

    Raises:
        ConfigError: an option is wrong, or another one than the cluster was made with.
        MachineError, AcquireError, ClusterError, WaitTimeout: it cannot start; nothing is left running.
    """
    try:
        _bring_up(directory, listener, given)
    except OSError as err:
        what = f"{err.filename or directory.path}: {err.strerror or err}"
        hint = f"{directory.path} must be on a disk with some space, and yours to write; see XDG_STATE_HOME."
        raise MachineError(f"The cluster's files cannot be written: {what}.", hint) from err


def _bring_up(directory: Directory, listener: Listener, given: dict[str, Any]) -> None:
    with ExitStack() as held:
        with phase("preflight", listener, "looking what is there") as step:
            held.enter_context(directory.locked(step.note))
            state = directory.load()
            made = state.options if state else Options()
            wanted = check_options(settled(directory.name, made, given, ready=bool(state and state.ready)))
            directory.check_path()
            half_made = directory.exists and not (state and state.ready)
            if half_made:
                step.note("removing what an interrupted `up` left")
                tear_down(directory)
            step.tell(f"cluster {directory.name}: {'resume' if state and state.ready else 'create'}")
        found = get_binaries(listener)
        with phase("kernel", listener, "trying what pods need") as step:
            facts = check_kernel(found)
            sandbox = {name: bool(facts.get(name)) for name in ("sockets", "user_namespaces")}
            mounts = sandbox["user_namespaces"]
            step.tell(
                f"socket filter works, pods have {'mounts of their own' if mounts else 'linked volumes'}"
            )
        if state and state.ready:
            with directory.change() as state:
                state.sandbox = sandbox
            Resume(directory, state, found, listener).run()
        else:
            create(directory, wanted, found, listener, sandbox)


def create(
    directory: Directory, options: Options, found: Binaries, listener: Listener, sandbox: dict[str, bool]
) -> None:
    """Make a new cluster; when that fails or is interrupted, none of its processes is left."""
    directory.create()
    try:
        made = Create(directory, options, found, listener)
        made.state.sandbox = sandbox
        made.run()
    except KeyboardInterrupt:
        tear_down(directory)
        raise
    except BaseException:
        end_processes(directory)  # the logs stay, for whoever looks for the reason
        raise


class _Start:
    """What creating and resuming have in common."""

    def __init__(self, directory: Directory, state: State, found: Binaries, listener: Listener) -> None:
        self.directory, self.state, self.binaries, self.listener = directory, state, found, listener
        self.supervisor = Supervisor(directory)
        self._kube: Kube | None = None

    @property
    def slot(self) -> Slot:
        return Slot(self.state.slot)

    @property
    def kube(self) -> Kube:
        """The API as super-admin, who needs no RBAC object."""
        if self._kube is None:
            self._kube = Kube(self.directory / "conf/super-admin.kubeconfig", patience_s=5)
        return self._kube

    def control_plane(self) -> None:
        """Start everything but the nodes, and wait until the API server is ready."""
        made = components.control_plane(self.directory, self.slot, self.state.options, self.binaries.kube)
        requests = [component.request(self.directory) for component in made]
        with phase("control-plane", self.listener, "etcd and API server start") as step:
            self.supervisor.apply([r for r in requests if r["name"] in FIRST])
            api_ready(self.supervisor, self.directory)
            self.supervisor.apply(requests)
            step.tell("etcd, API server, controller manager, scheduler, Service proxy")

    def addons(self) -> None:
        """Wait until cluster DNS and metrics-server listen, and pods can be created."""
        with phase("addons", self.listener, "cluster DNS") as step:
            dns = partial(accepts, str(self.slot.dns), served_port(self.slot.dns, 53))
            wait_for(dns, 30, "cluster DNS answers", self._why("coredns"))
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            there = partial(self.kube.request, "GET", account)
            why = self._why("kube-controller-manager")
            wait_for(there, 30, "the default service account exists", why)
            step.tell(f"cluster DNS on {self.slot.dns}; metrics-server starts to collect")

    def _why(self, name: str) -> Callable[[], str]:
        return lambda: log_tail(self.directory, name)

    def join(self, name: str, step: Step) -> None:
        """Let a worker join, with a new token."""
        joining = start_join(self.kube, self.directory, self.state, name, self.binaries)
        for seen in joining:
            step.tell(seen.name)
        step.tell(f"Ready, {self.state.nodes[name].cpus} CPUs, {self.state.nodes[name].memory}")

    @contextmanager
    def joins(self, names: list[str]) -> Iterator[None]:
        """Let workers join while the block runs; both are complete at the end."""

        def one(name: str) -> None:
            with phase(f"join {name}", self.listener, "starting") as step:
                self.join(name, step)

        joins = Background([partial(one, name) for name in names])
        yield
        joins.wait()


class Create(_Start):
    """A cluster that did not exist."""

    def __init__(self, directory: Directory, options: Options, found: Binaries, listener: Listener) -> None:
        nodes = {
            f"worker-{number}": Node(number, options.cpus, options.memory)
            for number in range(1, options.workers + 1)
        }
        super().__init__(
            directory, State(directory.name, 0, options, time.time(), nodes=nodes), found, listener
        )

    def run(self) -> None:
        """All phases."""
        with phase("certs", self.listener, "making certificates") as step:
            slot = claim_slot(self.supervisor, self.binaries.shim)
            self.state.slot = slot.number
            self.directory.save(self.state)
            count = write_credentials(self.directory, slot)
            write(self.directory / "Corefile", components.corefile(self.directory, slot))
            step.tell(f"3 authorities, {count - 3} certificates, slot {slot.number}")
        self.control_plane()
        objects = cluster_objects(self.directory, slot)
        with phase("bootstrap", self.listener, "letting workers join") as step:
            first = apply_all(self.kube, [each for each in objects if is_for_joining(each)])
            step.tell(f"{first} objects: who may join, how certificates are approved, where the cluster is")
        with self.joins(list(self.state.nodes)):
            with phase("objects", self.listener, "roles, Services, storage class") as step:
                rest = apply_all(self.kube, [each for each in objects if not is_for_joining(each)])
                step.tell(f"{rest} objects: roles, Services, storage class")
            self.addons()
        self.state.ready = True
        self.directory.save(self.state)


class Resume(_Start):
    """A cluster that was complete once."""

    def run(self) -> None:
        """Start what does not run; data, certificates and nodes are as they were."""
        with phase("resume", self.listener, "looking what runs") as step:
            running = self.supervisor.running
            if not running:
                reclaim_slot(self.supervisor, self.binaries.shim, self.slot, self.directory)
            step.tell("it runs already" if running else f"supervisor started, slot {self.state.slot}")
        self.control_plane()
        joined = {n for n in self.state.nodes if kubelet.has_certificate(self.directory, n)}
        back = [n for n in sorted(joined) if not self.state.nodes[n].lost]
        self.supervisor.apply([self._node(name) for name in back])
        with self.joins(sorted(set(self.state.nodes) - joined)):
            self.addons()
            with phase("nodes", self.listener, f"{len(back)} workers come back") as step:
                for name in back:
                    ready = partial(node_ready, self.kube, name)
                    wait_for(ready, _READY_S, f"{name} is Ready", self._why(kubelet.component_name(name)))
                step.tell(f"{len(back)} workers Ready")

    def _node(self, name: str) -> dict[str, Any]:
        node = self.state.nodes[name]
        images = default_root()
        made = kubelet.component(self.directory, self.slot, name, node, self.binaries, images)
        return made.request(self.directory)


def start_join(
    kube: Kube, directory: Directory, state: State, name: str, found: Binaries, *, approve: bool = True,
    limit_s: float = _READY_S, token: Token | None = None, ca_cert_hash: str | None = None,
    server: str | None = None,
) -> Join:  # fmt: skip
    """Start a worker's kubelet with a bootstrap token, and follow its join.

    Args:
        token, ca_cert_hash, server: with one of them the worker finds the cluster as `kubeadm join` does;
            without, it gets a new token and is told where the cluster is.
    """
    slot, node = Slot(state.slot), state.nodes[name]
    finds = any(given is not None for given in (token, ca_cert_hash, server))

    def find(token: Token) -> str:
        known, authority = cluster_info(kube)
        log = components.log_file(directory, kubelet.component_name(name))
        pin, file = ca_cert_hash or key_hash(authority), directory.node(name) / "bootstrap.kubeconfig"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return discover(found.kube, server or known, token, pin, file, log, min(DISCOVERY_S, limit_s))
        except BaseException:
            with directory.change() as current:
                current.nodes.pop(name, None)
            shutil.rmtree(directory.node(name), ignore_errors=True)
            raise

    def start(token: Token) -> str:
        with suppress(NoComponent):  # there is one only where a join was cut off
            Supervisor(directory).remove(kubelet.component_name(name))
        kubelet.forget_certificates(directory, name)
        kubelet.write_configuration(directory, slot, name, node)
        if not finds:
            write_bootstrap(directory, slot, name, str(token))
        made = kubelet.component(directory, slot, name, node, found, default_root())
        Supervisor(directory).apply([made.request(directory)])
        return f"{name} with token {token.id}.…, address {slot.machine(node.machine).address}"

    return Join(
        kube, name, start, token=token, discover=find if finds else None, approve=approve, limit_s=limit_s,
        ended=partial(why_ended, directory, kubelet.component_name(name)), cluster=directory.name,
    )  # fmt: skip


def why_ended(directory: Directory, component: str) -> str:
    """Why a component does not stay up, from its log; "" while it does, or when nobody knows."""
    with suppress(ClusterError):
        for process in Supervisor(directory).status()[1]:
            if process.name == component and process.restarts >= _RESTARTS:
                return (
                    f"{process.restarts} times so far, {process.last_exit}. {log_tail(directory, component)}"
                )
    return ""


def restart_controller_manager(directory: Directory, state: State, found: Binaries) -> None:
    """Let the controller manager run with the options in `state`; nothing if it does already."""
    name, slot = "kube-controller-manager", Slot(state.slot)
    made = components.control_plane(directory, slot, state.options, found.kube)
    Supervisor(directory).apply([each.request(directory) for each in made if each.name == name])
    answers = partial(accepts, str(slot.control_plane.served), *components.PORTS[name])
    wait_for(answers, 30, f"the {name} answers", partial(log_tail, directory, name))


def api_ready(supervisor: Supervisor, directory: Directory, limit_s: float = _READY_S) -> None:
    """Wait until the API server says that it is ready.

    Raises:
        WaitTimeout: with the last lines of the log of the component that fails.
    """

    def reason() -> str:
        failing = [
            p.name for p in supervisor.status()[1] if p.name in FIRST and (p.restarts or p.state != "running")
        ]
        return log_tail(directory, failing[0] if failing else "kube-apiserver")

    def gone() -> bool:
        return any(p.name in FIRST and p.restarts > 3 for p in supervisor.status()[1])

    impatient = Kube(directory / "conf/super-admin.kubeconfig", patience_s=0)

    def ready() -> bool:
        return bool(impatient.request("GET", "/readyz") == "ok")

    wait_for(ready, limit_s, "the API server is ready", reason, hopeless=gone)


def node_ready(kube: Kube, name: str) -> bool:
    """Whether a node is Ready, reports, and takes pods."""
    node = kube.request("GET", f"/api/v1/nodes/{name}")
    return is_true(node, "Ready") and not kept_out(node)


def get_binaries(listener: Listener) -> Binaries:
    """The phase in which the cluster's programs are found, downloaded or built."""
    with phase("binaries", listener, "looking in the cache") as step:
        found = binaries(step.tell, step.note)
        step.tell(found.origin)
        return found
