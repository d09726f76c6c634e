"""Images for kind's nodes: built by Docker, or upstream's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from labkit.cluster.kind.engine import OWN_LABEL, Engine
from labkit.cluster.kind.preflight import is_here
from labkit.cluster.kind.registry import Digests, choose, pull
from labkit.cluster.phases import Listener
from labkit.errors import ImageError, MachineError
from labkit.images import Image, normalise

_BUILD_S = 1200
_STEP = re.compile(r"^Step (\d+)/\d+ : (.*)$", re.MULTILINE)
_LINE = re.compile(r"(?:parse error (?:on )?line |Dockerfile:)(\d+)", re.IGNORECASE)


def build(
    engine: Engine, path: str | Path, tag: str, build_args: Mapping[str, str] | None, wanted: str,
    listener: Listener,
) -> Image:  # fmt: skip
    """`docker build`, with the images that it begins from taken care of.

    Args:
        wanted: where images come from, as in `KindOptions.images`.

    Raises:
        ImageError: with the line of the Dockerfile, as docker says it.
    """
    root, name = Path(path), normalise(tag)
    if not root.is_dir():
        raise ImageError(f"{root} is not a directory.", "Name the directory that has the Dockerfile.")
    file = root / "Dockerfile"
    if not file.is_file():
        raise ImageError(f"There is no {file}.", "A Dockerfile says how the directory becomes an image.")
    for base in bases(file, build_args or {}):
        if engine.image(base) is None:
            obtain(engine, base, wanted, listener)
    argv = [
        "build",
        "--force-rm",
        "--tag",
        name,
        "--label",
        f"{OWN_LABEL}=image",
        *_network(engine),
        *_args(build_args),
    ]
    done = engine.attempt(*argv, str(root), limit_s=_BUILD_S)
    if done.returncode:
        raise build_error(file, f"{done.stdout}\n{done.stderr}")
    return described(engine, name)


def _args(build_args: Mapping[str, str] | None) -> list[str]:
    return [part for key, value in (build_args or {}).items() for part in ("--build-arg", f"{key}={value}")]


def _network(engine: Engine) -> list[str]:
    """The machine's own network, where the engine is on it: its proxy or name server may be local."""
    return ["--network", "host"] if is_here(engine.info()) else []


def bases(file: Path, build_args: Mapping[str, str]) -> list[str]:
    """The images that a Dockerfile begins from, stages of its own excepted."""
    from labkit.images.grammar import parse

    stages = parse(file, build_args=build_args)["stages"] or []
    earlier, found = set(), []
    for stage in stages:
        base = stage["base"]
        if base != "scratch" and base.lower() not in earlier and "@" not in base:
            found.append(normalise(base))
        earlier.add(stage["name"])
    return list(dict.fromkeys(found))


def build_error(file: Path, said: str) -> ImageError | MachineError:
    """The error of a failed build: what docker said, and which line it is about."""
    known = Engine.fault(said)
    if isinstance(known, MachineError):
        return known
    lines = [line.rstrip() for line in said.strip().splitlines() if line.strip()]
    number = _line_of(file, said)
    where = f"{file}, line {number}" if number else str(file)
    why = _reason(lines)
    hint = "\n".join(lines[-12:])
    return ImageError(f"{where}: {why}", f"Docker's last words:\n{hint}" if lines else "")


def _reason(lines: Sequence[str]) -> str:
    ends = [line for line in lines if re.search(r"returned a non-zero|rror|failed|unknown instruction", line)]
    told = [line for line in ends if "DEPRECATED" not in line]
    return (told or list(lines) or ["docker build failed without a word"])[-1].strip()


def _line_of(file: Path, said: str) -> int:
    """Which line of the Dockerfile failed, 0 where docker does not tell."""
    named = _LINE.findall(said)
    if named:
        return int(named[-1])
    steps = _STEP.findall(said)
    if not steps:
        return 0
    begin = re.sub(r"\s+", " ", steps[-1][1]).strip()[:30]
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if re.sub(r"\s+", " ", line).strip().startswith(begin):
            return number
    return 0


def described(engine: Engine, name: str) -> Image:
    """An image as labkit shows it, from `docker image inspect`.

    Raises:
        ImageError: the engine has none of that name.
    """
    raw = engine.image(name)
    if raw is None:
        raise ImageError(f"Docker has no image {name!r}.", "Build it first.")
    config: dict[str, Any] = raw.get("Config") or {}
    created = str(raw.get("Created") or "")[:19]
    return Image(
        digest=raw["Id"],
        tags=(name,),
        created=datetime.fromisoformat(f"{created}+00:00") if created else None,
        size_bytes=int(raw.get("Size") or 0),
        env=tuple(config.get("Env") or ()),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        cmd=tuple(config.get("Cmd") or ()),
        workdir=config.get("WorkingDir") or "/",
        user=config.get("User") or "",
        exposed_ports=tuple(sorted(config.get("ExposedPorts") or ())),
        labels=tuple(sorted((config.get("Labels") or {}).items())),
    )


def obtain(engine: Engine, name: str, wanted: str, listener: Listener) -> str:
    """Let the engine have an upstream image under its name; says where it came from.

    Raises:
        AcquireError, ImageError, MachineError: it can neither be had nor made.
    """
    from labkit.cluster.phases import phase

    with phase("image", listener, name) as step:
        if engine.image(name) is not None and (wanted != "registry" or Digests().known(name)):
            step.tell(f"{name}, which Docker has")
            return "Docker had it"
        _, origin = choose(
            wanted, lambda: pull(engine, name, step.tell).name, lambda: _built(name, listener), step.note
        )
        step.tell(f"{name}, {origin}")
        return origin


def _built(name: str, listener: Listener) -> str:
    from labkit import airgap

    airgap.ensure_image(name, listener)
    return name


def kind_env(engine: Engine, network: str = "") -> dict[str, str]:
    """Environment in which kind uses this engine, and only the cluster's own network."""
    folder = str(Path(engine.program).parent)
    env = {**os.environ, "KIND_EXPERIMENTAL_PROVIDER": "docker"}
    env["PATH"] = f"{folder}{os.pathsep}{env.get('PATH', os.defpath)}"
    env.pop("KUBECONFIG", None)
    if network:
        env["KIND_EXPERIMENTAL_DOCKER_NETWORK"] = network
    return env
