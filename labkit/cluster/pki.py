"""Certificates and keys: authorities, what they sign, and kubeconfigs. ECDSA on P-256 throughout."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from labkit.folders import write

_YEARS = 10


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both as PEM."""

    certificate: bytes
    key: bytes

    def write(self, path: Path) -> None:
        """Write `path`.crt and `path`.key, readable by their owner only."""
        write(path.with_name(path.name + ".crt"), self.certificate)
        write(path.with_name(path.name + ".key"), self.key)


class Authority:
    """A certificate authority."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key
        self.pair = Pair(certificate.public_bytes(Encoding.PEM), _pem(key))

    @classmethod
    def create(cls, name: str) -> Authority:
        """A new one, valid for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        made = (
            _builder(subject, subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(made, key)

    @classmethod
    def load(cls, path: Path) -> Authority:
        """Read `path`.crt and `path`.key."""
        certificate = x509.load_pem_x509_certificate(path.with_name(path.name + ".crt").read_bytes())
        key = load_pem_private_key(path.with_name(path.name + ".key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(certificate, key)

    def issue(
        self,
        name: str,
        *,
        groups: Sequence[str] = (),
        client: bool = False,
        server: bool = False,
        names: Sequence[str] = (),
        addresses: Sequence[IPv4Address] = (),
    ) -> Pair:
        """A certificate with a new key.

        Args:
            name: its CN, the user name where it is a client's.
            groups: its O, the user's groups.
            client, server: what it may be used for.
            names, addresses: under which a server is reached.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(_subject(name, groups), self._certificate.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(issuer, critical=False)
        )
        alternatives: list[x509.GeneralName] = [x509.DNSName(each) for each in names]
        alternatives += [x509.IPAddress(each) for each in addresses]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return Pair(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM), _pem(key))


def key_pair() -> tuple[bytes, bytes]:
    """Private and public key as PEM, for service account tokens."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return _pem(key), public


def kubeconfig(
    cluster: str, server: str, authority: bytes, user: str, pair: Pair | None = None, token: str = ""
) -> str:
    """A kubeconfig file with everything in it, for a client certificate or a token."""
    secret = {"token": token}
    if pair:
        secret = {"client-certificate-data": _b64(pair.certificate), "client-key-data": _b64(pair.key)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": cluster, "cluster": {"server": server, "certificate-authority-data": _b64(authority)}}
        ],
        "users": [{"name": user, "user": secret}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "current-context": cluster,
    }
    return yaml.safe_dump(content, sort_keys=False)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _subject(name: str, groups: Sequence[str] = ()) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=authority, crl_sign=authority,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
