"""Images of the engine into node containers: what `kind load` does, but for layers that a node has already.

`kind load` sends each image whole to each node. Images of one course share nearly everything, so a node is
asked what it has, and gets an OCI layout (github.com/opencontainers/image-spec, image-layout.md) of the rest.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from labkit.children import limited
from labkit.cluster.kind.engine import Engine
from labkit.cluster.phases import Step
from labkit.errors import ClusterError, ImageError, MachineError

_SAVE_S = 600
_IMPORT_S = 600
_CTR = ("ctr", "--namespace=k8s.io")
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class Saved:
    """An image in a file that `docker save` wrote.

    Attributes:
        config: its configuration, as it is in the file.
        layers: digest of each layer's tar → its member in the file, in order.
    """

    name: str
    config: bytes
    layers: dict[str, str]
    sizes: dict[str, int]


def load(engine: Engine, names: Sequence[str], containers: Sequence[str], step: Step) -> None:
    """Let nodes have images under their names.

    Args:
        containers: node containers that run.

    Raises:
        ImageError: the engine has no such image.
        ClusterError, MachineError: a node does not take it.
    """
    if not names or not containers:
        return
    step.tell(f"loading {', '.join(names)} into {len(containers)} nodes")
    with tempfile.TemporaryDirectory(prefix="labkit-image-") as folder:
        file = Path(folder) / "images.tar"
        engine.run("save", "-o", str(file), *names, limit_s=_SAVE_S, failure=_not_saved)
        images = read(file, names)
        with ThreadPoolExecutor(len(containers)) as pool:
            for done in [pool.submit(_load, engine, file, images, each) for each in containers]:
                done.result()


def read(file: Path, names: Sequence[str]) -> list[Saved]:
    """What a file of `docker save` has, by its manifest.json, which every version of Docker writes."""
    with tarfile.open(file) as tar:
        entries = json.loads(_content(tar, "manifest.json"))
        by_tag = {qualified(tag): entry for entry in entries for tag in entry.get("RepoTags") or []}
        found = []
        for name in names:
            entry = by_tag.get(qualified(name)) or by_tag.get(f"{qualified(name)}:latest")
            if entry is None and "@" in name and len(entries) == 1:
                entry = entries[0]  # asked for by its digest, an image has no tag in the file
            if entry is None:
                raise ImageError(
                    f"{name} is not in what the engine saved; that has {', '.join(by_tag) or 'no tag'}.",
                    f"Look at `docker image ls`, or tag it: docker tag IMAGE {name}",
                )
            config = _content(tar, entry["Config"])
            digests = json.loads(config)["rootfs"]["diff_ids"]
            members = dict(zip(digests, entry["Layers"], strict=True))
            found.append(Saved(name, config, members, {d: _size(tar, m) for d, m in members.items()}))
        return found


def _load(engine: Engine, file: Path, images: Sequence[Saved], container: str) -> None:
    has = set(engine.exec(container, *_CTR, "content", "ls", "-q").split())
    if _send(engine, file, images, container, has):
        _send(engine, file, images, container, set(), last=True)  # what it had was removed meanwhile


def _send(
    engine: Engine, file: Path, images: Sequence[Saved], container: str, has: set[str], *, last: bool = False
) -> str:
    """Stream a layout into `ctr images import`; what it said when it failed, "" when it did not.

    Raises:
        MachineError, ClusterError: it failed at the last attempt, or the engine is at fault.
    """
    argv = [engine.program, "exec", "-i", container, *_CTR, "images", "import", "--all-platforms", "-"]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )

    def late() -> ClusterError:
        return ClusterError(f"{container} has not taken the image within {_IMPORT_S} s.")

    with limited(process, _IMPORT_S, late):
        assert process.stdin
        with suppress(BrokenPipeError):  # what it says tells why
            write(process.stdin, file, images, has)
        said = process.communicate()[0].decode(errors="replace")
    if process.returncode == 0:
        return ""
    known = Engine.fault(said)
    if isinstance(known, MachineError) or last:
        why = (said.strip().splitlines() or ["no reason given"])[-1]
        names = ", ".join(image.name for image in images)
        raise (
            known
            if isinstance(known, MachineError)
            else ClusterError(f"{container} does not take {names}: {why}")
        )
    return said or "failed"


def write(stream: IO[bytes], file: Path, images: Sequence[Saved], has: set[str]) -> None:
    """Write an OCI layout with everything but the layers that there are already."""
    with tarfile.open(file) as source, tarfile.open(fileobj=stream, mode="w|") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        sent, manifests = set(has), []
        for image in images:
            for digest, member in image.layers.items():
                if digest not in sent:
                    _copy(source, member, tar, digest, image.sizes[digest])
                    sent.add(digest)
            manifests.append(_manifest(tar, image))
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
        _add(tar, "index.json", json.dumps(index).encode())


def _manifest(tar: tarfile.TarFile, image: Saved) -> dict[str, Any]:
    """Add an image's configuration and manifest; returns the entry for the index."""
    layers = [{"mediaType": _LAYER, "digest": d, "size": image.sizes[d]} for d in image.layers]
    manifest = {
        "schemaVersion": 2, "mediaType": _MANIFEST, "layers": layers,
        "config": {"mediaType": _CONFIG, "digest": _digest(image.config), "size": len(image.config)},
    }  # fmt: skip
    text = json.dumps(manifest).encode()
    for blob in (image.config, text):
        _add(tar, _path(_digest(blob)), blob)
    config = json.loads(image.config)
    return {
        "mediaType": _MANIFEST, "digest": _digest(text), "size": len(text),
        "platform": {"os": config.get("os", "linux"), "architecture": config.get("architecture", "amd64")},
        "annotations": {
            "io.containerd.image.name": qualified(image.name),
            "org.opencontainers.image.ref.name": image.name.rpartition(":")[2],
        },
    }  # fmt: skip


def qualified(name: str) -> str:
    """The name as containerd keeps it: hello:v1 → docker.io/library/hello:v1."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def _copy(source: tarfile.TarFile, member: str, tar: tarfile.TarFile, digest: str, size: int) -> None:
    content = source.extractfile(member)
    assert content
    entry = tarfile.TarInfo(_path(digest))
    entry.size = size
    tar.addfile(entry, content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    assert member
    return member.read()


def _size(tar: tarfile.TarFile, name: str) -> int:
    """Of the file that a member is or leads to."""
    member = tar.extractfile(name)
    assert member
    return member.seek(0, io.SEEK_END)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _not_saved(said: str) -> ImageError:
    return ImageError(f"The engine has not got the image: {said.strip().splitlines()[-1]}", "Build it first.")
