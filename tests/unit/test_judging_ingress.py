"""Lab 07's rules, judged without a cluster: right answers pass, and each mistake has its hint."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from labkit.checks.core import Finding
from labkit.checks.judging import ingress
from labkit.checks.lab07 import rules as check_rules
from labkit.course.exercises import load

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
ORIGIN = "http://{}.shop.svc.cluster.local:80"
SHOP = {"hostname": "shop.example.com", "service": ORIGIN.format("frontend")}
PRODUCTS = {"hostname": "api.example.com", "path": "^/products", "service": ORIGIN.format("catalog")}
PRICE = {"hostname": "api.example.com", "path": "^/price", "service": ORIGIN.format("pricing")}
STATUS = {"hostname": "*.example.com", "path": "^/status$", "service": "http_status:204"}
REST = {"service": "http_status:404"}
GOOD = [SHOP, PRODUCTS, PRICE, STATUS, REST]
GATE = {"path": "^/(admin|metrics)(/|$)", "service": "http_status:404"}


def missing(findings: object) -> list[str]:
    return [each.key for each in findings if isinstance(each, Finding) and not each.ok]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "rules",
    [
        GOOD,
        [PRICE, PRODUCTS, SHOP, STATUS, REST],
        [STATUS, SHOP, PRODUCTS, PRICE, REST],
        [
            SHOP,
            {**PRODUCTS, "path": "^/products(/|$)"},
            {**PRICE, "path": "^/price$"},
            STATUS,
            {"hostname": "*", **REST},
        ],
        [{**SHOP, "service": "http://frontend.shop:80"}, PRODUCTS, PRICE, STATUS, REST],
    ],
)
def test_rules_that_serve_as_they_should(rules):
    assert ingress.valid(rules).ok
    assert missing(ingress.routes(rules)) == []


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ([{"hostname": "*.example.com", "service": ORIGIN.format("frontend")}, *GOOD], "order"),
        ([SHOP, {**PRODUCTS, "path": "/products"}, PRICE, STATUS, REST], "too-much"),
        (
            [SHOP, {"hostname": "api.example.com", "service": ORIGIN.format("catalog")}, STATUS, REST],
            "missing",
        ),
        ([SHOP, PRODUCTS, STATUS, REST], "missing"),
        ([SHOP, PRODUCTS, PRICE, {**STATUS, "hostname": "any.example.com"}, REST], "fit"),
        ([SHOP, PRODUCTS, PRICE, {**STATUS, "hostname": "beta.api.example.com"}, REST], "fit"),
        ([SHOP, PRODUCTS, PRICE, STATUS, {"service": ORIGIN.format("frontend")}], "too-much"),
    ],
)
def test_rules_that_serve_otherwise_name_the_mistake(rules, key):
    assert ingress.valid(rules).ok
    assert missing(ingress.routes(rules))[0] == key


@pytest.mark.parametrize(
    "rules",
    [
        None,
        [],
        ...,
        "shop",
        GOOD[:-1],
        [REST, *GOOD],
        [{**SHOP, "service": "http://frontend.shop:80/"}, REST],
        [3],
    ],
)
def test_rules_that_cannot_be_are_invalid(rules):
    assert ingress.valid(rules).key == "invalid"


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ([GATE, *GOOD], None),
        ([{**GATE, "service": "http_status:403"}, *GOOD], None),
        ([{**GATE, "hostname": "shop.example.com"}, *GOOD], None),
        ([{**GATE, "path": "^/admin(/.*)?$"}, {**GATE, "path": "^/metrics"}, *GOOD], None),
        (GOOD, "open"),
        ([{**GATE, "path": "^/admin(/|$)"}, *GOOD], "open"),
        ([{**GATE, "path": "^/(admin|metrics)$"}, *GOOD], "open"),
        ([{**GATE, "hostname": "example.com"}, *GOOD], "open"),
        ([*GOOD[:-1], GATE, REST], "order"),
        ([{**GATE, "path": "admin|metrics"}, *GOOD], "too-much"),
        ([{**GATE, "path": "^/(admin|metrics)"}, *GOOD], "too-much"),
        ([GATE, *GOOD[1:]], "too-much"),
    ],
)
def test_what_is_private_is_refused_and_nothing_else(rules, key):
    found = missing(ingress.private(rules))
    assert (found[0] if found else None) == key


def test_the_check_reads_a_learners_file(tmp_path: Path):
    file = tmp_path / "config.yml"
    assert missing(check_rules(str(file))) == ["unreadable"]
    for text, key in (
        ("ingress: [", "unreadable"),
        ("\x00", "unreadable"),
        ("- a", "invalid"),
        ("", "invalid"),
        (yaml.safe_dump({"ingress": GOOD[:3]}), "invalid"),
    ):
        file.write_text(text)
        assert missing(check_rules(str(file))) == [key], text
    file.write_text(yaml.safe_dump({"ingress": GOOD}))
    assert missing(check_rules(str(file))) == []


def test_every_mistake_has_a_hint():
    described = load(NOTEBOOKS, "07").by_id
    assert {"unreadable", "invalid", "order", "too-much", "fit", "missing"} <= described[
        "07-rules"
    ].hints.keys()
    private = described["07-private"].hints.keys()
    assert {"invalid", "not-there", "open", "order", "too-much", "lost", "rollout"} <= private
