"""`originRequest` of a config.yml: how cloudflared speaks to a Service, for all rules and for one.

Names, types and defaults are those of cloudflared's package `ingress` (OriginRequestConfig); what a rule says
goes before what the file says for all. A rehearsal does what `REHEARSED` lists, and refuses the rest by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from labkit.durations import seconds
from labkit.errors import ConfigError

TYPES: Final[Mapping[str, type]] = {
    "connectTimeout": float, "tlsTimeout": float, "tcpKeepAlive": float, "keepAliveTimeout": float,
    "noHappyEyeballs": bool, "noTLSVerify": bool, "disableChunkedEncoding": bool, "bastionMode": bool,
    "http2Origin": bool, "matchSNItoHost": bool, "keepAliveConnections": int, "proxyPort": int,
    "httpHostHeader": str, "originServerName": str, "caPool": str, "proxyAddress": str, "proxyType": str,
    "ipRules": list, "access": dict,
}  # fmt: skip
"""Key → type; float stands for a duration."""

DEFAULTS: Final[Mapping[str, Any]] = {"connectTimeout": 30.0, "tlsTimeout": 10.0, "keepAliveTimeout": 90.0}

REHEARSED: Final = (
    "connectTimeout", "tlsTimeout", "keepAliveTimeout", "noTLSVerify", "matchSNItoHost", "httpHostHeader",
    "originServerName",
)  # fmt: skip
"""What a rehearsal does as cloudflared does it."""

UNSEEN: Final = ("tcpKeepAlive", "noHappyEyeballs", "keepAliveConnections")
"""How connections are kept or found: no request shows it, and a rehearsal leaves it out."""

FLAGS: Final[Mapping[str, str]] = {
    "connectTimeout": "proxy-connect-timeout", "tlsTimeout": "proxy-tls-timeout",
    "tcpKeepAlive": "proxy-tcp-keepalive", "noHappyEyeballs": "proxy-no-happy-eyeballs",
    "keepAliveConnections": "proxy-keepalive-connections", "keepAliveTimeout": "proxy-keepalive-timeout",
    "httpHostHeader": "http-host-header", "originServerName": "origin-server-name",
    "noTLSVerify": "no-tls-verify", "disableChunkedEncoding": "no-chunked-encoding",
    "http2Origin": "http2-origin",
}  # fmt: skip
"""Key → cloudflared's flag, for a quick tunnel, which reads no file."""

SERVED: Final = ("http://", "https://", "ws://", "wss://", "http_status:", "hello_world", "hello-world")


class OriginError(ConfigError):
    """`originRequest` cannot be, or a rehearsal cannot do what it asks for."""


def merged(config: Mapping[str, Any], rule: Mapping[str, Any]) -> dict[str, Any]:
    """What counts for a rule: durations in seconds, defaults filled in, keys that are not set left out.

    Raises:
        OriginError: a value is of another type than cloudflared reads.
    """
    found = dict(DEFAULTS)
    for place, given in (("originRequest", config), ("originRequest of a rule", rule)):
        found |= _read(place, given.get("originRequest"))
    return found


def check(config: Mapping[str, Any], rules: Sequence[Mapping[str, Any] | None]) -> None:
    """Judge the types of all of it. Raises OriginError."""
    for rule in rules:
        merged(config, rule or {})


def unknown(config: Mapping[str, Any], rules: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Keys of originRequest that cloudflared does not know; it warns of them and goes on."""
    given = [(each or {}).get("originRequest") or {} for each in (config, *rules)]
    return sorted({str(key) for each in given for key in each} - set(TYPES))


def refuse_unrehearsed(config: Mapping[str, Any], rules: Sequence[Mapping[str, Any] | None]) -> None:
    """Name what a rehearsal cannot do.

    Raises:
        OriginError: a rule's service, or one of its settings, needs cloudflared itself.
    """
    for place, rule in enumerate(rules):
        service = str((rule or {}).get("service", ""))
        if not service.startswith(SERVED):
            raise OriginError(
                f"Rule #{place + 1}: a rehearsal cannot serve {service!r}.",
                "It serves http, https, ws, wss, http_status and hello_world; a real tunnel serves the rest.",
            )
        set_ = [key for key, value in merged(config, rule or {}).items() if value not in (False, "", [], {})]
        needs = [key for key in set_ if key in TYPES and key not in (*REHEARSED, *UNSEEN)]
        if needs:
            raise OriginError(
                f"Rule #{place + 1}: a rehearsal does not do originRequest.{needs[0]}.",
                f"Leave it out, or use a real tunnel. A rehearsal does {', '.join(REHEARSED)}.",
            )


def flags(settings: Mapping[str, Any]) -> list[str]:
    """`merged` as flags of a quick tunnel.

    Raises:
        OriginError: there is no flag for one of them.
    """
    made: list[str] = []
    for key, value in settings.items():
        if value in (False, "", [], {}) or DEFAULTS.get(key) == value or key not in TYPES:
            continue
        if key not in FLAGS:
            raise OriginError(
                f"A quick tunnel does not do originRequest.{key}: cloudflared has no flag for it.",
                "Leave it out, or use a named tunnel.",
            )
        made.append(f"--{FLAGS[key]}" + ("" if value is True else f"={_flag(key, value)}"))
    return made


def _flag(key: str, value: Any) -> str:
    return f"{value:g}s" if TYPES[key] is float else str(value)


def _read(place: str, given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise OriginError(f"`{place}` is not a mapping but {given!r:.60}.")
    known = {key: value for key, value in given.items() if key in TYPES and value is not None}
    return {key: _value(place, key, value) for key, value in known.items()}


def _value(place: str, key: str, value: Any) -> Any:
    kind = TYPES[key]
    if kind is float:
        try:
            return (
                seconds(value) if isinstance(value, str) else int(value) / 1e9
            )  # a plain number: nanoseconds
        except (ValueError, TypeError):
            raise OriginError(f"`{place}`: {key} is {value!r}.", "Give a duration such as 30s.") from None
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    names = {bool: "true or false", int: "a whole number", str: "a text", list: "a list", dict: "a mapping"}
    raise OriginError(f"`{place}`: {key} is {value!r:.60}.", f"Give {names[kind]}.")
