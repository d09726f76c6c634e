"""All images in one file for a classroom: a ZIP with Docker's archive and a description with its checksum."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from labkit.acquire.sources import target
from labkit.airgap.build import Builder
from labkit.airgap.docker import Docker
from labkit.airgap.specs import catalogue
from labkit.errors import ConfigError, ImageError, MachineError
from labkit.folders import replacing
from labkit.phases import Listener, phase
from labkit.versions import versions

FORMAT = 1
_IMAGES, _ABOUT = "images.tar", "labkit-airgap.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Packed:
    """What a file holds.

    Attributes:
        format: of the file.
        kubernetes: version of the node image.
        platform: such as "linux-amd64".
        created: ISO 8601, UTC.
        images: short name → tag.
        sha256, size_bytes: of Docker's archive in it.
    """

    format: int
    kubernetes: str
    platform: str
    created: str
    images: dict[str, str]
    sha256: str
    size_bytes: int


def save(file: Path, listener: Listener, docker: Docker | None = None) -> Packed:
    """Write all images that a cluster is made of into one file. It appears whole or not at all.

    Raises:
        ConfigError: the file's folder does not exist.
        ImageError: images are missing.
        MachineError: the disk is full.
    """
    engine, known = docker or Docker(), catalogue()
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"There is no folder {file.absolute().parent}.")
    tags = {spec.short: known.tag(spec) for spec in known.shipped()}
    has = engine.inspect(list(tags.values()))
    missing = [short for short, tag in tags.items() if tag not in has]
    if missing:
        raise ImageError(f"Docker has not got {', '.join(missing)} yet.", "First: labkit airgap build")
    expected = sum(int(raw["Size"]) for raw in has.values())
    try:
        with phase("save", listener, str(file)) as step, replacing(file.absolute(), 0o644) as part:
            packed = _write(
                part, tags, engine, lambda n: step.tell(f"{n / 1e9:.2f} GB read", min(0.99, n / expected))
            )
            step.tell(f"{file}: {len(tags)} images, {part.tell() / 1e6:.0f} MB")
    except OSError as err:
        raise MachineError(f"{file} cannot be written: {err.strerror}.", "Is the disk full?") from err
    return packed


def _write(out: Any, tags: dict[str, str], engine: Docker, progress: Callable[[int], None]) -> Packed:
    digest, size = hashlib.sha256(), 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(_IMAGES, "w", force_zip64=True) as member:

            def take(piece: bytes) -> None:
                nonlocal size
                member.write(piece)
                digest.update(piece)
                size += len(piece)
                progress(size)

            engine.save(list(tags.values()), take)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        packed = Packed(FORMAT, versions().kubernetes, target(), now, tags, digest.hexdigest(), size)
        archive.writestr(_ABOUT, json.dumps(asdict(packed), indent=1))
    return packed


def contents(file: Path) -> Packed:
    """What a file says that it holds.

    Raises:
        ImageError: it is no such file, damaged or cut off.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            raw = json.loads(archive.read(_ABOUT))
            archive.getinfo(_IMAGES)
            packed = Packed(**raw)
    except FileNotFoundError as err:
        raise ImageError(f"There is no file {file}.") from err
    except OSError as err:
        raise ImageError(f"{file} cannot be read: {err.strerror}.") from err
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError, NotImplementedError) as err:
        raise ImageError(
            f"{file} is damaged or cut off, or was not made by `labkit airgap save`: {err}.",
            "Copy it again, and compare its size with the original's.",
        ) from err
    if packed.format != FORMAT:
        raise ImageError(
            f"{file} has format {packed.format}; this labkit reads {FORMAT}.",
            "Save it with this version of labkit.",
        )
    return packed


def load(file: Path, listener: Listener, docker: Docker | None = None) -> Packed:
    """Let Docker have the images of a file; they are checked first, and a damaged file changes nothing.

    Raises:
        ImageError: the file is damaged, cut off, or for another kind of machine.
        AcquireError, MachineError: Docker refused it.
    """
    engine = docker or Docker()
    packed = contents(file)
    if packed.platform != target():
        raise ImageError(f"{file} is for {packed.platform}; this machine is {target()}.")
    engine.info()
    with phase("check", listener, "its checksum") as step:
        verify(file, packed, lambda n: step.tell(f"{n / 1e9:.2f} GB", n / max(1, packed.size_bytes)))
        step.tell(f"the checksum of {packed.size_bytes / 1e9:.2f} GB is right")
    with phase("load", listener, "handing it to Docker") as step, zipfile.ZipFile(file) as archive:

        def write(stream: IO[bytes]) -> None:
            done = 0
            with archive.open(_IMAGES) as member:
                while piece := member.read(_CHUNK):
                    stream.write(piece)
                    done += len(piece)
                    step.tell(f"{done / 1e9:.2f} GB", done / max(1, packed.size_bytes))

        engine.load(write)
        step.tell(f"{len(packed.images)} images of Kubernetes {packed.kubernetes}")
        _finish(packed, engine, listener, step.note)
    return packed


def _finish(packed: Packed, engine: Docker, listener: Listener, note: Callable[[str], None]) -> None:
    """Give upstream's names, and say which images this version of labkit would have made in another way."""
    known = catalogue()
    fits = [spec for spec in known.shipped() if packed.images.get(spec.short) == known.tag(spec)]
    others = sorted(set(packed.images) - {spec.short for spec in fits})
    if others:
        note(f"made by another version of labkit, which this one would make anew: {', '.join(others)}")
    Builder(known, engine, listener).make(fits)


def verify(file: Path, packed: Packed, progress: Callable[[int], None] = lambda _: None) -> None:
    """Read a file through and compare its checksum.

    Raises:
        ImageError: it is damaged.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(file) as archive, archive.open(_IMAGES) as member:
            while piece := member.read(_CHUNK):
                digest.update(piece)
                size += len(piece)
                progress(size)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as err:
        raise _damaged(file, str(err)) from err
    if digest.hexdigest() != packed.sha256:
        raise _damaged(file, "its checksum is another one")


def _damaged(file: Path, why: str) -> ImageError:
    return ImageError(f"{file} is damaged: {why}.", "Nothing was changed. Copy the file again.")
