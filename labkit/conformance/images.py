"""The images that the suite's pods name, made of programs that Go compiles."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from labkit.acquire import module_folder, programs
from labkit.images import Image, ImageStore, from_files

_MODULE, _TEXT = "module:", "text:"
_FOLDER = "/usr/local/suite"
_PATH = f"PATH={_FOLDER}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Recipe:
    """How an image of the suite is made; the fields are those of images.toml."""

    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    standins: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""

    @property
    def programs(self) -> list[str]:
        """The programs of versions.toml that it is made of."""
        own = [source for source in self.files.values() if not source.startswith((_MODULE, _TEXT))]
        return [*own, *(["standins"] if self.standins else [])]


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
    known, store = recipes(), store or ImageStore()
    wanted = {name: known[repository(name)] for name in names if _ours(name) and repository(name) in known}
    needed = sorted({program for recipe in wanted.values() for program in recipe.programs})
    made = programs(needed, progress)
    upstream = module_folder("k8s.io/kubernetes")
    out = []
    for name, recipe in wanted.items():
        progress(f"image {name}", None)
        contents = {path: _content(source, made, upstream) for path, source in recipe.files.items()}
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


def _ours(name: str) -> bool:
    """Images that must not be had (the suite tests that a pull fails) are not made."""
    return name.startswith("registry.k8s.io/")


def _content(source: str, made: dict[str, Path], upstream: Path) -> Path | bytes:
    if source.startswith(_TEXT):
        return source.removeprefix(_TEXT).encode()
    if source.startswith(_MODULE):
        return (upstream / source.removeprefix(_MODULE)).read_bytes()
    return made[source]
