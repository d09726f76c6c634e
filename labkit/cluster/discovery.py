"""What a machine needs to join: a token and the hash of the authority's key; finding the cluster."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from labkit.cluster.join import TOKEN_MINUTES, Token
from labkit.cluster.objects import path_of
from labkit.cluster.waiting import wait_for
from labkit.errors import ClusterError, ConfigError
from labkit.kube import Kube, dig

DISCOVERY_S = 6.0
"""How long a worker looks for its cluster; `kubeadm join` takes five minutes."""
_CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
_SIGNED_S = 20.0


@dataclass(frozen=True)
class JoinToken:
    """What `kubeadm token create --print-join-command` would print.

    Attributes:
        token: "id.secret"; neither `str` nor `repr` shows the secret.
        ca_cert_hash: "sha256:" and the hash of the authority's public key (its SubjectPublicKeyInfo) in hex.
        expires_at: seconds since 1970.
    """

    server: str
    token: str = field(repr=False)
    ca_cert_hash: str
    expires_at: float

    @property
    def id(self) -> str:
        """The public part of the token."""
        return self.token.partition(".")[0]

    @property
    def seconds_left(self) -> float:
        """How long it is still valid; negative when it is not any more."""
        return self.expires_at - time.time()

    def __str__(self) -> str:
        return (
            f"kubeadm join {self.server.removeprefix('https://')} --token {self.id}.****** \\\n"
            f"    --discovery-token-ca-cert-hash {self.ca_cert_hash}"
        )


def create_join_token(kube: Kube, seconds: float = 60 * TOKEN_MINUTES) -> JoinToken:
    """Make a bootstrap token; returns when the controller manager has signed cluster-info for it.

    Args:
        seconds: how long it is valid, 2 or more. The token cleaner then removes it.

    Raises:
        ConfigError: it would be valid for less.
        WaitTimeout: nobody signs.
    """
    if seconds < 2:
        raise ConfigError(f"A token of {seconds:g} s would have expired before anybody can use it.")
    token = Token.random()
    secret = token.manifest("a worker", approve=True, seconds=seconds)
    kube.request("POST", path_of(secret).rpartition("/")[0], body=secret)
    expires_at = time.time() + seconds
    signature = f"jws-kubeconfig-{token.id}"

    def over_or_signed() -> bool:
        return time.time() > expires_at or signature in kube.request("GET", _CLUSTER_INFO)["data"]

    wait_for(over_or_signed, _SIGNED_S, "cluster-info is signed for the new token")
    server, authority = cluster_info(kube)
    return JoinToken(server, str(token), key_hash(authority), expires_at)


def cluster_info(kube: Kube) -> tuple[str, bytes]:
    """The API server's URL and the authority's certificate (PEM), as announced to whoever joins."""
    text = dig(kube.request("GET", _CLUSTER_INFO), "data.kubeconfig", "")
    known = yaml.safe_load(text)["clusters"][0]["cluster"]
    return known["server"], base64.b64decode(known["certificate-authority-data"])


def key_hash(certificate: bytes) -> str:
    """kubeadm's pin of an authority: "sha256:" and the hash of its SubjectPublicKeyInfo in hex.

    Args:
        certificate: PEM.
    """
    key = x509.load_pem_x509_certificate(certificate).public_key()
    return (
        "sha256:"
        + hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    )


def check_hash(text: str) -> str:
    """Refuse what cannot be a hash.

    Raises:
        ConfigError: it is not "sha256:" and 64 hexadecimal digits.
    """
    kind, _, digits = text.partition(":")
    if kind.lower() != "sha256" or len(digits) != 64 or set(digits.lower()) - set("0123456789abcdef"):
        raise ConfigError(
            f"{text!r} is no hash of a certificate's key.", "sha256: and 64 hexadecimal digits."
        )
    return text


def check_server(text: str) -> str:
    """The host:port of an API server, given so or as a URL.

    Raises:
        ConfigError: it is neither.
    """
    host, _, port = text.removeprefix("https://").rstrip("/").rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{text!r} is no address of an API server.", "host:port, as in 10.0.0.1:6443.")
    return f"{host}:{port}"


def discover(
    kube: Path, server: str, token: Token, ca_cert_hash: str, bootstrap: Path, log: Path, limit_s: float
) -> str:
    """Find the cluster and come to trust it, with kubeadm's code; write the kubelet's bootstrap kubeconfig.

    Args:
        kube: the cluster's program.
        log: kubeadm's words are added to it.

    Returns:
        What was found, for people.

    Raises:
        ClusterError: not within `limit_s`, or it cannot be trusted; with kubeadm's words.
    """
    argv = [
        str(kube), "join", "--server", server.removeprefix("https://"), "--timeout", f"{limit_s}s",
        "--discovery-token-ca-cert-hash", ca_cert_hash, "--bootstrap-kubeconfig", str(bootstrap),
    ]  # fmt: skip
    done = subprocess.run(
        argv, input=f"{token}\n", capture_output=True, text=True, timeout=limit_s + 30, check=False
    )
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("a") as stream:
        stream.write(done.stderr)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1].removeprefix("join: ")
        raise no_trust(server, said)
    return found(server, ca_cert_hash)


def found(server: str, ca_cert_hash: str) -> str:
    """What a successful discovery has found, for people."""
    return f"{server}, its authority's key is {ca_cert_hash[:19]}…"


def no_trust(server: str, said: str) -> ClusterError:
    """The error of a discovery that failed.

    Args:
        said: kubeadm's words.
    """
    return ClusterError(
        f"The worker does not trust the cluster at {server}: {said}",
        "`kubectl get secrets -n kube-system --field-selector type=bootstrap.kubernetes.io/token` lists "
        "the tokens that there are; cluster.join_token() makes a new one and tells the right hash.",
    )
