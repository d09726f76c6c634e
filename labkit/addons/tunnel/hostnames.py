"""Hostnames of rules: their form for lookups, as cloudflared computes it, and how they match.

cloudflared lets a rule's hostname match as it is written, and in the form that the Lookup profile of
golang.org/x/net/idna gives it (UTS 46, not transitional): lower case, other letters than ASCII's in Punycode.
"""

from __future__ import annotations

import string
import unicodedata

import idna

_ALLOWED = frozenset(string.ascii_lowercase + string.digits + "-.")


def lookup_form(hostname: str) -> str:
    """The form for lookups; "" where there is none, as for a name with a wildcard or an underscore."""
    try:
        mapped = idna.uts46_remap(hostname, std3_rules=True, transitional=False)
        unicode = [_to_unicode(label) for label in mapped.split(".")]
        if any(_is_right_to_left(label) for label in unicode) and not all(
            not label or idna.check_bidi(label, check_ltr=True) for label in unicode
        ):
            return ""
        return ".".join(_to_ascii(label) for label in unicode)
    except UnicodeError:  # idna.IDNAError is one
        return ""


def matches(pattern: str, hostname: str) -> bool:
    """Whether a rule's hostname covers a request's; *.example.com covers any depth below example.com."""
    return pattern == hostname or (pattern.startswith("*.") and hostname.endswith(pattern[1:]))


def _to_unicode(label: str) -> str:
    if label.startswith("xn--"):
        label = label[4:].encode("ascii").decode("punycode")
        if (label and label.isascii()) or idna.uts46_remap(
            label, std3_rules=True, transitional=False
        ) != label:
            raise UnicodeError(f"{label!r} is not as UTS 46 maps it")
    if label:
        _check(label)
    return label


def _check(label: str) -> None:
    if not _ALLOWED.issuperset(char for char in label if ord(char) < 0x80):
        raise UnicodeError(f"{label!r} has a character that hostnames do not have")
    encoded = label.encode()
    if (len(encoded) > 4 and encoded[2:4] == b"--") or label[0] == "-" or label[-1] == "-":
        raise UnicodeError(f"{label!r} has hyphens in the wrong place")
    idna.check_initial_combiner(label)
    for place, char in enumerate(label):
        if char in "\u200c\u200d" and not idna.valid_contextj(label, place):
            raise UnicodeError(f"{label!r} has a joiner in the wrong place")


def _is_right_to_left(label: str) -> bool:
    return any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for char in label)


def _to_ascii(label: str) -> str:
    return label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
