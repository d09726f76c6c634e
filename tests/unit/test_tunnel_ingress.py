"""Ingress rules: judged as cloudflared judged them, and as Go's library judges what cloudflared leaves to it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.addons.tunnel import IngressError, match_rule, urls, validate_ingress
from labkit.addons.tunnel.hostnames import lookup_form, matches
from labkit.addons.tunnel.ingress import find_rule, read_rules
from labkit.errors import ConfigError

DATA = Path(__file__).with_name("data")
VECTORS = [json.loads(line) for line in (DATA / "tunnel_vectors.jsonl").read_text().splitlines()]
JUDGED = [
    json.loads(line) for line in gzip.decompress((DATA / "tunnel_go.jsonl.gz").read_bytes()).splitlines()
]
PATHS = ("", "/", "/api/1", "/API/x", "/a.png", "/v12/x", "/ä/ö", "/a\nb", "healthz", "/x y", "/aaa")
LAST: dict[str, Any] = {"service": "http_status:404"}

labels = st.text("abcdxyz0189-", min_size=1, max_size=8).filter(lambda text: text.strip("-") == text)
hostnames = st.lists(labels, min_size=2, max_size=4).map(".".join)
rules = st.fixed_dictionaries(
    {"hostname": hostnames | hostnames.map("*.{}".format), "service": st.just("http://web:80")},
    optional={"path": st.sampled_from(["^/api", r"\.png$", "v[0-9]+"])},
)


def valid(ingress: Any) -> bool:
    try:
        validate_ingress(ingress)
    except IngressError as error:
        assert error.message
        return False
    return True


# --- the real program's verdicts


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_as_cloudflared_judged(vector: dict[str, Any]) -> None:
    assert valid(vector["ingress"]) == vector["valid"]
    for match in vector["matches"]:
        assert match_rule(vector["ingress"], match["url"]) == match["rule"], match


def test_there_are_forty_of_them() -> None:
    assert len(VECTORS) == 40 and {vector["valid"] for vector in VECTORS} == {True, False}


# --- Go's library


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [each for each in JUDGED if each["kind"] == kind]


def test_urls_are_read_as_go_reads_them() -> None:
    for each in of_kind("url"):
        try:
            url = urls.parse(each["in"])
        except urls.BadURL:
            assert not each["ok"], each
        else:
            assert each["ok"] and [url.scheme, url.hostname, url.path] == each["out"], each


def test_ports_are_split_off_as_go_does() -> None:
    for each in of_kind("split"):
        assert urls.split_host_port(each["in"]) == (tuple(each["out"]) if each["ok"] else None), each


def test_names_have_the_lookup_form_that_go_gives_them() -> None:
    for each in of_kind("idna"):
        assert lookup_form(each["in"]) == (each["out"][0] if each["ok"] else ""), each


def test_paths_match_as_with_go() -> None:
    for each in of_kind("re"):
        if not each["in"]:
            continue
        ingress = [{"path": each["in"], "service": "hello_world"}, LAST]
        assert valid(ingress) == each["ok"], each
        if each["ok"]:
            known = read_rules(ingress)
            assert [not find_rule(known, "any", path) for path in PATHS] == each["hits"], each


# --- services


@pytest.mark.parametrize(
    "service",
    [
        "http://a", "https://a:8443", "tcp://a:1", "ssh://a", "rdp://a", "smb://a:445", "ws://a", "ftp://a",
        "http://[::1]:8080", "http://user:pw@a", "http://a?x=1", "http://a#part", "HTTP://a", "anything://a",
        "unix:/run/x.sock", "unix:", "unix+tls:/run/x.sock", "http_status:100", "http_status:999",
        "http_status:+404", "http_status:0404", "hello_world", "hello-world", "bastion", "socks-proxy",
    ],
)  # fmt: skip
def test_services_that_are(service: str) -> None:
    assert valid([{"service": service}])


@pytest.mark.parametrize(
    "service",
    [
        None, "", "a", "a:80", "localhost:8000", "127.0.0.1:80", "//a", "http://", "http:///x", "http://:80",
        "http://a/", "http://a/x", "http://a b", "http://a:b", "http://a:80:90", "http://[::1", "http://a%20b",
        "http://[1.2.3.4]", "http_status:", "http_status:99", "http_status:1000", "http_status:4e2",
        "http_status: 404", "http_status:٤٠٤", "http_status:-404", "http_status", "helloworld", "hello world",
        "http:a", "mailto:a@b", "http://a\n", "Bastion",
    ],
)  # fmt: skip
def test_services_that_are_not(service: str | None) -> None:
    assert not valid([{"service": service}])


def test_bastion_mode_and_socks_rules() -> None:
    assert valid([{"originRequest": {"bastionMode": True}}])
    assert not valid([{"originRequest": {"bastionMode": False}}])
    socks = {"service": "socks-proxy"}
    good = {"prefix": "10.0.0.0/8", "ports": [80, 443], "allow": True}
    assert valid([{**socks, "originRequest": {"ipRules": [good]}}])
    for wrong in (
        {"prefix": "10.0.0.0"},
        {"prefix": ""},
        {},
        {**good, "ports": [0]},
        {**good, "ports": [65536]},
    ):
        assert not valid([{**socks, "originRequest": {"ipRules": [wrong]}}]), wrong


def test_access() -> None:
    def with_access(**access: Any) -> list[dict[str, Any]]:
        return [{**LAST, "originRequest": {"access": access}}]

    assert valid(with_access(required=True)) and valid(with_access(audTag=["x"]))
    assert valid(with_access(required=True, teamName="t", audTag=["x"]))
    assert not valid(with_access(required=True, audTag=["x"]))


# --- hostnames


@pytest.mark.parametrize(
    "hostname", ["a.com:80", "a.com:", "[::1]:80", ":80", "a*.com", "*.*.com", "a.*", "**"]
)
def test_hostnames_that_are_not(hostname: str) -> None:
    assert not valid([{"hostname": hostname, "service": "hello_world"}, LAST])


def test_a_wildcard_without_a_dot_matches_nothing_but_itself() -> None:
    ingress = [{"hostname": "*example.com", "service": "hello_world"}, LAST]
    assert valid(ingress) and match_rule(ingress, "https://www.example.com/") == 1


@pytest.mark.parametrize(
    ("hostname", "url", "rule"),
    [
        ("*.example.com", "https://a.example.com/", 0),
        ("*.example.com", "https://a.b.example.com/", 0),
        ("*.example.com", "https://example.com/", 1),
        ("*.example.com", "https://badexample.com/", 1),
        ("*.Example.com", "https://a.example.com/", 1),
        ("example.com", "https://EXAMPLE.com/", 1),
        ("EXAMPLE.com", "https://example.com/", 0),
        ("EXAMPLE.com", "https://EXAMPLE.com/", 0),
        ("bücher.example", "https://xn--bcher-kva.example/", 0),
        ("bücher.example", "https://bücher.example/", 0),
        ("BÜCHER.example", "https://xn--bcher-kva.example/", 0),
        ("xn--bcher-kva.example", "https://bücher.example/", 1),
        ("*.bücher.example", "https://a.xn--bcher-kva.example/", 1),
        ("a_b.example", "https://a_b.example/", 0),
        ("example.com", "https://user:pw@example.com:8443/x", 0),
        ("::1", "http://[::1]:80/", 0),
    ],
)
def test_hostnames(hostname: str, url: str, rule: int) -> None:
    assert match_rule([{"hostname": hostname, "service": "hello_world"}, LAST], url) == rule


@pytest.mark.parametrize(
    ("path", "url", "rule"),
    [
        ("/api", "https://a/x/api/y", 0),
        ("^/api$", "https://a/api/", 1),
        ("^/api$", "https://a/api?x=/y", 0),
        ("ä", "https://a/%C3%A4", 0),
        ("^$", "https://a", 0),
        ("^/$", "https://a", 1),
        ("(?i)API", "https://a/api", 0),
        ("API", "https://a/api", 1),
        ("#", "https://a/x#y", 1),
    ],
)
def test_paths(path: str, url: str, rule: int) -> None:
    assert match_rule([{"path": path, "service": "hello_world"}, LAST], url) == rule


@pytest.mark.parametrize("path", ["(", "(?=a)", r"\1", "a**", "[z-a]", "a{1001}", r"\C", "(?P<ä>a)", r"\Z"])
def test_paths_that_re2_does_not_know(path: str) -> None:
    assert not valid([{"path": path, "service": "hello_world"}, LAST])


# --- forms of input


@pytest.mark.parametrize(
    "ingress",
    [
        [],
        None,
        "rules",
        {"service": "x"},
        ["x"],
        [["x"]],
        [{"service": ["x"]}],
        [{**LAST, "originRequest": 3}],
    ],
)
def test_what_are_no_rules(ingress: Any) -> None:
    assert not valid(ingress)


def test_scalars_are_read_as_yaml_gives_them_to_text_fields() -> None:
    assert valid([{"hostname": None, "path": None, "service": "http_status:404"}])
    assert match_rule([{"path": 42, "service": "hello_world"}, LAST], "https://a/42") == 0


def test_unknown_keys_are_no_error() -> None:
    assert valid([{**LAST, "comment": "cloudflared only warns"}])


@pytest.mark.parametrize("url", ["example.com", "/path", "", "http://a b/", "https://a/%zz", "http://[::1/"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError):
        match_rule([LAST], url)


# --- properties


@settings(deadline=None)
@given(st.lists(rules, max_size=5), hostnames, st.sampled_from(["/", "/api/x", "/a.png", "/v2"]))
def test_any_list_with_a_last_rule_is_valid_and_serves_every_url(
    before: list[dict[str, Any]], host: str, path: str
) -> None:
    ingress = [*before, LAST]
    found = match_rule(ingress, f"https://{host}{path}")
    assert 0 <= found <= len(before)
    assert match_rule(ingress, f"http://{host}:8443{path}?q=1#x") == found
    earlier = read_rules(ingress)[:found]
    assert not any(rule.covers(host, path) for rule in earlier)


@settings(deadline=None)
@given(st.lists(rules, min_size=1, max_size=5), st.integers(0, 4))
def test_the_last_rule_is_needed_and_only_the_last_may_catch_all(
    before: list[dict[str, Any]], at: int
) -> None:
    assert not valid(before)
    place = min(at, len(before) - 1)
    assert not valid([*before[:place], LAST, *before[place:], LAST])


@settings(deadline=None)
@given(labels, hostnames)
def test_a_wildcard_covers_what_is_below_it_only(label: str, host: str) -> None:
    assert matches(f"*.{host}", f"{label}.{host}") and not matches(f"*.{host}", host)
    assert not matches(f"*.{host}", f"{label}{host}") or label.endswith(".")


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_judged_and_never_breaks_the_judge(text: str) -> None:
    for key in ("hostname", "path", "service"):
        valid([{"service": "hello_world", key: text}, LAST])
    try:
        assert match_rule([LAST], text) == 0
    except ConfigError as error:
        assert error.message
