"""Official images: the path of a machine with a network, against a registry on this one."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from labkit.cluster.kind.engine import Engine
from labkit.cluster.kind.registry import Digests, Unavailable, choose, mirrored, pull
from labkit.errors import AcquireError, ImageError, MachineError

from .conftest import free_port

pytestmark = pytest.mark.timeout(1500)  # the first of them compiles the registry
NAME = "registry.k8s.io/labkit-test/tiny:v1"
OTHER = "labkit-test/node:v1"


@pytest.fixture
def digests(tmp_path: Path) -> Digests:
    return Digests(tmp_path / "data" / "digests.json")


@pytest.fixture
def tiny(engine: Engine, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes small images in the engine: tiny("text") → its ID; they go with the test."""
    made: list[str] = []

    def make(text: str) -> str:
        (tmp_path / "note").write_text(text)
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY note /\n")
        made.append(f"labkit-test/{hashlib.sha256(text.encode()).hexdigest()[:8]}")
        engine.run("build", "-q", "-t", made[-1], str(tmp_path))
        return made[-1]

    yield make
    engine.attempt("rmi", "-f", *made, NAME, OTHER)


def publish(engine: Engine, registry: str, image: str, name: str) -> str:
    """Push an image of the engine to the registry; its digest."""
    there = f"{registry}/{name}"
    engine.run("tag", image, there)
    said = engine.run("push", there)
    engine.run("rmi", there)
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
    assert found
    return found[1]


@pytest.fixture
def mirror(registry: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The registry as a school would name it."""
    monkeypatch.setenv("LABKIT_REGISTRY", registry)
    return registry


def test_a_mirror_keeps_names_without_their_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mirrored("quay.io/a/b:v1") == "quay.io/a/b:v1"
    monkeypatch.setenv("LABKIT_REGISTRY", "mirror.school:5000/labs/")
    assert mirrored("quay.io/a/b:v1") == "mirror.school:5000/labs/a/b:v1"
    assert mirrored("kindest/node:v1") == "mirror.school:5000/labs/kindest/node:v1"


def test_an_image_is_pulled_and_its_digest_remembered(
    engine: Engine, mirror: str, digests: Digests, tiny: Callable[[str], str]
) -> None:
    first = publish(engine, mirror, tiny("one"), "labkit-test/tiny:v1")
    told: list[str] = []
    assert pull(engine, NAME, told.append, digests=digests).digest == first
    assert engine.image(NAME) is not None and told
    assert digests.known(NAME) == first
    assert pull(engine, NAME, told.append, digests=digests).digest == first
    assert oct(digests.file.stat().st_mode)[-3:] == "600"


def test_an_image_that_was_published_anew_is_not_used(
    engine: Engine, mirror: str, digests: Digests, tiny: Callable[[str], str]
) -> None:
    publish(engine, mirror, tiny("one"), "labkit-test/tiny:v1")
    pull(engine, NAME, lambda _: None, digests=digests)
    before = (engine.image(NAME) or {})["Id"]
    publish(engine, mirror, tiny("another"), "labkit-test/tiny:v1")
    with pytest.raises(AcquireError, match="when it was first pulled") as caught:
        pull(engine, NAME, lambda _: None, digests=digests)
    assert str(digests.file) in caught.value.hint
    assert (engine.image(NAME) or {})["Id"] == before


def test_a_pinned_image_is_pulled_by_its_digest(
    engine: Engine, mirror: str, digests: Digests, tiny: Callable[[str], str]
) -> None:
    pinned = publish(engine, mirror, tiny("node"), OTHER)
    publish(engine, mirror, tiny("changed"), OTHER)  # the tag means something else now
    assert pull(engine, f"{OTHER}@{pinned}", lambda _: None, digests=digests).digest == pinned
    with pytest.raises(Unavailable, match="404"):
        pull(engine, f"{OTHER}@sha256:{'0' * 64}", lambda _: None, digests=digests)


def test_a_registry_without_the_image_says_404(engine: Engine, mirror: str, digests: Digests) -> None:
    with pytest.raises(Unavailable, match=re.escape(f"{mirror} has no")):
        pull(engine, "labkit-test/nobody:v1", lambda _: None, digests=digests)


def test_nothing_listens(engine: Engine, digests: Digests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_REGISTRY", f"127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="cannot be reached"):
        pull(engine, NAME, lambda _: None, digests=digests)


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """A registry that answers as told: a status, late, or with other content than was asked for."""
    how: dict[str, object] = {"status": 200, "wait_s": 0.0, "body": b"{}"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(float(str(how["wait_s"])))
            body = how["body"] if "/manifests/" in self.path else b"{}"
            assert isinstance(body, bytes)
            try:
                self.send_response(int(str(how["status"])))
                self.send_header("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)
            except OSError:
                pass

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("LABKIT_REGISTRY", f"127.0.0.1:{server.server_port}")
    yield how
    server.shutdown()
    server.server_close()


def test_a_registry_that_forbids_is_named(engine: Engine, liar: dict[str, object], digests: Digests) -> None:
    liar["status"] = 403
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+ (refuses|cannot be reached)"):
        pull(engine, NAME, lambda _: None, digests=digests)


def test_a_registry_that_does_not_answer_is_given_up(
    engine: Engine, liar: dict[str, object], digests: Digests
) -> None:
    liar["wait_s"] = 20
    begin = time.monotonic()
    with pytest.raises(Unavailable, match="has sent nothing for 1 s"):
        pull(engine, NAME, lambda _: None, digests=digests, first_word_s=1)
    assert time.monotonic() - begin < 15


def test_content_that_does_not_have_its_digest_is_refused(
    engine: Engine, liar: dict[str, object], digests: Digests
) -> None:
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
    liar["body"] = json.dumps(manifest).encode()
    with pytest.raises(AcquireError, match="does not have its digest"):
        pull(engine, f"{NAME}@sha256:{'1' * 64}", lambda _: None, digests=digests)


def test_the_source_is_chosen_by_itself_and_said_in_one_line() -> None:
    def gone() -> str:
        raise Unavailable("docker.io cannot be reached: no such host")

    notes: list[str] = []
    assert choose("auto", lambda: "official:v1", lambda: "built:v1", notes.append)[0] == "official:v1"
    assert choose("airgap", gone, lambda: "built:v1", notes.append)[0] == "built:v1"
    assert notes == []
    assert choose("auto", gone, lambda: "built:v1", notes.append) == (
        "built:v1",
        "built here from package registries",
    )
    assert len(notes) == 1 and "docker.io cannot be reached" in notes[0]
    with pytest.raises(AcquireError, match="no such host") as caught:
        choose("registry", gone, lambda: "built:v1", notes.append)
    assert "airgap" in caught.value.hint

    def cannot() -> str:
        raise ImageError("debootstrap is missing.", "Install it.")

    with pytest.raises(
        ImageError, match="no such host, and it cannot be built here: debootstrap is missing"
    ) as both:
        choose("auto", gone, cannot, notes.append)
    assert "Install it." in both.value.hint


def test_damaged_records_are_told(digests: Digests) -> None:
    digests.check("a:v1", "sha256:1")
    digests.file.write_text("{")
    with pytest.raises(MachineError, match="is damaged"):
        digests.known("a:v1")
