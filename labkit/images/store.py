"""The image store: tags that point to bundles, shared by all clusters of one user."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from labkit.errors import ImageError
from labkit.folders import data_dir, private, write
from labkit.images.layers import Layers
from labkit.images.names import HOST_IMAGE, normalise
from labkit.images.trees import locked, scratch, tree_digest

_LOCK_WAIT_S = 60.0


@dataclass(frozen=True)
class Image:
    """One bundle and the tags that point to it; the fields are those of an OCI image configuration."""

    digest: str
    tags: tuple[str, ...]
    created: datetime | None
    size_bytes: int
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = "/"
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    path_prepend: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    python: str = ""
    rootfs: Path | None = None
    labels: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    built_in: bool = False

    @property
    def name(self) -> str:
        """Its first tag, or the short digest where none points to it."""
        return self.tags[0] if self.tags else self.short_digest

    @property
    def short_digest(self) -> str:
        return self.digest.removeprefix("sha256:")[:12]


_BUILT_IN = Image(digest="", tags=(HOST_IMAGE,), created=None, size_bytes=0, built_in=True)


def default_root() -> Path:
    """$XDG_DATA_HOME/labkit/images, by default in ~/.local/share."""
    return data_dir() / "images"


class ImageStore:
    """blobs/<digest>/{config.json, rootfs/}, layers/<key>/venv and refs.json below `root`.

    Every change is a rename under a lock, so that a killed process leaves the store as it was.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or default_root()).absolute()
        self.layers = Layers(self.root / "layers")

    def images(self) -> list[Image]:
        """All images by name, the built-in one first, untagged ones last."""
        refs = self._refs()
        blobs = self.root / "blobs"
        present = {path.name for path in blobs.iterdir()} if blobs.is_dir() else set()
        images = [self._image(digest, refs) for digest in present | set(refs.values())]
        return [_BUILT_IN, *sorted(images, key=lambda image: (not image.tags, image.tags, image.digest))]

    def get(self, name: str) -> Image:
        """The image of a name, or of a digest (its first 6 or more digits).

        Raises:
            ImageError: there is none; the hint names similar ones.
        """
        refs = self._refs()
        found = self._digests(name, refs)
        if found == [""]:
            return _BUILT_IN
        if len(found) == 1:
            return self._image(found[0], refs)
        known = ", ".join(sorted(refs)) or "none yet"
        raise ImageError(
            f"There is no image {name!r}." if not found else f"{name!r} is the beginning of several digests.",
            f"Images: {known}. Build one with `labkit image build DIRECTORY -t {name}`.",
        )

    def verify(self, image: Image) -> None:
        """Read every file of the image again.

        Raises:
            ImageError: something was changed or lost since it was built; building again repairs it.
        """
        damage = "" if image.built_in else self.damage(image.digest)
        if damage:
            raise ImageError(f"Image {image.name} is damaged: {damage}.", "Build it again; that repairs it.")

    def damage(self, digest: str) -> str:
        """What is wrong with a bundle, or "" where nothing is."""
        config = self._config(digest)
        if config is None:
            return f"{digest} has no readable config.json"
        if content_digest(config, self.root / "blobs" / digest / "rootfs") != digest:
            return f"the files or the configuration of {digest} have been changed since it was built"
        if config["path_prepend"] != [str(self.layers.path(key) / "bin") for key in config["layers"]]:
            return "it was built in another directory, and virtual environments cannot be moved"
        return next(filter(None, map(self.layers.damage, config["layers"])), "")

    def tag(self, source: str, name: str) -> Image:
        """Let `name` point to the image `source`."""
        image, name = self.get(source), _own(name)
        if image.built_in:
            raise ImageError(f"{HOST_IMAGE} is built in and has no other name.")
        with self._changing() as refs:
            refs[name] = image.digest
        return self.get(name)

    def remove(self, name: str) -> Image:
        """Remove a name (or by digest all names); files go with the last name that needs them."""
        image = self.get(name)
        if image.built_in:
            raise ImageError(f"{HOST_IMAGE} is built in and cannot be removed.")
        with self._changing() as refs:
            by_digest = name.startswith("sha256:") or normalise(name) not in refs
            for tag in image.tags if by_digest else [normalise(name)]:
                refs.pop(tag, None)
            if image.digest not in refs.values():
                shutil.rmtree(self.root / "blobs" / image.digest, ignore_errors=True)
        self.collect()
        return image

    def collect(self, untagged: bool = False) -> None:
        """Remove Python layers that no image uses, and with `untagged` also images without a name.

        While a build runs, nothing is removed: its layers belong to no image yet.
        """
        try:
            with locked(self._building, 0, "builds"):
                for image in self.images():
                    if untagged and not image.tags and not image.built_in:
                        shutil.rmtree(self.root / "blobs" / image.digest, ignore_errors=True)
                needed = {key for image in self.images() for key in image.layers}
                present = self.layers.root.iterdir() if self.layers.root.is_dir() else []
                for directory in {path for path in present if path.is_dir() and path.name not in needed}:
                    shutil.rmtree(directory, ignore_errors=True)
        except ImageError:
            if self._building.exists() and untagged:
                raise

    def add(self, name: str, config: dict[str, Any], rootfs: Path) -> Image:
        """Let `name` point to a bundle made of `config` and the files in `rootfs`, which is moved away."""
        digest = content_digest(config, rootfs)
        config = {"digest": digest, **config}
        blob = self.root / "blobs" / digest
        with self._changing() as refs:
            if self.damage(digest):
                shutil.rmtree(blob, ignore_errors=True)
                bundle = rootfs.parent / "bundle"
                bundle.mkdir(mode=0o700)
                (bundle / "config.json").write_text(json.dumps(config, indent=1))
                rootfs.rename(bundle / "rootfs")
                blob.parent.mkdir(mode=0o700, exist_ok=True)
                bundle.rename(blob)
            refs[_own(name)] = digest
        return self.get(digest)

    @contextmanager
    def building(self) -> Iterator[Path]:
        """A temporary directory on the store's file system; nothing is collected meanwhile."""
        with (
            locked(self._building, _LOCK_WAIT_S, "removing images", shared=True),
            scratch(self.root / "tmp") as path,
        ):
            yield path

    @property
    def _building(self) -> Path:
        return self.root / "build.lock"

    def _digests(self, name: str, refs: dict[str, str]) -> list[str]:
        digits = name.removeprefix("sha256:")
        full = name if digits != name else normalise(name)
        if full == HOST_IMAGE or full in refs:
            return [refs.get(full, "")]
        if len(digits) < 6 or not set(digits) <= set("0123456789abcdef"):
            return []
        return [path.name for path in (self.root / "blobs").glob(f"sha256:{digits}*")]

    def _image(self, digest: str, refs: dict[str, str]) -> Image:
        config = self._config(digest)
        tags = tuple(sorted(tag for tag, target in refs.items() if target == digest))
        if config is None:
            return Image(digest, tags, None, 0, notes=("damaged: build it again",))
        return Image(
            digest=digest,
            tags=tags,
            created=datetime.fromisoformat(config["created"]),
            size_bytes=int(config["size_bytes"]),
            labels=tuple(sorted(config["labels"].items())),
            rootfs=self.root / "blobs" / digest / "rootfs",
            workdir=config["workdir"],
            user=config["user"],
            python=config["python"],
            **{key: tuple(config[key]) for key in _LISTS},  # type: ignore[arg-type]
        )

    def _config(self, digest: str) -> dict[str, Any] | None:
        try:
            config = json.loads((self.root / "blobs" / digest / "config.json").read_text())
        except (OSError, ValueError):
            return None
        return (
            config
            if isinstance(config, dict) and {*_HASHED, "created", "size_bytes"} <= set(config)
            else None
        )

    def _refs(self) -> dict[str, str]:
        file = self.root / "refs.json"
        try:
            refs = json.loads(file.read_text())
            return {str(name): str(digest) for name, digest in refs.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as err:
            raise ImageError(
                f"The list of images {file} cannot be read: {err}.",
                "Delete that file and build the images again.",
            ) from err

    @contextmanager
    def _changing(self) -> Iterator[dict[str, str]]:
        """The tags, to be changed in place under the lock; written when the block ends well."""
        private(self.root)
        with locked(self.root / "refs.lock", _LOCK_WAIT_S, "the list of images"):
            refs = self._refs()
            yield refs
            write(self.root / "refs.json", json.dumps(refs, indent=1, sort_keys=True))


_LISTS = ("env", "entrypoint", "cmd", "exposed_ports", "path_prepend", "layers", "notes")
_HASHED = (*_LISTS, "workdir", "user", "labels", "python")


def content_digest(config: dict[str, Any], rootfs: Path) -> str:
    """`sha256:…` over the configuration and the files; not over times, sizes or where the store is."""
    parts = {key: config.get(key) for key in _HASHED if key != "path_prepend"}
    parts["rootfs"] = tree_digest(rootfs) if rootfs.is_dir() else ""
    return f"sha256:{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}"


def _own(name: str) -> str:
    full = normalise(name)
    if full == HOST_IMAGE:
        raise ImageError(f"{HOST_IMAGE} is built in.", "Choose another name.")
    return full
