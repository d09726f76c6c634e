"""Ingress rules of a Cloudflare Tunnel, judged as cloudflared itself judges them.

rules = yaml.safe_load(text)["ingress"]
validate_ingress(rules)
match_rule(rules, "https://shop.example.com/api/products")     # 0, the first rule's index

The behaviour is that of cloudflared's package `ingress` (validateIngress and FindMatchingRule), which
`cloudflared tunnel ingress validate` and `cloudflared tunnel ingress rule URL` show. Paths are regular
expressions of RE2, so RE2 reads them here too.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import re2  # type: ignore[import-untyped]

from labkit.addons.tunnel import urls
from labkit.addons.tunnel.hostnames import lookup_form, matches
from labkit.errors import ConfigError

_ATOI = re.compile(r"[+-]?[0-9]+", re.ASCII)
_INT64 = 1 << 63
_BYTE = re.compile(r"(?:[^\\]|\\[^CQ]|\\Q.*?(?:\\E|$))*?\\C", re.DOTALL)  # \C of RE2, which Go's has not
_NAMED = re.compile(r"\(\?P?<([^>]*)>")
_HELLO = ("hello_world", "hello-world")


class IngressError(ConfigError):
    """Ingress rules that cloudflared would refuse."""


@dataclass(frozen=True)
class Rule:
    """A rule that has been found good.

    Attributes:
        hostname: "" and "*" for any.
        punycode: its other form, "" where that is no other.
        path: a compiled regular expression, None for any.
        service: a URL, http_status:CODE and so on.
    """

    hostname: str
    punycode: str
    path: Any
    service: str

    def covers(self, hostname: str, path: str) -> bool:
        """Whether a request is this rule's."""
        host = self.hostname in ("", "*") or matches(self.hostname, hostname)
        if not host and not (self.punycode and matches(self.punycode, hostname)):
            return False
        return self.path is None or self.path.search(path) is not None


def validate_ingress(rules: list[dict[str, Any]]) -> None:
    """Judge ingress rules as `cloudflared tunnel ingress validate` does.

    Args:
        rules: the list under `ingress` of a config.yml.

    Raises:
        IngressError: what cloudflared would not accept, and why.
    """
    read_rules(rules)


def match_rule(rules: list[dict[str, Any]], url: str) -> int:
    """The index (from 0) of the rule that serves a URL, as `cloudflared tunnel ingress rule` says.

    Raises:
        IngressError: the rules are not valid.
        ConfigError: it is no URL.
    """
    known = read_rules(rules)
    try:
        parsed = urls.parse(url)
    except urls.BadURL as err:
        raise ConfigError(
            f"{url!r} is not a valid URL: {err}.", "Such as https://shop.example.com/."
        ) from err
    if not parsed.hostname and not parsed.scheme:
        raise ConfigError(f"{url!r} has no hostname.", "Put https:// before it.")
    return find_rule(known, parsed.hostname, parsed.path)


def find_rule(rules: Sequence[Rule], host: str, path: str) -> int:
    """The first rule that covers a host (perhaps with a port) and a decoded path; the last one covers all."""
    split = urls.split_host_port(host)
    hostname = split[0] if split else host
    covering = (place for place, rule in enumerate(rules) if rule.covers(hostname, path))
    return next(covering, len(rules) - 1)


def read_rules(rules: Any) -> list[Rule]:
    """Rules as `find_rule` takes them. Raises IngressError as `validate_ingress`."""
    if rules is None or (isinstance(rules, Sequence) and not rules):
        raise IngressError(
            "The config file has no ingress rules.", "The least is one rule: `- service: http_status:404`."
        )
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise IngressError(f"`ingress` is not a list of rules but {rules!r:.60}.")
    return [_read(rule, place, len(rules)) for place, rule in enumerate(rules)]


def _read(rule: Any, place: int, count: int) -> Rule:
    if not isinstance(rule, Mapping | None):
        raise IngressError(f"Rule #{place + 1} is not a mapping but {rule!r:.60}.")
    given = rule or {}
    hostname, path, service = (_text(given, key, place) for key in ("hostname", "path", "service"))
    origin = _origin(given, place)
    _check_service(service, origin, place)
    _check_access(origin, place)
    _check_hostname(hostname, path, place, count)
    catch_all = hostname in ("", "*") and not path
    form = "" if catch_all else lookup_form(hostname)
    return Rule(hostname, form if form != hostname else "", _compile(path, place), service)


def _text(rule: Mapping[str, Any], key: str, place: int) -> str:
    """A scalar as YAML would hand it to a text field."""
    value = rule.get(key)
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, str | int | float):
        return "" if value is None else str(value)
    raise IngressError(f"Rule #{place + 1}: `{key}` is not a text but {value!r:.60}.")


def _origin(rule: Mapping[str, Any], place: int) -> Mapping[str, Any]:
    value = rule.get("originRequest")
    if not isinstance(value, Mapping | None):
        raise IngressError(f"Rule #{place + 1}: `originRequest` is not a mapping but {value!r:.60}.")
    return value or {}


def _check_service(service: str, origin: Mapping[str, Any], place: int) -> None:
    if service.startswith(("unix:", "unix+tls:")) or service in _HELLO:
        return
    if service.startswith("http_status:"):
        _check_status(service.removeprefix("http_status:"), place)
    elif service == "socks-proxy":
        for ip_rule in origin.get("ipRules") or []:
            _check_ip_rule(ip_rule, place)
    elif service != "bastion" and not origin.get("bastionMode"):
        _check_url(service, place)


def _check_status(code: str, place: int) -> None:
    if not _ATOI.fullmatch(code) or not -_INT64 <= int(code) < _INT64 or not 100 <= int(code) <= 999:
        raise IngressError(
            f"Rule #{place + 1}: {code!r} is an invalid HTTP status code.", "A number from 100 to 999."
        )


def _check_url(service: str, place: int) -> None:
    number = f"Rule #{place + 1}"
    try:
        url = urls.parse(service)
    except urls.BadURL as err:
        raise IngressError(f"{number}: the service {service!r} is not a valid URL: {err}.") from err
    if not url.scheme or not url.hostname:
        raise IngressError(
            f"{number}: the service {service!r} lacks a scheme or a hostname.",
            "Such as http://frontend.shop:80, http_status:404 or hello_world.",
        )
    if url.path:
        raise IngressError(
            f"{number}: the service {service!r} has a path, {url.path!r}.",
            "A service gets each request with the path it came with: leave it out, the slash too.",
        )


def _check_ip_rule(rule: Any, place: int) -> None:
    prefix = rule.get("prefix") if isinstance(rule, Mapping) else None
    ports = (rule.get("ports") or []) if isinstance(rule, Mapping) else []
    try:
        address, slash, bits = str(prefix or "").partition("/")
        if not slash or not bits.isdecimal():
            raise ValueError("no prefix length")
        ipaddress.ip_network(f"{address}/{bits}", strict=False)
    except ValueError as err:
        raise IngressError(f"Rule #{place + 1}: the IP rule's prefix {prefix!r} is no CIDR.") from err
    wrong = [port for port in ports if not isinstance(port, int) or not 1 <= port <= 65535]
    if wrong:
        raise IngressError(f"Rule #{place + 1}: {wrong[0]!r} is no port from 1 to 65535.")


def _check_access(origin: Mapping[str, Any], place: int) -> None:
    access = origin.get("access")
    if not isinstance(access, Mapping) or not access.get("required"):
        return
    if access.get("audTag") and not access.get("teamName"):
        raise IngressError(f"Rule #{place + 1}: `access` has audTag and no teamName.")


def _check_hostname(hostname: str, path: str, place: int, count: int) -> None:
    number = f"Rule #{place + 1}"
    if urls.split_host_port(hostname) is not None:
        raise IngressError(
            f"{number}: the hostname {hostname!r} contains a port.", "The tunnel has no ports."
        )
    if hostname.rfind("*") > 0:
        raise IngressError(
            f"{number}: the hostname {hostname!r} has a wildcard in the middle.",
            'One "*" at most, for subdomains, such as "*.example.com".',
        )
    catch_all, last = hostname in ("", "*") and not path, place == count - 1
    if last and not catch_all:
        raise IngressError(
            f"{number} is the last one and does not match all URLs.",
            "End with a rule that has neither hostname nor path: `- service: http_status:404`.",
        )
    if not last and catch_all:
        raise IngressError(
            f"{number} matches every hostname ({hostname!r}): the rules after it would never be used.",
            "Give it a hostname or a path, or move it to the end.",
        )


def _compile(path: str, place: int) -> Any:
    if not path:
        return None
    number = f"Rule #{place + 1}: the path {path!r} is an invalid regular expression"
    if _BYTE.match(path):
        raise IngressError(rf"{number}: invalid escape sequence: \C.")
    if any(not name.isascii() for name in _NAMED.findall(path)):
        raise IngressError(f"{number}: a group's name has a letter beyond ASCII.")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(path, options)
    except re2.error as err:
        said = err.args[0] if err.args else err
        said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise IngressError(
            f"{number}: {said}.",
            "Paths are RE2 expressions: no look-around and no back-references.",
        ) from err
