"""Ingress rules of lab 07, judged by the URLs that they serve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.addons.tunnel import IngressError, match_rule, validate_ingress
from labkit.checks.core import Finding, expect

Rules = list[dict[str, Any]]


@dataclass(frozen=True)
class Wanted:
    """A URL, and who is to serve it.

    Attributes:
        service: the beginning of the rule's service.
    """

    url: str
    service: str
    who: str


_FRONTEND = ("http://frontend.shop", "the Service frontend")
_CATALOG = ("http://catalog.shop", "the Service catalog")
_PRICING = ("http://pricing.shop", "the Service pricing")
_NOBODY = ("http_status:404", "nobody (404)")
FIVE = (
    Wanted("https://shop.example.com/orders/7", *_FRONTEND),
    Wanted("https://api.example.com/products/mug", *_CATALOG),
    Wanted("https://api.example.com/price?sku=mug", *_PRICING),
    Wanted("https://api.example.com/old/products", *_NOBODY),
    Wanted("https://beta.api.example.com/status", "http_status:204", "an empty answer (204)"),
)
UNTOLD = (
    Wanted("https://any.example.com/status", "http_status:204", "an empty answer (204)"),
    Wanted("https://elsewhere.example.org/", *_NOBODY),
)
"""What the text of the exercise says in words."""
PRIVATE = (
    "https://shop.example.com/admin",
    "https://shop.example.com/admin/",
    "https://shop.example.com/admin/orders?all=1",
    "https://shop.example.com/%61dmin",
    "https://shop.example.com/metrics",
)
PUBLIC = (
    Wanted("https://shop.example.com/", *_FRONTEND),
    Wanted("https://shop.example.com/badminton", *_FRONTEND),
    Wanted("https://shop.example.com/administration", *_FRONTEND),
    Wanted("https://api.example.com/products/admin", *_CATALOG),
)


def valid(rules: object) -> Finding:
    """Whether cloudflared would accept the rules."""
    try:
        validate_ingress(rules)  # type: ignore[arg-type]
    except IngressError as error:
        return expect(False, "cloudflared accepts the rules", f"{error.message} {error.hint}", "invalid")
    return expect(True, "cloudflared accepts the rules")


def routes(rules: Rules, wanted: Sequence[Wanted] = (*FIVE, *UNTOLD)) -> Iterator[Finding]:
    """Whether each URL is served by whom it should be; what is not has the key of the likely mistake."""
    for one in wanted:
        place = match_rule(rules, one.url)
        found = _service(rules[place])
        yield expect(
            found.startswith(one.service),
            f"{one.url} is served by {one.who}",
            f"rule {place} serves it: {_words(rules[place])}",
            _mistake(rules, one, place),
        )


def private(rules: Rules) -> Iterator[Finding]:
    """Whether /admin and /metrics of the shop are refused, and nothing else is."""
    for url in PRIVATE:
        place = match_rule(rules, url)
        refused = _refuses(rules[place])
        later = [rule for rule in rules[place + 1 :] if rule.get("path")]
        behind = any(_refuses(rule) and _covers(rule, url) for rule in later)
        yield expect(
            refused,
            f"{url} is refused",
            f"rule {place} lets it in: {_words(rules[place])}",
            "order" if behind else "open",
        )
    for one in PUBLIC:
        place = match_rule(rules, one.url)
        yield expect(
            _service(rules[place]).startswith(one.service),
            f"{one.url} is still served by {one.who}",
            f"rule {place} serves it: {_words(rules[place])}",
            "too-much" if _refuses(rules[place]) else "lost",
        )


def _mistake(rules: Rules, one: Wanted, place: int) -> str:
    """Key of the hint: the right rule stands behind another, covers too much, or is not there."""
    if one.service == _NOBODY[0]:
        return "too-much"
    right = [at for at, rule in enumerate(rules) if _service(rule).startswith(one.service)]
    if any(at > place and _covers(rules[at], one.url) for at in right):
        return "order"
    return "fit" if right else "missing"


def _covers(rule: dict[str, Any], url: str) -> bool:
    return match_rule([rule, {"service": "http_status:404"}], url) == 0 if _limited(rule) else True


def _limited(rule: dict[str, Any]) -> bool:
    return rule.get("hostname", "") not in ("", "*") or bool(rule.get("path"))


def _refuses(rule: dict[str, Any]) -> bool:
    return _service(rule) in ("http_status:401", "http_status:403", "http_status:404", "http_status:410")


def _service(rule: dict[str, Any]) -> str:
    return str(rule.get("service", ""))


def _words(rule: dict[str, Any]) -> str:
    names = ("hostname", "path", "service")
    return ", ".join(f"{name} {rule[name]}" for name in names if rule.get(name))
