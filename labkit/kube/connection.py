"""Requests to the API server: discovery, typed errors, and bounded retries while it restarts."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.errors import KubeError
from labkit.kube.objects import Object

_RETRY_EVERY_S = 0.2
_COMMON = {
    "v1": "Pod Service Namespace Node ConfigMap Secret Event Endpoints PersistentVolume "
    "PersistentVolumeClaim ServiceAccount ReplicationController LimitRange ResourceQuota",
    "apps/v1": "Deployment ReplicaSet StatefulSet DaemonSet ControllerRevision",
    "batch/v1": "Job CronJob",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "discovery.k8s.io/v1": "EndpointSlice",
    "networking.k8s.io/v1": "Ingress NetworkPolicy",
    "policy/v1": "PodDisruptionBudget",
    "coordination.k8s.io/v1": "Lease",
    "metrics.k8s.io/v1beta1": "PodMetrics NodeMetrics",
    "certificates.k8s.io/v1": "CertificateSigningRequest",
    "rbac.authorization.k8s.io/v1": "Role RoleBinding ClusterRole ClusterRoleBinding",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition",
}
_VERSION = {kind: version for version, kinds in _COMMON.items() for kind in kinds.split()}
_SHORT = {
    "HPA": "HorizontalPodAutoscaler",
    "PVC": "PersistentVolumeClaim",
    "CSR": "CertificateSigningRequest",
}


class NotFound(KubeError):
    """There is no such object."""


class Conflict(KubeError):
    """The object exists already, or another writer changed or owns it."""


class Forbidden(KubeError):
    """The credentials are not accepted, or do not allow this."""


class Unreachable(KubeError):
    """The API server did not answer within the time that was allowed for."""


_BY_CODE = {401: Forbidden, 403: Forbidden, 404: NotFound, 409: Conflict}


class Connection:
    """One API server. Safe to use from several threads.

    Args:
        patience_s: how long a request is repeated while connections are refused or the server says 503.
    """

    def __init__(self, kubeconfig: Path | None, context: str | None, patience_s: float) -> None:
        from kubernetes import client, config

        self.patience_s = patience_s
        self.kubeconfig = kubeconfig
        self.context = context
        settings = client.Configuration()
        try:
            file = str(kubeconfig) if kubeconfig else None
            load: Any = config.load_kube_config  # not typed
            load(file, context, client_configuration=settings, persist_config=False)
        except (config.ConfigException, OSError) as err:
            raise KubeError(
                f"The kubeconfig {kubeconfig or '(default)'} cannot be used: {err}",
                "`labkit kubeconfig` prints the one of a running cluster.",
            ) from err
        settings.retries = False
        self.settings = settings
        self.api = client.ApiClient(settings)
        self._dynamic: Any = None
        self._lock = threading.Lock()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, Any] | None = None,
        content_type: str | None = None,
        timeout_s: float = 30.0,
    ) -> Any:
        """The answer's JSON (text where it is none).

        Raises:
            NotFound, Conflict, Forbidden, KubeError: the server's refusal, in its words.
            Unreachable: no answer for `patience_s`.
        """
        response = self.stream(method, path, body, query, content_type, timeout_s)
        text = response.data.decode()
        try:
            return json.loads(text)
        except ValueError:
            return text

    def stream(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, Any] | None = None,
        content_type: str | None = None,
        timeout_s: float = 30.0,
    ) -> Any:
        """Like `call`, but the open response (urllib3.HTTPResponse), unread."""
        pairs = [(name, str(value)) for name, value in (query or {}).items() if value not in (None, "")]
        return self._patiently(lambda: self._once(method, path, body, pairs, content_type, timeout_s))

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return attempt()
            except _Busy as busy:
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"{self.settings.host} has not answered for {self.patience_s:g} s: {busy}.",
                        "`labkit status` shows its state, `labkit logs kube-apiserver` its log.",
                    ) from busy.__cause__
                time.sleep(_RETRY_EVERY_S)

    def _once(
        self,
        method: str,
        path: str,
        body: Any,
        pairs: list[tuple[str, str]],
        content_type: str | None,
        timeout_s: float,
    ) -> Any:
        import urllib3
        from kubernetes.client import ApiException

        headers = {"Accept": "application/json, */*", "Content-Type": content_type or "application/json"}
        request = self.api.param_serialize(
            method, path, query_params=pairs, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            response = self.api.call_api(*request, _request_timeout=(5.0, timeout_s)).response
            if response.status < 400:
                return response
            code, text = response.status, response.data.decode(errors="replace")
        except ApiException as err:
            code, text = err.status or 0, str(err.body or err.reason or err)
        except urllib3.exceptions.SSLError as err:
            raise Forbidden(
                f"TLS with {self.settings.host} failed: {err}", "Is it this cluster's kubeconfig?"
            ) from err
        except (urllib3.exceptions.HTTPError, OSError) as err:
            if method == "POST" and not _refused(err):
                raise Unreachable(
                    f"The connection broke during {method} {path}: {err}", "Look, then repeat."
                ) from err
            raise _Busy(f"{type(err).__name__} on {method} {path}") from err
        if code in (429, 502, 503, 504) or (code == 500 and "etcdserver" in text):
            raise _Busy(_message(text))
        if code == 403 and not self._ready():
            raise _Busy("it has just started and does not know its roles yet")
        raise _BY_CODE.get(code, KubeError)(_message(text), _hint(code, text))

    def _ready(self) -> bool:
        """Whether the server has started. Until it knows its roles it forbids everything to everybody."""
        import urllib3
        from kubernetes.client import ApiException

        request = self.api.param_serialize("GET", "/readyz", auth_settings=["BearerToken"])
        try:
            return bool(self.api.call_api(*request, _request_timeout=(5.0, 5.0)).response.status == 200)
        except (ApiException, urllib3.exceptions.HTTPError, OSError):
            return False

    @property
    def dynamic(self) -> Any:
        """The official dynamic client, for discovery; without its cache file in /tmp, open to others."""
        import kubernetes.dynamic

        with self._lock:
            if self._dynamic is None:
                self.call("GET", "/version")  # waits for a server that is starting
                make: Any = kubernetes.dynamic.DynamicClient  # not typed
                self._dynamic = make(self.api, cache_file=os.devnull + "/none")
            return self._dynamic

    def resource(self, kind: str, api_version: str = "") -> Any:
        """The API resource of a kind, `group/version/Kind`, plural or short name.

        Raises:
            NotFound: the server knows no such kind.
        """
        version, _, kind = kind.rpartition("/")
        kind = _SHORT.get(kind.upper(), kind)
        match = next((name for name in _VERSION if kind.lower() in (name.lower(), name.lower() + "s")), kind)
        version = api_version or version or _VERSION.get(match, "")
        found = self._patiently(lambda: self._search(match, version))
        if not found:
            raise NotFound(
                f"The API server knows no kind {kind!r}{f' in {version}' if version else ''}.",
                "`kubectl api-resources` lists them. Is the add-on that brings it installed?",
            )
        return min(found, key=lambda each: (not each.preferred, "beta" in each.api_version, bool(each.group)))

    def _search(self, kind: str, version: str) -> list[Any]:
        """Resources whose kind, plural, singular or short name is `kind`."""
        import urllib3
        from kubernetes.dynamic.exceptions import ResourceNotFoundError

        try:
            discovery = self.dynamic.resources
            with self._lock:
                exact = discovery.search(kind=kind, **({"api_version": version} if version else {}))
                found = [each for each in exact if each.kind == kind]
                every = (each for group in discovery for each in group if hasattr(each, "singular_name"))
                return found or [each for each in every if _named(each, kind.lower(), version)]
        except ResourceNotFoundError:  # the group is listed, its kinds are not served yet
            return []
        except (urllib3.exceptions.HTTPError, OSError) as err:
            raise _Busy(f"{type(err).__name__} in discovery") from err

    def path(self, kind: str, name: str | None, namespace: str | None, api_version: str = "") -> str:
        resource = self.resource(kind, api_version)
        inside = namespace if resource.namespaced else None
        return str(resource.path(name=name, namespace=inside)) if name else _collection(resource, inside)


class _Busy(Exception):
    """Not now: try again."""


def _collection(resource: Any, namespace: str | None) -> str:
    return str(resource.path(namespace=namespace) if namespace else resource.urls["base"])


def _named(resource: Any, name: str, version: str) -> bool:
    names = (resource.kind.lower(), resource.name, resource.singular_name, *(resource.short_names or ()))
    return name in names and version in ("", resource.group_version)


def _refused(err: BaseException) -> bool:
    import urllib3

    return isinstance(err, urllib3.exceptions.NewConnectionError) or isinstance(
        getattr(err, "reason", None), urllib3.exceptions.NewConnectionError
    )


def _message(text: str) -> str:
    try:
        status: Object = json.loads(text)
        return str(status.get("message") or text)
    except (ValueError, AttributeError):
        return text.strip()[:500]


def _hint(code: int, text: str) -> str:
    if "admission webhook" in text:
        return ""  # the object was looked at; what the webhook says is the hint
    return {
        401: "The credentials are not those of this cluster: `labkit kubeconfig` prints the right ones.",
        403: "These credentials may not do this; `kubectl auth can-i --list` shows what they may.",
        409: "Read the object again and repeat, or choose another name.",
    }.get(code, "")
