"""Tokens, hashes, changes of a kubelet's configuration, the end of a log: what needs no cluster."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from labkit.cluster.care import last_lines, merged
from labkit.cluster.discovery import JoinToken, check_hash, check_server, key_hash
from labkit.cluster.join import Join, Token
from labkit.cluster.pki import Authority
from labkit.errors import ClusterError, ConfigError
from labkit.kube import Kube

from .api_server import Server, kubeconfig


def test_a_token_is_read_and_never_shown() -> None:
    token = Token.parse("abcdef.0123456789abcdef")
    assert (token.id, token.secret) == ("abcdef", "0123456789abcdef")
    for wrong in ("", "abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123", "abcdef.0123456789abcdef\n"):
        with pytest.raises(ConfigError) as caught:
            Token.parse(wrong)
        assert not wrong or wrong.strip() not in str(caught.value)
    given = JoinToken("https://127.18.0.1:6443", str(token), "sha256:" + "ab" * 32, expires_at=0.0)
    assert "0123456789abcdef" not in str(given) + repr(given)
    assert "kubeadm join 127.18.0.1:6443 --token abcdef." in str(given)
    assert given.seconds_left < 0 and given.id == "abcdef"


def test_the_hash_is_the_one_that_openssl_computes(tmp_path: Path) -> None:
    pem = Authority.create("kubernetes").pair.certificate
    (tmp_path / "ca.crt").write_bytes(pem)
    certificate = ["openssl", "x509", "-pubkey", "-noout", "-in", str(tmp_path / "ca.crt")]
    key = subprocess.run(certificate, stdout=subprocess.PIPE, check=True).stdout
    public = ["openssl", "pkey", "-pubin", "-outform", "der"]
    bits = subprocess.run(public, input=key, stdout=subprocess.PIPE, check=True).stdout
    assert key_hash(pem) == "sha256:" + hashlib.sha256(bits).hexdigest()
    assert check_hash(key_hash(pem)) == key_hash(pem)


@pytest.mark.parametrize("wrong", ["", "abc", "sha256:abc", "sha1:" + "ab" * 32, "sha256:" + "xy" * 32])
def test_what_is_no_hash_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="no hash"):
        check_hash(wrong)


def test_changes_merge_replace_and_remove() -> None:
    base = {"a": {"x": 1, "y": {"z": 2}}, "list": [1, 2], "gone": "soon"}
    found = merged(base, {"a": {"y": {"z": 3}, "w": None}, "list": [9], "gone": None, "new": {"k": "v"}})
    assert found == {"a": {"x": 1, "y": {"z": 3}}, "list": [9], "new": {"k": "v"}}
    assert base == {"a": {"x": 1, "y": {"z": 2}}, "list": [1, 2], "gone": "soon"}, "not changed in place"


def test_the_last_lines_that_match() -> None:
    log = ["I one\n", "E two\n", "I three\n", "E four\n"]
    assert last_lines(log, 3) == "E two\nI three\nE four"
    assert last_lines(log, 1, "^E") == "E four"
    assert last_lines(log, 5, "five") == "" == last_lines(log, 0)
    with pytest.raises(ConfigError, match="regular expression"):
        last_lines(log, 1, "(")


def test_a_worker_that_does_not_trust_the_cluster_never_starts(tmp_path: Path) -> None:
    server, started = Server(), []

    def refuse(token: Token) -> str:
        raise ConfigError(f"no trust with {token.id}")

    try:
        kube = Kube(kubeconfig(tmp_path, server.port))
        token = Token.parse("abcdef.0123456789abcdef")
        join = Join(
            kube, "worker-3", lambda t: str(started.append(t)), token=token, discover=refuse, limit_s=5
        )
        with pytest.raises(ConfigError, match="no trust with abcdef"):
            join.wait()
    finally:
        server.http.shutdown()
        server.http.server_close()
    assert started == []


def test_a_join_ends_when_its_kubelet_keeps_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.cluster.join._LOOK_S", 0.5)
    server = Server()
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    server.answers[path] = [(200, {"metadata": {"resourceVersion": "1"}, "items": []})]
    try:
        join = Join(
            Kube(kubeconfig(tmp_path, server.port)), "worker-3", lambda _: "started", limit_s=60,
            token=Token.parse("abcdef.0123456789abcdef"), ended=lambda: "4 times so far, exit code 1.",
            cluster="two",
        )  # fmt: skip
        with pytest.raises(ClusterError, match=r"keeps ending.*4 times") as caught:
            join.wait()
    finally:
        server.http.shutdown()
        server.http.server_close()
    assert "labkit logs node-worker-3 -c two" in caught.value.hint


def test_an_address_is_host_and_port() -> None:
    assert check_server("10.0.0.1:6443") == check_server("https://10.0.0.1:6443/") == "10.0.0.1:6443"
    assert check_server("[fd00::1]:6443") == "[fd00::1]:6443"
    for wrong in ("10.0.0.1", "10.0.0.1:", ":6443", "10.0.0.1:port", "https://a/b:1", "a:99999", "a:0"):
        with pytest.raises(ConfigError, match="no address"):
            check_server(wrong)
