"""Requests to the API server: discovery, typed errors, and bounded retries while it restarts."""

from __future__ import annotations

import json
import os
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.errors import KubeError
from labkit.kube.direct import is_own
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


class TooManyRequests(KubeError):
    """The API server asks for a pause: it limits requests, or a disruption budget allows none now."""


_BY_CODE = {401: Forbidden, 403: Forbidden, 404: NotFound, 409: Conflict, 429: TooManyRequests}


class Connection:
    """One API server. Safe to use from several threads.

    Args:
        patience_s: how long a request is repeated while connections break or the server says 429 or 503. One
            that could take effect twice (POST) is repeated only when it was certainly not carried out.
    """

    def __init__(self, kubeconfig: Path | None, context: str | None, patience_s: float) -> None:
        from kubernetes import client, config
        from yaml import YAMLError

        damaged = (OSError, YAMLError, ValueError, LookupError, TypeError, AttributeError)
        self.patience_s = patience_s
        self.kubeconfig = kubeconfig
        self.context = context
        settings = client.Configuration()
        try:
            file = str(kubeconfig) if kubeconfig else None
            load: Any = config.load_kube_config  # not typed
            load(file, context, client_configuration=settings, persist_config=False)
        except (config.ConfigException, *damaged) as err:
            raise KubeError(
                f"The kubeconfig {kubeconfig or '(default)'} cannot be used: {err}",
                "`labkit kubeconfig` prints the one of a running cluster.",
            ) from err
        settings.retries = False
        if is_own(settings.host):
            # exec's library looks for a proxy in the environment, unless it has one that it must not use.
            settings.proxy, settings.no_proxy = settings.proxy or settings.host, "*"
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
        return self._ask(_content, method, path, body, query, content_type, timeout_s)

    def text(self, method: str, path: str, *, query: dict[str, Any] | None = None) -> str:
        """Like `call`, but the answer's text as it is."""
        return str(self._ask(_text, method, path, query=query))

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
        return self._ask(lambda response: response, method, path, body, query, content_type, timeout_s)

    def _ask(
        self,
        read: Callable[[Any], Any],
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, Any] | None = None,
        content_type: str | None = None,
        timeout_s: float = 30.0,
    ) -> Any:
        pairs = [(name, str(value)) for name, value in (query or {}).items() if value not in (None, "")]
        headers = {"Accept": "application/json, */*", "Content-Type": content_type or "application/json"}
        request = self.api.param_serialize(
            method, path, query_params=pairs, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        repeatable = method != "POST" and content_type != "application/json-patch+json"
        return self._patiently(lambda: self._once(request, read, timeout_s, f"{method} {path}", repeatable))

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return attempt()
            except _Again as again:
                left_s = deadline - time.monotonic()
                if left_s < again.after_s or left_s < 0:
                    raise again.error or Unreachable(
                        f"{self.settings.host} has not answered for {self.patience_s:g} s: {again}.",
                        "`labkit status` shows its state, `labkit logs kube-apiserver` its log.",
                    ) from again.__cause__
                time.sleep(max(_RETRY_EVERY_S, again.after_s))

    def _once(
        self, request: Any, read: Callable[[Any], Any], timeout_s: float, what: str, repeatable: bool
    ) -> Any:
        """One attempt, until the answer has been read. Raises _Again where another one may be made."""
        import urllib3
        from kubernetes.client import ApiException

        response: Any = None
        send: Any = self.api.call_api
        try:
            response = send(*request, _request_timeout=(5.0, timeout_s)).response
            if response.status < 400:
                return read(response)
            code, text = response.status, _text(response)
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as err:
            raise self._broken(err, what, repeatable, answered=response is not None) from err
        raise self._refusal(code, text, response.headers, what, repeatable)

    def _broken(self, err: Exception, what: str, repeatable: bool, *, answered: bool) -> Exception:
        """What a broken connection means: _Again, or the error for the caller."""
        import urllib3
        from kubernetes.client import ApiException

        cause: Any = err.__context__ if isinstance(err, ApiException) else err  # the client wraps TLS errors
        tls = isinstance(cause, urllib3.exceptions.SSLError)
        if isinstance(err, ApiException) and not tls:
            return KubeError(f"{what} cannot be sent: {err.reason}")
        if tls and not answered and not _hung_up(cause):
            return Forbidden(
                f"TLS with {self.settings.host} failed: {cause}", "Is it this cluster's kubeconfig?"
            )
        if repeatable or _refused(cause):
            return _Again(f"{type(cause).__name__} on {what}")
        return Unreachable(
            f"The connection broke during {what}, which may have been carried out: {cause}",
            "Look, then repeat.",
        )

    def _refusal(self, code: int, text: str, headers: Any, what: str, repeatable: bool) -> Exception:
        """What an answer of 400 and above means: _Again, or the error for the caller."""
        words, after_s = _message(text), _retry_after(headers)
        error = refusal(code, text)
        if code == 429:
            return _Again(words, after_s, error)
        if code in (502, 503, 504) or (code == 500 and "etcdserver" in text):
            if repeatable or (
                code == 503 and after_s
            ):  # refused before anything was done, as client-go has it
                return _Again(words, after_s)
            return Unreachable(
                f"The answer to {what}, which may have been carried out, was {code}: {words}",
                "Look, then repeat.",
            )
        if code == 403 and not self._ready():
            return _Again("it has just started and does not know its roles yet")
        return error

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
        where = {"api_version": version} if version else {}
        found = self._patiently(lambda: self._search(match, version, **where))
        if not found:
            raise NotFound(
                f"The API server knows no kind {kind!r}{f' in {version}' if version else ''}.",
                "`kubectl api-resources` lists them. Is the add-on that brings it installed?",
            )
        return min(found, key=lambda each: (not each.preferred, "beta" in each.api_version, bool(each.group)))

    def mapped(self, kind: str, api_version: str) -> Any:
        """The resource of a kind in the group of `api_version`, in the version that the server prefers.

        Controllers look kinds up like this (RESTMapper): which version a reference names is all the same.

        Raises:
            NotFound: the group has no such kind.
        """
        group = api_version.rpartition("/")[0]
        where = {"group": group} if group else {"prefix": "api"}
        found = self._patiently(lambda: self._search(kind, "", **where))
        exact = [each for each in found if each.kind == kind and (each.group or "") == group]
        if not exact:
            raise NotFound(
                f"The API server knows no kind {kind!r} in {group or 'the core group'}.",
                "`kubectl api-resources` lists them. Is apiVersion right?",
            )
        return min(exact, key=lambda each: (not each.preferred, "beta" in each.api_version))

    def _search(self, kind: str, version: str, **where: str) -> list[Any]:
        """Resources whose kind, plural, singular or short name is `kind`."""
        import urllib3
        from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError

        try:
            discovery = self.dynamic.resources
            with self._lock:
                exact = discovery.search(kind=kind, **where)
                found = [each for each in exact if each.kind == kind]
                every = (each for group in discovery for each in group if hasattr(each, "singular_name"))
                return found or [each for each in every if _named(each, kind.lower(), version)]
        except ResourceNotFoundError:  # the group is listed, its kinds are not served yet
            return []
        except DynamicApiError as err:
            text = err.body.decode(errors="replace") if isinstance(err.body, bytes) else str(err.body)
            raise self._refusal(err.status or 0, text, err.headers or {}, "discovery", True) from err
        except (urllib3.exceptions.HTTPError, OSError, ValueError, LookupError) as err:  # broken off, or half
            raise _Again(f"{type(err).__name__} in discovery") from err

    def path(self, kind: str, name: str | None, namespace: str | None, api_version: str = "") -> str:
        resource = self.resource(kind, api_version)
        inside = namespace if resource.namespaced else None
        return str(resource.path(name=name, namespace=inside)) if name else _collection(resource, inside)


class _Again(Exception):
    """Not now: try again, after so many seconds if the server names them; `error` is for when time is up."""

    def __init__(self, reason: str, after_s: float = 0.0, error: KubeError | None = None) -> None:
        super().__init__(reason)
        self.after_s, self.error = after_s, error


class _Torn(OSError):
    """An answer ended before its end."""


def _text(response: Any) -> str:
    return str(response.data.decode(errors="replace"))


def _content(response: Any) -> Any:
    """The answer's JSON, its text where it is none; JSON that breaks off is an error of the connection."""
    text = _text(response)
    try:
        return json.loads(text)
    except ValueError:
        if text and "json" in response.headers.get("Content-Type", ""):
            raise _Torn("the answer broke off") from None
        return text


def _retry_after(headers: Any) -> float:
    """Seconds of a Retry-After header, 0 without one."""
    import urllib3

    value = headers.get("Retry-After")
    try:
        return float(urllib3.Retry().parse_retry_after(value)) if value else 0.0
    except urllib3.exceptions.InvalidHeader:
        return 0.0


def _collection(resource: Any, namespace: str | None) -> str:
    return str(resource.path(namespace=namespace) if namespace else resource.urls["base"])


def _named(resource: Any, name: str, version: str) -> bool:
    names = (resource.kind.lower(), resource.name, resource.singular_name, *(resource.short_names or ()))
    return name in names and version in ("", resource.group_version)


def _refused(err: BaseException) -> bool:
    """Whether no connection came about, so that the server cannot have seen the request."""
    import urllib3

    before = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return isinstance(err, before) or isinstance(getattr(err, "reason", None), before)


def _hung_up(err: BaseException) -> bool:
    """Whether TLS failed because the other side went away, as a server does that is being restarted."""
    return bool(err.args) and isinstance(err.args[0], ssl.SSLEOFError | ssl.SSLZeroReturnError)


def refusal(code: int, text: str) -> KubeError:
    """The typed error for an answer's status and body."""
    return _BY_CODE.get(code, KubeError)(_message(text), _hint(code, text))


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
        429: "Wait a moment, then repeat.",
    }.get(code, "")
