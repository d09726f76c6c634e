"""What is sent to a node: an OCI layout of `docker save`'s file, without the layers that the node has."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from labkit.cluster.kind.load import qualified, read, write
from labkit.errors import ImageError

LAYERS = [b"base" * 1000, b"program"]
DIGESTS = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in LAYERS]


def saved(file: Path, members: list[str], *, link: bool = False) -> Path:
    """A file as Docker writes it; the second layer may be a link to a file, as older versions do."""
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": DIGESTS}}).encode()
    manifest = [{"Config": "c.json", "RepoTags": ["shop/catalog:v1"], "Layers": members}]
    content = {"c.json": config, "manifest.json": json.dumps(manifest).encode()}
    content |= dict(zip(members, LAYERS, strict=True))
    with tarfile.open(file, "w") as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            if link and name == members[1]:
                target = tarfile.TarInfo("shared/layer.tar")
                target.size = len(data)
                tar.addfile(target, io.BytesIO(data))
                entry.type, entry.linkname = tarfile.SYMTYPE, "../shared/layer.tar"
                tar.addfile(entry)
                continue
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file


def test_an_image_that_was_not_saved_is_not_taken_for_the_first_one(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.tar", ["a/layer.tar", "b/layer.tar"])
    with pytest.raises(ImageError, match=r"shop/orders:v1 is not in.*shop/catalog:v1"):
        read(file, ["shop/orders:v1"])
    for name in ("shop/catalog:v1", "docker.io/shop/catalog:v1", f"shop/catalog@sha256:{'0' * 64}"):
        assert read(file, [name])[0].name == name


def layout(file: Path, has: set[str]) -> dict[str, bytes]:
    """Path → content of what is sent."""
    stream = io.BytesIO()
    write(stream, file, read(file, ["shop/catalog:v1"]), has)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("members", "link"),
    [(["a/layer.tar", "b/layer.tar"], True), (["blobs/sha256/a", "blobs/sha256/b"], False)],
)
def test_the_layout_is_whole_and_names_the_image(tmp_path: Path, members: list[str], link: bool) -> None:
    sent = layout(saved(tmp_path / "x.tar", members, link=link), set())
    assert json.loads(sent["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(sent["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "docker.io/shop/catalog:v1"
    manifest = json.loads(sent[f"blobs/{entry['digest'].replace(':', '/')}"])
    assert [layer["digest"] for layer in manifest["layers"]] == DIGESTS
    for described in (entry, manifest["config"], *manifest["layers"]):
        content = sent[f"blobs/{described['digest'].replace(':', '/')}"]
        assert len(content) == described["size"]
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == described["digest"]


def test_layers_that_are_there_are_not_sent(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.tar", ["a/layer.tar", "b/layer.tar"])
    sent = layout(file, {DIGESTS[0]})
    assert f"blobs/{DIGESTS[0].replace(':', '/')}" not in sent
    assert sent[f"blobs/{DIGESTS[1].replace(':', '/')}"] == LAYERS[1]


def test_names_are_those_that_containerd_keeps() -> None:
    assert qualified("hello:v1") == "docker.io/library/hello:v1"
    assert qualified("shop/catalog:v1") == "docker.io/shop/catalog:v1"
    assert qualified("quay.io/metallb/speaker:v1") == "quay.io/metallb/speaker:v1"
    assert qualified("localhost/a:v1") == "localhost/a:v1"
