"""How a worker joins: token, certificate request, approval, certificate, Node, Ready; each step observed."""

from __future__ import annotations

import queue
import re
import secrets
import string
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from labkit import boxes
from labkit.cluster.objects import JOIN_GROUP, MANUAL_GROUP, path_of
from labkit.errors import ClusterError, ConfigError, LabkitError, WaitTimeout
from labkit.kube import Kube, Watch, dig
from labkit.kube.objects import condition, is_true

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
NOT_READY = "node.kubernetes.io/not-ready"
TOKEN_MINUTES = 15
STEPS = (
    "token created",
    "kubelet started",
    "CSR pending",
    "CSR approved",
    "certificate issued",
    "node registered",
    "node Ready",
)
CLUSTER_FOUND = "cluster found"
"""The step of a worker that finds its cluster by itself; a token handed in spares "token created"."""
_LOOK_S = 5.0
_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


@dataclass(frozen=True)
class JoinStep:
    """One step of a join.

    Attributes:
        name: one of STEPS, or CLUSTER_FOUND.
        text: what was seen, for people.
        t_seconds: since the join began.
        object: the API object as it was then, None for steps outside of the API.
    """

    name: str
    text: str
    t_seconds: float
    object: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.t_seconds:6.2f} s  {self.name}: {self.text}"


@dataclass(frozen=True)
class Token:
    """A bootstrap token: `id` is public, `secret` is not."""

    id: str
    secret: str

    def __str__(self) -> str:
        return f"{self.id}.{self.secret}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """Of "id.secret".

        Raises:
            ConfigError: it is not of that form; the message does not repeat it.
        """
        match = re.fullmatch(r"([a-z0-9]{6})\.([a-z0-9]{16})", text)
        if not match:
            raise ConfigError(
                "That is no bootstrap token.", "6 and 16 lower-case letters and digits with a point between."
            )
        return cls(*match.groups())

    @classmethod
    def random(cls) -> Token:
        """A new one."""
        letters = string.ascii_lowercase + string.digits
        make = [secrets.choice(letters) for _ in range(22)]
        return cls("".join(make[:6]), "".join(make[6:]))

    def manifest(self, node: str, *, approve: bool, seconds: float = 60 * TOKEN_MINUTES) -> dict[str, Any]:
        """The Secret that makes it valid, for so many seconds.

        Args:
            approve: False for one whose certificate request waits for a person.
        """
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"bootstrap-token-{self.id}", "namespace": "kube-system"},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "description": f"for {node} to join",
                "token-id": self.id,
                "token-secret": self.secret,
                "expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "auth-extra-groups": JOIN_GROUP if approve else MANUAL_GROUP,
            },
        }


class Join:
    """A join under way: iterate over its steps as they are seen, or `wait` for the end.

    The join goes on whether anybody looks or not; times are those at which the steps were seen.

    Args:
        start: starts the kubelet with a token, and says with what.
        token: the one to join with; None for a new one, made in the cluster.
        discover: finds the cluster and comes to trust it, with a token, as `kubeadm join` does, and says
            which it found; None where the worker knows it.
        approve: whether the controller manager approves; if not, the join waits for a person.
        limit_s: the join fails when it is not complete by then.
        finish: done when the node is registered, before the join counts as complete.
        ended: why the kubelet does not go on running, "" while it does; asked every few seconds.
        cluster: its name, for hints.
    """

    def __init__(
        self,
        kube: Kube,
        node: str,
        start: Callable[[Token], str],
        *,
        token: Token | None = None,
        discover: Callable[[Token], str] | None = None,
        approve: bool = True,
        limit_s: float = 60.0,
        finish: Callable[[], object] = lambda: None,
        ended: Callable[[], str] = lambda: "",
        cluster: str = "",
    ) -> None:
        self.node, self.approve = node, approve
        self._finish, self._ended, self._cluster = finish, ended, cluster
        self._kube, self._start = kube, start
        self._token, self._discover = token, discover
        first = [] if token else [STEPS[0]]
        self._steps = (*first, *([CLUSTER_FOUND] if discover else []), *STEPS[1:])
        self._begin = time.monotonic()
        self._deadline = self._begin + limit_s
        self._limit_s = limit_s
        self._seen: list[JoinStep] = []
        self._queue: queue.Queue[JoinStep | BaseException | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name=f"join-{node}", daemon=True)
        self._thread.start()

    def _repr_html_(self) -> str:
        """The steps seen so far, and those to come."""
        seen = list(self._seen)
        rows: list[tuple[str, str, str]] = [(f"{s.t_seconds:.2f} s", s.name, s.text) for s in seen]
        names = {step.name for step in seen}
        rows += [("…", name, "") for name in self._steps if name not in names]
        state = "ready" if len(seen) == len(self._steps) else "starting"
        return boxes.box(
            f"{self.node} joins: {len(seen)} of {len(self._steps)} steps",
            boxes.table(("time", "step", "seen"), rows),
            state=state,
        )

    def __iter__(self) -> Iterator[JoinStep]:
        return self

    def __next__(self) -> JoinStep:
        item = self._queue.get()
        if isinstance(item, JoinStep):
            return item
        self._queue.put(item)  # the end stays the end
        if isinstance(item, BaseException):
            raise item
        raise StopIteration

    def wait(self) -> list[JoinStep]:
        """All steps, when the node is Ready and takes pods.

        Raises:
            WaitTimeout: it is not within the limit; the hint says which step is missing.
        """
        for _ in self:
            pass
        return list(self._seen)

    def _run(self) -> None:
        try:
            self._join()
        except LabkitError as err:
            self._queue.put(err)
        except Exception as err:  # of this module's own making: tell whoever waits
            self._queue.put(ClusterError(f"The join of {self.node} failed: {type(err).__name__}: {err}"))
        else:
            self._queue.put(None)

    def _step(self, name: str, text: str, obj: dict[str, Any] | None = None) -> None:
        step = JoinStep(name, text, round(time.monotonic() - self._begin, 3), obj)
        self._seen.append(step)
        self._queue.put(step)

    def _join(self) -> None:
        token = self._token or self._new_token()
        if self._discover:
            self._step(CLUSTER_FOUND, self._discover(token))
        self._step("kubelet started", self._start(token))
        self._follow_request(f"system:bootstrap:{token.id}")
        self._follow_node()
        self._finish()

    def _new_token(self) -> Token:
        token = Token.random()
        minutes = max(TOKEN_MINUTES, int(self._limit_s // 60) + 2)
        secret = token.manifest(self.node, approve=self.approve, seconds=60 * minutes)
        path, _, name = path_of(secret).rpartition("/")
        self._kube.request("POST", path, body=secret)
        shown = {**secret, "stringData": {**secret["stringData"], "token-secret": "(hidden)"}}
        self._step("token created", f"Secret {name}, valid for {minutes} minutes", shown)
        return token

    def _follow_request(self, user: str) -> None:
        selector = f"spec.signerName={CLIENT_SIGNER}"
        for request in self._watch(_REQUESTS, selector):
            if dig(request, "spec.username") != user:
                continue
            name = request["metadata"]["name"]
            conditions = {c["type"]: c for c in dig(request, "status.conditions", [])}
            if self._next == "CSR pending":
                self._step("CSR pending", f"{name}, asked for by {user}", request)
            if "Denied" in conditions or "Failed" in conditions:
                wrong = conditions.get("Denied") or conditions["Failed"]
                how, why = wrong["type"].lower(), wrong.get("message", "")
                raise ClusterError(f"The certificate request {name} of {self.node} was {how}: {why}")
            if self._next == "CSR approved" and "Approved" in conditions:
                self._step("CSR approved", _who_approved(conditions["Approved"]), request)
            if self._next == "certificate issued" and dig(request, "status.certificate"):
                self._step("certificate issued", f"for system:node:{self.node}", request)
                return

    def _follow_node(self) -> None:
        for node in self._watch("/api/v1/nodes", f"metadata.name={self.node}"):
            if self._next == "node registered":
                version = dig(node, "status.nodeInfo.kubeletVersion", "")
                self._step("node registered", f"{self.node} {version}".strip(), node)
            if self._next == "node Ready" and is_true(node, "Ready"):
                self._step("node Ready", condition(node, "Ready").get("message", ""), node)
            # The node lifecycle controller lets pods in a moment after the node says that it is ready.
            if len(self._seen) == len(self._steps) and not kept_out(node):
                return

    def _watch(self, path: str, fields: str) -> Iterator[dict[str, Any]]:
        while (left := self._deadline - time.monotonic()) > 0:
            some = max(0.1, min(_LOOK_S, left))
            with Watch(self._kube.connection, path, {"fieldSelector": fields}, some, None) as watch:
                for event in watch:
                    if event.type != "DELETED":
                        yield event.object
            if why := self._ended():
                raise ClusterError(
                    f"The kubelet of {self.node} keeps ending, and the join with it: {why}", self._hint()
                )
        raise WaitTimeout(
            f"{self.node} has not joined within {self._limit_s:.0f} s: it waits for {self._next!r}.",
            self._hint(),
        )

    @property
    def _next(self) -> str:
        """What was not seen yet."""
        return (*self._steps, f"the removal of its taint {NOT_READY}")[len(self._seen)]

    def _hint(self) -> str:
        if self._next == "CSR approved" and not self.approve:
            return "`kubectl get csr`, then `kubectl certificate approve NAME`."
        where = f" -c {self._cluster}" if self._cluster else ""
        return f"`labkit logs node-{self.node}{where}` shows the kubelet's log."


def kept_out(node: dict[str, Any]) -> bool:
    """Whether pods are still kept from a node because it was not ready."""
    return any(taint["key"] == NOT_READY for taint in dig(node, "spec.taints", []))


def _who_approved(approved: dict[str, Any]) -> str:
    reason = approved.get("reason", "")
    known = {"AutoApproved": "the controller manager", "KubectlApprove": "a person"}
    return f"by {known.get(reason, reason)}: {approved.get('message', '')}"
