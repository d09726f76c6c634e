"""The tunnel as an add-on: configuration, credentials and connector in the cluster, and an edge outside."""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import yaml

from labkit.addons.base import Addon, AddonStatus
from labkit.addons.tunnel import cloudflared, origin
from labkit.addons.tunnel.credentials import Credentials
from labkit.addons.tunnel.ingress import IngressError, validate_ingress
from labkit.addons.tunnel.mode import Choice, choose
from labkit.addons.tunnel.rehearsal import Edge, build_connector, edge_address
from labkit.cluster import Cluster
from labkit.cluster.phases import Listener, phase
from labkit.errors import ClusterError, ConfigError, WaitTimeout
from labkit.kube import NotFound, Object, dig
from labkit.kube.conditions import rollout_lacks

NAMESPACE, NAME = "tunnel", "connector"
LABELS = f"app.kubernetes.io/name={NAME}"
_CREDENTIALS = "/etc/cloudflared/creds/credentials.json"
_PUBLIC = re.compile(r"https://[a-z0-9-]+\.trycloudflare\.com")
_METRICS = 2000
_OWN = ("tunnel", "credentials-file", "metrics", "no-autoupdate", "autoupdate-freq")
"""Keys of config.yml that the connector's pod decides."""
_PARTS = ("ingress", "originRequest")
_POLL_S, _GONE_S = 0.3, 60.0
_WORDS = 3
_EVENTS = {
    "Registered tunnel connection": "registered",
    "Connection terminated": "lost",
    "Unable to establish connection": "failed",
    "Unauthorized": "refused",
}


class Tunnel(Addon):
    """A Cloudflare Tunnel into a cluster, or its rehearsal.

    Args:
        manifests: folder with config.yml (the ingress rules) and connector.yaml.
        mode, token: see `labkit.addons.tunnel.choose`.

    Attributes:
        choice: which tunnel it is, and why.
        rules: the ingress rules of config.yml.
        edge: of a rehearsal; None of a real tunnel.

    Raises:
        IngressError: cloudflared would not accept the rules.
        ConfigError: config.yml cannot be read, or mode or token are wrong.
    """

    name = "tunnel"
    marks = (("Namespace", NAMESPACE),)

    def __init__(
        self, cluster: Cluster, manifests: str | Path, *, mode: str = "auto", token: str | None = None
    ) -> None:
        super().__init__(cluster)
        self.manifests = Path(manifests)
        self.settings = read_settings(self.manifests / "config.yml")
        self.rules: list[dict[str, Any]] = list(self.settings["ingress"])
        self.choice: Choice = choose(mode, token)
        self.credentials = self.choice.credentials or Credentials.generate()
        self.edge: Edge | None = None
        self._check_settings()
        if self.choice.mode == "rehearsal":
            self.edge = Edge(edge_address(cluster), self.credentials)

    def _check_settings(self) -> None:
        """Refuse by name, before anything starts, what this kind of tunnel cannot do with config.yml."""
        named = self.settings.get("tunnel")
        if self.choice.mode == "named" and _is_id(named) and named != self.credentials.tunnel_id:
            raise ConfigError(
                f"config.yml is of tunnel {named}, the token of tunnel {self.credentials.tunnel_id}.",
                "Take the token of the same tunnel, or leave `tunnel` out of config.yml.",
            )
        if self.choice.mode == "rehearsal":
            origin.refuse_unrehearsed(self.settings, self.rules)
        if self.choice.mode == "quick":
            self._quick_flags()

    def config(self) -> str:
        """The config.yml that the connector gets: the file as it is, in cloudflared's own format.

        Only what the pod decides is set here: the tunnel's ID and credentials, where probes ask, no updates.
        """
        head: dict[str, Any] = {"metrics": f"0.0.0.0:{_METRICS}", "no-autoupdate": True}
        if self.choice.mode != "quick":
            head = {"tunnel": self.credentials.tunnel_id, "credentials-file": _CREDENTIALS, **head}
        rest = {key: value for key, value in self.settings.items() if key not in (*head, *_OWN)}
        return yaml.safe_dump({**head, **rest}, sort_keys=False)

    def _quick_flags(self) -> list[str]:
        """config.yml as flags: a quick tunnel has a made-up hostname, which no rule could name.

        It leads to the first HTTP Service, and cloudflared reads no rules for it.
        """
        rule = next((rule for rule in self.rules if _is_http(rule)), None)
        if rule is None:
            raise ConfigError(
                "A quick tunnel leads to one Service, and config.yml has none.",
                "Give a rule with service: http://….",
            )
        plain = {key: value for key, value in self.settings.items() if key not in (*_OWN, *_PARTS)}
        nested = [key for key, value in plain.items() if isinstance(value, dict | list)]
        if nested:
            raise ConfigError(f"A quick tunnel does not do `{nested[0]}`.", "Use a named tunnel for it.")
        made = ["--no-autoupdate", "--metrics", f"0.0.0.0:{_METRICS}"]
        made += [f"--{key}={_scalar(value)}" for key, value in plain.items()]
        return [*made, *origin.flags(origin.merged(self.settings, rule)), "--url", rule["service"]]

    def objects(self, image: str) -> list[Object]:
        """What is applied: the manifest, with this tunnel's image, settings, ConfigMap and Secret."""
        found = [obj for obj in yaml.safe_load_all((self.manifests / "connector.yaml").read_text()) if obj]
        config, credentials = self.config(), self.credentials.file()
        for obj in found:
            if obj["kind"] == "Deployment":
                container = obj["spec"]["template"]["spec"]["containers"][0]
                container["image"] = image
                if self.choice.mode == "quick":
                    obj["spec"]["replicas"] = 1  # each would be a tunnel of its own
                self._adapt(container)
                told = json.dumps([config, credentials, container], sort_keys=True)
                digest = hashlib.sha256(told.encode()).hexdigest()[:16]
                obj["spec"]["template"]["metadata"]["annotations"] = {"labkit/settings": digest}
        return [
            *(obj for obj in found if obj["kind"] == "Namespace"),
            _data("ConfigMap", "tunnel-config", {"data": {"config.yml": config}}),
            _data("Secret", "tunnel-credentials", {"stringData": {"credentials.json": credentials}}),
            *(obj for obj in found if obj["kind"] != "Namespace"),
        ]

    def _adapt(self, container: dict[str, Any]) -> None:
        if self.edge is not None:
            variables = {"TUNNEL_EDGE": self.edge.door, "TUNNEL_EDGE_KEY": self.edge.key}
            container["env"] = [{"name": name, "value": value} for name, value in variables.items()]
        elif self.choice.mode == "quick":
            container["args"] = ["tunnel", *self._quick_flags()]

    def _install(self, listener: Listener) -> None:
        with phase("tunnel", listener, str(self.choice)) as step:
            if self.edge is not None:
                image = build_connector(self.cluster, step.tell)
                self.edge.start()
            else:
                image = cloudflared.provide(self.cluster, step.tell)
            self.cluster.kube.apply(self.objects(image))
            step.tell(str(self.choice))

    def wait(self, timeout_s: float = 120.0) -> None:
        """Wait until every connector is registered with an edge.

        Raises:
            WaitTimeout: the hint has the connector's last words.
        """
        try:
            self.cluster.kube.wait("Deployment", NAME, "rolled out", namespace=NAMESPACE, timeout_s=timeout_s)
        except WaitTimeout as error:
            words = [line for line in self.logs().splitlines() if " ERR " in line or " WRN " in line]
            said = "\n".join(words[-_WORDS:])
            raise WaitTimeout(error.message, f"{said or error.hint}") from error

    def status(self) -> AddonStatus:
        """The connector's Deployment, its settings, and the edge of a rehearsal."""
        kube = self.cluster.kube
        wanted = (("Deployment", NAME), ("ConfigMap", "tunnel-config"), ("Secret", "tunnel-credentials"))
        if kube.find("Namespace", NAMESPACE) is None:
            return AddonStatus(self.name, "absent")
        found = {kind: kube.find(kind, name, namespace=NAMESPACE) for kind, name in wanted}
        parts = {f"{kind.lower()}/{name}": "there" if found[kind] else "missing" for kind, name in wanted}
        deployment = found["Deployment"]
        lacks = rollout_lacks(deployment) if deployment else "missing"
        parts[f"deployment/{NAME}"] = lacks or "ready"
        if self.edge is not None:
            registered = len(self.edge.connectors())
            parts["edge"] = f"{registered} connectors registered" if self.edge.running else "not running"
        image = str(dig(deployment, "spec.template.spec.containers[0].image", ""))
        if "missing" in parts.values():
            return AddonStatus(self.name, "incomplete", image, parts)
        good = not lacks and parts.get("edge") != "not running"
        return AddonStatus(self.name, "ready" if good else "starting", image, parts)

    def uninstall(self) -> None:
        """Stop the edge, and remove connector, configuration and credentials."""
        if self.edge is not None:
            self.edge.stop()
        self.refuse_others()
        kube = self.cluster.kube
        if kube.find("Namespace", NAMESPACE) is not None:
            kube.delete("Namespace", NAMESPACE)
            kube.wait("Namespace", NAMESPACE, "deleted", timeout_s=_GONE_S)

    def use(self, credentials: Credentials) -> None:
        """Give the connector other credentials; returns at once. `wait` tells whether they are good."""
        self.credentials = credentials
        self._apply()

    def use_rules(self, rules: list[dict[str, Any]]) -> None:
        """Give the connector other ingress rules; returns at once. The file config.yml stays as it is.

        Raises:
            IngressError: cloudflared would not accept the rules; the connector keeps those it has.
        """
        validate_ingress(rules)
        origin.check(self.settings, rules)
        self.rules = [dict(rule) for rule in rules]
        self.settings = {**self.settings, "ingress": self.rules}
        self._apply()

    def live_rules(self) -> list[dict[str, Any]]:
        """The rules that the cluster's ConfigMap has now; [] where there is none."""
        config = self.cluster.kube.find("ConfigMap", "tunnel-config", namespace=NAMESPACE)
        text = dig(config, "data", {}).get("config.yml", "")
        return list((yaml.safe_load(text) or {}).get("ingress") or [])

    def _apply(self) -> None:
        deployment = self.cluster.kube.get("Deployment", NAME, namespace=NAMESPACE)
        self.cluster.kube.apply(self.objects(dig(deployment, "spec.template.spec.containers[0].image")))

    @property
    def url(self) -> str:
        """Where visitors come: of a quick tunnel its made-up hostname, else the edge.

        Raises:
            ClusterError: a quick tunnel has not told its name; a named one's hostnames are in its rules.
        """
        if self.edge is not None:
            return self.edge.url
        if self.choice.mode == "named":
            hosts = ", ".join(str(rule["hostname"]) for rule in self.rules if rule.get("hostname"))
            raise ClusterError("A named tunnel has the hostnames of its rules.", f"They are: {hosts}.")
        deadline = time.monotonic() + 20
        while not (match := _PUBLIC.search(self.logs())):
            if time.monotonic() > deadline:
                raise ClusterError("cloudflared has not told the tunnel's name.", self.logs()[-500:])
            time.sleep(_POLL_S)
        return match[0]

    def route(self, public_url: str) -> tuple[str, dict[str, str]]:
        """How this process visits a public URL: the URL to ask, and headers that go with it.

        Of a rehearsal, whose hostnames are in no DNS, the edge is asked with the hostname as a header.
        """
        parts = urlsplit(public_url)
        if self.choice.mode == "named":
            return public_url, {}
        rest = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Host": parts.netloc} if self.edge is not None else {}
        return self.url + rest, headers

    def logs(self) -> str:
        """What the connectors wrote, one after the other."""
        return "".join(self._logs().values())

    def events(self) -> pd.DataFrame:
        """What connectors wrote about their connection: pod, at (unix time) and event.

        The event is registered, lost (the edge is gone), failed (not reached) or refused (wrong secret).
        """
        rows = [
            {"pod": pod, "at": datetime.fromisoformat(line.split(maxsplit=1)[0]).timestamp(), "event": event}
            for pod, text in self._logs().items()
            for line in text.splitlines()
            for words, event in _EVENTS.items()
            if words in line
        ]
        return pd.DataFrame(rows, columns=["pod", "at", "event"]).sort_values("at", ignore_index=True)

    def _logs(self) -> dict[str, str]:
        kube = self.cluster.kube
        pods = kube.list("Pod", namespace=NAMESPACE, labels=LABELS)
        names = [
            dig(pod, "metadata.name") for pod in pods if dig(pod, "status.containerStatuses[0].containerID")
        ]
        logs = {}
        for name in names:
            with suppress(NotFound):  # it has gone meanwhile
                logs[name] = kube.logs(name, namespace=NAMESPACE)
        return logs


def read_config(path: str | Path) -> list[dict[str, Any]]:
    """The ingress rules of a config.yml, judged; see `read_settings`."""
    return list(read_settings(Path(path))["ingress"])


def read_settings(path: Path) -> dict[str, Any]:
    """All of a config.yml, its ingress rules and origin settings judged.

    Raises:
        ConfigError: it cannot be read, or a setting has a value that cannot be.
        IngressError: cloudflared would not accept the rules.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}.") from error
    if not isinstance(raw, dict):
        raise IngressError(f"{path} has no ingress rules.", "It needs a list under `ingress`.")
    rules = raw.get("ingress")
    validate_ingress(rules)  # type: ignore[arg-type]
    origin.check(raw, rules or [])
    return {**raw, "ingress": [rule or {} for rule in rules or []]}


def _is_id(text: Any) -> bool:
    try:
        return bool(uuid.UUID(str(text)))
    except ValueError:
        return False


def _scalar(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_http(rule: dict[str, Any]) -> bool:
    return str(rule.get("service", "")).startswith(("http://", "https://", "ws://", "wss://"))


def _data(kind: str, name: str, content: dict[str, Any]) -> Object:
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, **content}
