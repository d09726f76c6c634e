"""URLs as Go's net/url reads them, since that is what cloudflared judges services and requests by.

Python's urllib.parse accepts more (a port that is no number, a space in a host) and splits otherwise.
"""

from __future__ import annotations

import ipaddress
import string
from dataclasses import dataclass

_HEX = frozenset(string.hexdigits)
_ALNUM = frozenset(string.ascii_letters + string.digits)
_SCHEME_REST = _ALNUM | frozenset("+-.")
_USERINFO = _ALNUM | frozenset("-._:~!$&'()*+,;=%@")
_HOST = _ALNUM | frozenset("-_.~!$&'()*+,;=:[]<>\"")


class BadURL(ValueError):
    """Go would refuse it; the text says why."""


@dataclass(frozen=True)
class GoURL:
    """What cloudflared looks at.

    Attributes:
        host: with its port, as written; IPv6 addresses in brackets.
        path: decoded; bytes that are no UTF-8 become U+FFFD.
    """

    scheme: str
    host: str
    path: str

    @property
    def hostname(self) -> str:
        """The host without port and brackets."""
        colon = self.host.rfind(":")
        host = self.host[:colon] if colon >= 0 and _is_port(self.host[colon:]) else self.host
        return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def parse(raw: str) -> GoURL:
    """Read a URL.

    Raises:
        BadURL: Go's url.Parse would return an error.
    """
    before, _, fragment = raw.partition("#")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in before):
        raise BadURL("it has a control character")
    _decode(fragment)
    if before == "*":
        return GoURL("", "", "*")
    scheme, rest = _scheme(before)
    rest = rest.partition("?")[0]
    if not rest.startswith("/"):
        if scheme:
            return GoURL(scheme, "", "")  # opaque, such as mailto:somebody or localhost:8000
        if ":" in rest.partition("/")[0]:
            raise BadURL("its first path segment has a colon")
    host = ""
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        authority, slash, path = rest[2:].partition("/")
        host, rest = _authority(scheme, authority), slash + path
    return GoURL(scheme, host, _decode(rest))


def split_host_port(text: str) -> tuple[str, str] | None:
    """Host and port as Go's net.SplitHostPort; None where it finds no port or cannot tell it."""
    last = text.rfind(":")
    if last < 0:
        return None
    if text.startswith("["):
        end = text.find("]")
        if end < 0 or end + 1 != last:
            return None
        host, opened, closed = text[1:end], 1, end + 1
    else:
        host, opened, closed = text[:last], 0, 0
        if ":" in host:
            return None
    if "[" in text[opened:] or "]" in text[closed:]:
        return None
    return host, text[last + 1 :]


def _scheme(raw: str) -> tuple[str, str]:
    for place, char in enumerate(raw):
        if char == ":":
            if place == 0:
                raise BadURL("its scheme is missing")
            return raw[:place].lower(), raw[place + 1 :]
        if char not in _SCHEME_REST or (place == 0 and char not in string.ascii_letters):
            break
    return "", raw


def _authority(scheme: str, text: str) -> str:
    userinfo, at, host = text.rpartition("@")
    if at:
        if not _USERINFO.issuperset(userinfo):
            raise BadURL("its user information has a character that must be escaped")
        _decode(userinfo)
    return _host(scheme, host)


def _host(scheme: str, text: str) -> str:
    opened = text.rfind("[")
    if opened > 0:
        raise BadURL("its host has a bracket in the middle")
    if opened == 0:
        return _literal(text)
    first = text.find(":")
    if first >= 0:
        strict = scheme in ("http", "https")
        port = text[first if strict else text.rfind(":") :]
        if not _is_port(port):
            raise BadURL(f"{port!r} is no port")
    return _decode_host(text)


def _literal(text: str) -> str:
    """An address in brackets, with a zone and a port perhaps."""
    closed = text.rfind("]")
    if closed < 0:
        raise BadURL("a bracket of its host is not closed")
    port = text[closed + 1 :]
    if not _is_port(port):
        raise BadURL(f"{port!r} is no port")
    inside = text[1:closed]
    zone = inside.find("%25")
    address = _decode_host(inside) if zone < 0 else _decode_host(inside[:zone]) + _decode(inside[zone:])
    try:
        ipaddress.IPv6Address(address)
    except ValueError as err:
        raise BadURL(f"{address!r} in brackets is no IPv6 address") from err
    return f"[{address}]{port}"


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and all(char in string.digits for char in text[1:]))


def _decode_host(text: str) -> str:
    """Percent escapes of a host stand for bytes beyond ASCII only."""
    for place, char in enumerate(text):
        if char == "%":
            escape = text[place : place + 3]
            if (
                len(escape) == 3
                and _HEX.issuperset(escape[1:])
                and escape[1] in "01234567"
                and escape != "%25"
            ):
                raise BadURL(f"its host has the escape {escape}")
        elif ord(char) < 0x80 and char not in _HOST:
            raise BadURL(f"its host has the character {char!r}")
    return _decode(text)


def _decode(text: str) -> str:
    raw = bytearray()
    place = 0
    while place < len(text):
        if text[place] == "%":
            digits = text[place + 1 : place + 3]
            if len(digits) < 2 or not _HEX.issuperset(digits):
                raise BadURL(f"{text[place : place + 3]!r} is no escape")
            raw.append(int(digits, 16))
            place += 3
        else:
            raw += text[place].encode("utf-8", "surrogatepass")
            place += 1
    return raw.decode("utf-8", "replace")
