"""What images there are: airgap/images.toml, and those of one program in versions.toml."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from labkit.acquire import program_key, source_key
from labkit.errors import ConfigError, ImageError
from labkit.versions import UpstreamImage, versions

REPOSITORY = "labkit-airgap"
NODE = "node"
_FORMAT = 1
"""Part of every key: raise it when the same data would give another image."""
_LISTS = {"names", "packages", "env", "entrypoint", "cmd", "setuid", "baked"}


@dataclass(frozen=True)
class Spec:
    """One image; the fields are explained in airgap/images.toml."""

    short: str
    names: tuple[str, ...] = ()
    about: str = ""
    base: str = ""
    recipe: str = ""
    packages: tuple[str, ...] = ()
    programs: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    setuid: tuple[str, ...] = ()
    baked: tuple[str, ...] = ()
    part: bool = False
    machine: bool = False
    bootstrap: bool = False


@dataclass(frozen=True)
class Catalogue:
    """All images, bases before what is made of them.

    Attributes:
        folder: with images.toml and the recipes.
        suite, mirror: of Debian.
        specs: by short name.
    """

    folder: Path
    suite: str
    mirror: str
    specs: dict[str, Spec]

    def named(self, name: str) -> Spec:
        """The image with a short name, or a name of upstream's.

        Raises:
            ImageError: there is none.
        """
        wanted = _full(name)
        for spec in self.specs.values():
            if name == spec.short or wanted in map(_full, spec.names):
                return spec
        raise ImageError(
            f"labkit cannot make the image {name!r} itself.",
            f"It makes: {', '.join(n for s in self.specs.values() for n in s.names or (s.short,))}. "
            "A table in airgap/images.toml adds one.",
        )

    def tag(self, spec: Spec) -> str:
        """Name under which Docker keeps exactly this content."""
        return f"{REPOSITORY}/{spec.short}:{self.key(spec)}"

    def key(self, spec: Spec) -> str:
        """Digest of everything that decides what is in an image, 12 hexadecimal digits.

        The versions of Debian's packages are not known before; they are those of the day it is built.
        """
        known = {
            **_described(spec),
            "about": "",
            "names": "" if not spec.recipe else list(spec.names),
            "part": "",
        }
        digest = hashlib.sha256(json.dumps([_FORMAT, known], sort_keys=True).encode())
        digest.update(self.suite.encode())
        for program in sorted(set(spec.programs.values())):
            digest.update(_program_key(program).encode())
        for name, content in self.recipe_files(spec):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        for other in (*filter(None, (spec.base,)), *spec.baked):
            digest.update(self.key(self.specs[other]).encode())
            digest.update(json.dumps(self.specs[other].names).encode())
        return digest.hexdigest()[:12]

    def recipe_files(self, spec: Spec) -> Iterator[tuple[str, bytes]]:
        """The files of a recipe's folder: relative name, content."""
        if spec.recipe:
            root = self.folder / spec.recipe
            for path in sorted(root.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    yield str(path.relative_to(root)), path.read_bytes()

    def shipped(self) -> list[Spec]:
        """What a cluster is made of: all but the parts."""
        return [spec for spec in self.specs.values() if not spec.part]


@cache
def catalogue() -> Catalogue:
    """Read airgap/images.toml and the images of versions.toml.

    Raises:
        ConfigError: a table is wrong; the message names it.
    """
    return extended({})


def extended(tables: Mapping[str, Mapping[str, Any]]) -> Catalogue:
    """The catalogue with more images: short name → what a table of images.toml would say.

    Raises:
        ConfigError: a table is wrong; the message names it.
    """
    folder = _folder()
    try:
        raw = tomllib.loads((folder / "images.toml").read_text())
    except (OSError, tomllib.TOMLDecodeError) as err:
        raise ConfigError(f"{folder / 'images.toml'} cannot be read: {err}") from err
    images = {**raw.get("images", {}), **tables}
    return parse({**raw, "images": images}, folder, versions().images)


def parse(raw: dict[str, Any], folder: Path, upstream: dict[str, UpstreamImage]) -> Catalogue:
    """A catalogue from what a TOML file says.

    Args:
        upstream: images of one program by name; those that no table mentions are added as they are.

    Raises:
        ConfigError: a table is wrong; the message names it.
    """
    specs: dict[str, Spec] = {}
    taken = set()
    for short, table in raw.get("images", {}).items():
        entry = dict(table)
        name = entry.pop("upstream", None)
        if name is not None:
            if name not in upstream:
                raise ConfigError(f"images.{short}: versions.toml has no image {name!r}.")
            taken.add(name)
            entry = {**_of_program(name, upstream[name]), **entry}
        specs[short] = _spec(short, entry, specs, folder)
    mentioned = {_full(name) for spec in specs.values() for name in spec.names}
    for name, image in upstream.items():
        if name not in taken and _full(name) not in mentioned:
            short = "-".join(name.rsplit(":", 1)[0].split("/")[1:])
            specs[short] = _spec(short, _of_program(name, image), specs, folder)
    debian = raw.get("debian", {})
    mirror = os.environ.get("LABKIT_DEBIAN_MIRROR") or debian.get("mirror", "")
    return Catalogue(folder, debian.get("suite", ""), mirror, specs)


def _of_program(name: str, image: UpstreamImage) -> dict[str, Any]:
    return {
        "names": [name],
        "about": f"upstream's {image.program}",
        "programs": {image.path: image.program, **image.others},
        "links": dict.fromkeys(image.links, image.path),
        "env": list(image.env),
        "entrypoint": [image.path] if image.entrypoint is None else list(image.entrypoint),
        "user": image.user,
        "files": dict(image.files),
    }


def _spec(short: str, table: dict[str, Any], before: dict[str, Spec], folder: Path) -> Spec:
    known = {each.name for each in fields(Spec)} - {"short"}
    wrong = sorted(set(table) - known)
    if wrong:
        raise ConfigError(
            f"images.{short}: unknown {', '.join(wrong)}.", f"Known: {', '.join(sorted(known))}."
        )
    values: dict[str, Any] = {key: tuple(value) if key in _LISTS else value for key, value in table.items()}
    values["names"] = tuple(n.format(kubernetes=versions().kubernetes) for n in values.get("names", ()))
    spec = Spec(short, **values)
    for other in (*filter(None, (spec.base,)), *spec.baked):
        if other not in before:
            raise ConfigError(f"images.{short}: {other!r} must be a table before it.")
    if spec.recipe and not (folder / spec.recipe / "Dockerfile").is_file():
        raise ConfigError(f"images.{short}: there is no {folder / spec.recipe / 'Dockerfile'}.")
    if spec.packages and not spec.base:
        raise ConfigError(f"images.{short}: packages need a base with apt.")
    for path in spec.setuid:
        if path not in spec.programs:
            raise ConfigError(f"images.{short}: setuid names {path}, which is not one of its programs.")
    for program in spec.programs.values():
        if program not in {"kube", "kubectl"} and program not in versions().programs:
            raise ConfigError(f"images.{short}: versions.toml has no program {program!r}.")
    return spec


def _described(spec: Spec) -> dict[str, Any]:
    later = {"cmd", "setuid"}  # fields that came later change no key where they are empty
    known = asdict(spec)
    return {name: known[name] for name in known if name != "bootstrap" and (known[name] or name not in later)}


@cache
def _program_key(name: str) -> str:
    if name == "kube":
        return source_key()
    return "" if name == "kubectl" else program_key(name)


def _full(name: str) -> str:
    """A name as registries have it: "busybox" → "docker.io/library/busybox:latest"."""
    head, slash, rest = name.partition("/")
    if not slash:
        head, rest = "docker.io", f"library/{name}"
    elif not ("." in head or ":" in head or head == "localhost"):
        head, rest = "docker.io", name
    return f"{head}/{rest}" if ":" in rest else f"{head}/{rest}:latest"


def _folder() -> Path:
    """$LABKIT_AIRGAP, else the checkout's, else the installed package's."""
    package = Path(__file__).resolve().parents[1]
    given = os.environ.get("LABKIT_AIRGAP")
    places = [Path(given)] if given else [package.parent / "airgap", package / "_airgap"]
    for place in places:
        if (place / "images.toml").is_file():
            return place
    raise ConfigError(
        f"The recipes of the images are not in {places[0]}.",
        "Install labkit from its repository or from a wheel that has them.",
    )
