"""The images that the suite's pods name: bundles for embedded nodes, container images for kind's."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from labkit.acquire import programs
from labkit.airgap.context import file_content
from labkit.images import Image, ImageStore, from_files

_FOLDER = "/usr/local/suite"
_PATH = f"PATH={_FOLDER}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OFFICIAL = "registry.k8s.io/"


@dataclass(frozen=True)
class Recipe:
    """How an image of the suite is made; the fields are those of images.toml."""

    programs: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    standins: tuple[str, ...] = ()
    base: str = "debian"
    packages: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    setuid: tuple[str, ...] = ()

    @property
    def compiled(self) -> list[str]:
        """The programs of versions.toml that a bundle is made of."""
        return [*self.programs.values(), *(["standins"] if self.standins else [])]

    def table(self, name: str) -> dict[str, Any]:
        """What a table of airgap/images.toml would say for a container image of that name.

        Links to what Debian or busybox have themselves are for bundles alone.
        """
        made = {*self.programs, *self.files}
        known = {key: value for key, value in asdict(self).items() if key != "standins"}
        links = {path: to for path, to in self.links.items() if to in made}
        about = "for Kubernetes' end-to-end tests"
        return {**known, "names": [name], "about": about, "links": links, "part": True}


def recipes() -> dict[str, Recipe]:
    """Repository, such as "agnhost" → recipe."""
    raw = tomllib.loads(files("labkit.conformance").joinpath("images.toml").read_text())
    return {
        name: Recipe(**{key: _frozen(value) for key, value in entry.items()}) for name, entry in raw.items()
    }


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def repository(name: str) -> str:
    """Last part of an image's name, without its tag."""
    return name.rsplit("/", 1)[-1].partition(":")[0]


def wanted(names: Sequence[str]) -> dict[str, Recipe]:
    """Those of the suite's images that there are recipes for.

    Images that must not be had (the suite tests that a pull fails) are of other registries.
    """
    known = recipes()
    official = [name for name in names if name.startswith(_OFFICIAL)]
    return {name: known[repository(name)] for name in official if repository(name) in known}


def provide(
    names: Sequence[str],
    progress: Callable[[str, float | None], None] = lambda _text, _fraction: None,
    store: ImageStore | None = None,
) -> list[Image]:
    """Make bundles for those of the suite's images that there are recipes for.

    Args:
        names: as the suite lists them, registry and tag included.

    Returns:
        The images, in the order of the names that have one.

    Raises:
        AcquireError, ImageError: one cannot be made.
    """
    chosen, store = wanted(names), store or ImageStore()
    made = programs(sorted({program for recipe in chosen.values() for program in recipe.compiled}), progress)
    out = []
    for name, recipe in chosen.items():
        progress(f"image {name}", None)
        contents: dict[str, Path | bytes] = {path: made[program] for path, program in recipe.programs.items()}
        contents |= {path: file_content(source) for path, source in recipe.files.items()}
        links = {path: to for path, to in recipe.links.items() if to in contents or _made_or_there(to)}
        if recipe.standins:
            contents["/usr/local/standins"] = made["standins"]
            links |= {f"{_FOLDER}/{program}": "/usr/local/standins" for program in recipe.standins}
        out.append(
            from_files(
                name, contents, entrypoint=recipe.entrypoint, cmd=recipe.cmd, links=links, env=[_PATH],
                user=recipe.user, store=store,
            )
        )  # fmt: skip
    return out


def _made_or_there(target: str) -> bool:
    """Whether a link leads somewhere: to what is made here, or to a program of the machine."""
    return target.startswith(_FOLDER) or Path(target).exists()
