"""Certificates: verified by TLS itself, between a real server and real clients."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from labkit.cluster.addresses import Slot
from labkit.cluster.credentials import USERS, write_credentials
from labkit.cluster.pki import Authority, Pair
from labkit.cluster.state import Directory


def handshake(ca: bytes, server: Pair, client: Pair | None, folder: Path, name: str = "127.0.0.1") -> str:
    """The user a server that demands certificates sees; SSLError when either side refuses."""
    folder.mkdir()
    (folder / "ca.crt").write_bytes(ca)
    server.write(folder / "server")
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.crt")
    accepting.load_cert_chain(folder / "server.crt", folder / "server.key")
    accepting.verify_mode = ssl.CERT_REQUIRED
    calling = ssl.create_default_context(cafile=folder / "ca.crt")
    if client:
        client.write(folder / "client")
        calling.load_cert_chain(folder / "client.crt", folder / "client.key")
    users: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    with accepting.wrap_socket(connection, server_side=True) as secure:
                        peer = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
                        users.append(str(peer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value))
                        secure.sendall(b"hello")
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            plain = socket.create_connection(listener.getsockname(), 5)
            with plain, calling.wrap_socket(plain, server_hostname=name) as secure:
                if secure.recv(5) != b"hello":
                    raise ssl.SSLError("refused")
        finally:
            thread.join(5)
    return users[0]


def test_server_and_client_accept_each_other(tmp_path: Path) -> None:
    ca = Authority.create("test")
    server = ca.issue("server", server=True, addresses=[IPv4Address("127.0.0.1")])
    client = ca.issue("alice", groups=["people"], client=True)
    assert handshake(ca.pair.certificate, server, client, tmp_path / "a") == "alice"


@pytest.mark.parametrize("wrong", ["no certificate", "another authority", "a server's", "another address"])
def test_everything_else_is_refused(tmp_path: Path, wrong: str) -> None:
    ca, other = Authority.create("test"), Authority.create("test")
    server = ca.issue("server", server=True, addresses=[IPv4Address("127.0.0.1")])
    client: Pair | None = ca.issue("alice", client=True)
    if wrong == "no certificate":
        client = None
    elif wrong == "another authority":
        client = other.issue("alice", client=True)
    elif wrong == "a server's":
        client = ca.issue("alice", server=True)
    elif wrong == "another address":
        server = ca.issue("server", server=True, addresses=[IPv4Address("127.0.0.2")])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(ca.pair.certificate, server, client, tmp_path / "a")


def test_an_authority_can_be_read_again(tmp_path: Path) -> None:
    Authority.create("test").pair.write(tmp_path / "ca")
    ca = Authority.load(tmp_path / "ca")
    server = ca.issue("server", server=True, addresses=[IPv4Address("127.0.0.1")])
    assert handshake(ca.pair.certificate, server, ca.issue("bob", client=True), tmp_path / "a") == "bob"


def test_credentials_of_a_cluster_are_private_and_complete(directory: Directory) -> None:
    count = write_credentials(directory, Slot(3))
    files = [path for path in directory.path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {
        stat.S_IMODE(p.stat().st_mode) for p in [directory.path, *directory.path.rglob("*")] if p.is_dir()
    } == {0o700}
    assert len(list(directory.path.rglob("*.crt"))) + len(USERS) == count
    server = x509.load_pem_x509_certificate((directory / "pki/apiserver.crt").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "kubernetes.default.svc" in names.get_values_for_type(x509.DNSName)
    assert {str(a) for a in names.get_values_for_type(x509.IPAddress)} == {
        "127.99.0.1",
        "127.18.192.1",
        "198.18.192.1",
    }


def test_the_users_kubeconfig_is_the_administrators_not_the_masters(directory: Directory) -> None:
    write_credentials(directory, Slot(0))
    content = yaml.safe_load(directory.kubeconfig.read_text())
    assert content["clusters"][0]["cluster"]["server"] == "https://127.18.0.1:6443"
    import base64

    pem = base64.b64decode(content["users"][0]["user"]["client-certificate-data"])
    subject = x509.load_pem_x509_certificate(pem).subject
    groups = [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    assert groups == ["kubeadm:cluster-admins"]
