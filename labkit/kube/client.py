"""Kube: what labs do with the API, each in one call."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.errors import KubeError, WaitTimeout
from labkit.kube.conditions import hopeless, parse, rollout_lacks
from labkit.kube.connection import Connection, NotFound
from labkit.kube.manifests import Document, Source, load, run_kubectl
from labkit.kube.objects import Object, Objects, dig, title
from labkit.kube.reasons import explain
from labkit.kube.streams import ExecResult, execute, follow_logs
from labkit.kube.watching import Watch

FIELD_MANAGER = "labkit"
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_POLL_S = 0.2
_CRD_WAIT_S = 10.0


class Kube:
    """A cluster's API.

    Args:
        kubeconfig: a file; None for $KUBECONFIG or ~/.kube/config.
        context: a context of it; None for its current one.
        namespace: where a call without `namespace=` looks.
        kubectl: used for kustomize and `rollout undo`; None for the one of this Python or on PATH.
        patience_s: how long requests are repeated while the API server restarts.
    """

    def __init__(
        self,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
        *,
        namespace: str = "default",
        kubectl: str | Path | None = None,
        patience_s: float = 15.0,
    ) -> None:
        self.connection = Connection(Path(kubeconfig) if kubeconfig else None, context, patience_s)
        self.namespace = namespace
        beside = Path(sys.executable).with_name("kubectl")
        found = kubectl or (beside if beside.exists() else shutil.which("kubectl"))
        self.kubectl = Path(found) if found else None

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Any request of the API, such as `request("GET", "/readyz")`; see `Connection.call`."""
        return self.connection.call(method, path, **options)

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Object:
        """One object. Raises NotFound, KubeError."""
        obj: Object = self.request("GET", self._path(kind, name, namespace))
        return obj

    def find(self, kind: str, name: str, *, namespace: str | None = None) -> Object | None:
        """One object, or None where there is none."""
        try:
            return self.get(kind, name, namespace=namespace)
        except NotFound:
            return None

    def list(
        self,
        kind: str,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        everywhere: bool = False,
    ) -> Objects:
        """Objects of a kind; `labels` and `fields` are selectors as kubectl takes them: `app=web`."""
        path = self._path(kind, None, "" if everywhere else namespace)
        answer = self.request("GET", path, query={"labelSelector": labels, "fieldSelector": fields})
        item_kind = str(answer.get("kind", "")).removesuffix("List")
        return [
            {"kind": item_kind, "apiVersion": answer["apiVersion"], **obj}
            for obj in answer.get("items") or []
        ]

    def create(self, obj: Object, *, namespace: str | None = None) -> Object:
        """Create an object. Raises Conflict if it exists, KubeError."""
        target = namespace or dig(obj, "metadata.namespace")
        path = self.connection.path(obj["kind"], None, target or self.namespace, obj["apiVersion"])
        made: Object = self.request("POST", path, body=obj, query={"fieldValidation": "Strict"})
        return made

    def apply(self, source: Source, *, namespace: str | None = None) -> Objects:
        """Server-side apply, with strict validation: a field that does not exist is an error.

        Args:
            source: a dict, dicts, YAML text, a file, a directory of manifests or a kustomization.
            namespace: for objects that name none.

        Returns:
            The objects as the server has them now.

        Raises:
            KubeError: names the file, the line where it is known, the document, the object and the field.
        """
        applied: Objects = []
        documents = load(source, self.kubectl)
        wait_s = (
            _CRD_WAIT_S if any(each.obj["kind"] == "CustomResourceDefinition" for each in documents) else 0.0
        )
        for document in documents:
            try:
                path = self._document_path(document.obj, namespace, wait_s)
                query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
                applied.append(
                    self.request(
                        "PATCH", path, body=document.obj, query=query, content_type=_APPLY, timeout_s=60
                    )
                )
            except KubeError as err:
                error = document.error(err.message, err.hint)
                raise type(err)(error.message, error.hint) from err
        return applied

    def patch(
        self, kind: str, name: str, patch: Object, *, namespace: str | None = None, subresource: str = ""
    ) -> Object:
        """A JSON merge patch: values replace, null removes."""
        path = self._path(kind, name, namespace) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        patched: Object = self.request("PATCH", path, body=patch, content_type=_MERGE, query=query)
        return patched

    def delete(
        self,
        target: Source,
        name: str | None = None,
        *,
        namespace: str | None = None,
        grace_s: int | None = None,
    ) -> None:
        """Delete `Kind, name`, or every object of a manifest, last one first; what is gone is no error.

        The call returns at once; `wait(kind, name, "deleted")` waits for the end.
        """
        query = {"propagationPolicy": "Background", "gracePeriodSeconds": grace_s}
        if name is not None:
            paths = [self._path(str(target), name, namespace)]
        else:
            documents = reversed(load(target, self.kubectl))
            paths = [path for each in documents if (path := self._existing_path(each, namespace))]
        for path in paths:
            try:
                self.request("DELETE", path, query=query)
            except NotFound:
                continue

    def wait(
        self,
        kind: str,
        name: str | None = None,
        until: str | Callable[[Object], Any] = "Ready",
        *,
        namespace: str | None = None,
        labels: str = "",
        timeout_s: float = 120.0,
    ) -> Object | None:
        """Wait until an object, or all of a label selector (at least one), are as asked.

        Args:
            until: a condition type ("Available", "Ready=False"), "rolled out", "exists", "deleted", an
                expression ("status.readyReplicas >= 2"), or a function of the object.

        Returns:
            The object (the first of several), None for "deleted".

        Raises:
            WaitTimeout: the hint says why, from status, conditions, logs and events. Also before the
                deadline if it cannot come true any more ("Complete" of a failed Job, a rollout over its own
                deadline).

        A status that is older than the object's last change counts neither as success nor as failure.
        """
        test, wording = parse(until)
        begin = time.monotonic()
        while True:
            found = self._selected(kind, name, namespace, labels)
            late = [obj for obj in found or (None,) if not test(obj)]
            if not late:
                return found[0] if found else None
            in_vain = next(filter(None, (hopeless(until, obj) for obj in late)), "")
            if in_vain or time.monotonic() - begin > timeout_s:
                what = f"{kind} {name or labels or 'of any name'}"
                raise self._not_in_time(what, wording, late[0], in_vain or f"after {timeout_s:g} s")
            time.sleep(_POLL_S)

    def watch(
        self,
        kind: str,
        name: str | None = None,
        *,
        namespace: str | None = None,
        labels: str = "",
        everywhere: bool = False,
        timeout_s: float = 60.0,
        count: int | None = None,
        renew_s: float = 10.0,
    ) -> Watch:
        """Changes as an iterator of `Event(type, object, at)`, bounded by time and number; see `Watch`."""
        path = self._path(kind, None, "" if everywhere else namespace)
        query = {"labelSelector": labels, "fieldSelector": f"metadata.name={name}" if name else ""}
        return Watch(self.connection, path, query, timeout_s, count, renew_s)

    def logs(
        self,
        pod: str,
        *,
        namespace: str | None = None,
        container: str | None = None,
        tail: int | None = None,
        previous: bool = False,
    ) -> str:
        """A container's log so far."""
        query = {"container": container, "tailLines": tail, "previous": "true" if previous else None}
        return self.connection.text("GET", self._logs(pod, namespace), query=query)

    def follow_logs(
        self, pod: str, *, namespace: str | None = None, container: str | None = None, timeout_s: float = 60.0
    ) -> Iterator[str]:
        """Lines of a log as they are written, for at most `timeout_s`."""
        return follow_logs(self.connection, self._logs(pod, namespace), {"container": container}, timeout_s)

    def exec(
        self,
        pod: str,
        argv: Sequence[str],
        *,
        namespace: str | None = None,
        container: str | None = None,
        check: bool = True,
        timeout_s: float = 30.0,
    ) -> ExecResult:
        """Run a command in a container. Raises KubeError if it fails and `check` is set."""
        result = execute(self.connection, pod, namespace or self.namespace, argv, container, timeout_s)
        if check and result.exit_code != 0:
            output = (result.stderr or result.stdout).strip()[-500:]
            raise KubeError(
                f"{' '.join(map(str, argv))} in pod {pod} ended with exit code {result.exit_code}: {output}"
            )
        return result

    def events(self, obj: Object | None = None, *, namespace: str | None = None) -> Objects:
        """Events about an object, or of a namespace, oldest first."""
        if obj is not None:
            namespace = dig(obj, "metadata.namespace") or "default"
        uid = dig(obj, "metadata.uid", "") if obj and obj.get("kind") != "Node" else ""
        fields = f"involvedObject.uid={uid}" if uid else ""
        if obj is not None and not uid:
            fields = f"involvedObject.kind={obj['kind']},involvedObject.name={obj['metadata']['name']}"
        found = self.list("v1/Event", namespace=namespace, fields=fields)
        return sorted(found, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    def scale(self, kind: str, name: str, replicas: int, *, namespace: str | None = None) -> None:
        """Set the number of replicas."""
        self.patch(kind, name, {"spec": {"replicas": replicas}}, namespace=namespace, subresource="scale")

    def restart(self, kind: str, name: str, *, namespace: str | None = None) -> None:
        """Replace the pods of a workload one after the other, as `kubectl rollout restart` does."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        annotation = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}
        self.patch(kind, name, {"spec": {"template": annotation}}, namespace=namespace)

    def undo(self, kind: str, name: str, *, namespace: str | None = None, revision: int = 0) -> str:
        """Go back to the previous revision of a workload, or to `revision`; returns what kubectl says."""
        connection = self.connection
        where = ["--namespace", namespace or self.namespace]
        where += ["--kubeconfig", str(connection.kubeconfig)] if connection.kubeconfig else []
        where += ["--context", connection.context] if connection.context else []
        run = run_kubectl(
            self.kubectl, ["rollout", "undo", f"{kind}/{name}".lower(), f"--to-revision={revision}", *where]
        )
        if run.returncode != 0:
            raise KubeError(f"kubectl rollout undo failed: {run.stderr.strip()}")
        return run.stdout.strip()

    def rollout_status(self, kind: str, name: str, *, namespace: str | None = None) -> str:
        """What a rollout still lacks; "" when it is complete."""
        return rollout_lacks(self.get(kind, name, namespace=namespace))

    def explain(self, obj: Object) -> str:
        """What keeps an object from being ready, for people; "" if nothing is seen."""
        return explain(self, obj)

    def _path(self, kind: str, name: str | None, namespace: str | None) -> str:
        return self.connection.path(kind, name, self.namespace if namespace is None else namespace)

    def _logs(self, pod: str, namespace: str | None) -> str:
        return f"{self._path('Pod', pod, namespace)}/log"

    def _document_path(self, obj: Object, namespace: str | None, wait_s: float) -> str:
        target = dig(obj, "metadata.namespace") or namespace or self.namespace
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return self.connection.path(obj["kind"], obj["metadata"]["name"], target, obj["apiVersion"])
            except NotFound:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def _existing_path(self, document: Document, namespace: str | None) -> str:
        try:
            return self._document_path(document.obj, namespace, 0)
        except NotFound:
            return ""  # no such kind any more, hence no such object

    def _selected(self, kind: str, name: str | None, namespace: str | None, labels: str) -> Objects:
        if name is None:
            return self.list(kind, namespace=namespace, labels=labels)
        obj = self.find(kind, name, namespace=namespace)
        return [obj] if obj is not None else []

    def _not_in_time(self, what: str, wording: str, obj: Object | None, why: str) -> WaitTimeout:
        if obj is None:
            return WaitTimeout(
                f"{what} is not {wording} {why}: it does not exist.", "Check its name and namespace."
            )
        state = rollout_lacks(obj) if wording == "rolled out" else ""
        try:
            reason = explain(self, obj)
        except KubeError as err:
            reason = f"the reason could not be read: {err.message}"
        hint = (
            reason
            or f"`kubectl describe {str(obj['kind']).lower()} {dig(obj, 'metadata.name')}` shows its events."
        )
        return WaitTimeout(f"{title(obj)} is not {wording} {why}{': ' if state else '.'}{state}", hint)
