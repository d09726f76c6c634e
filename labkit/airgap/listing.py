"""Which images there are, and what Docker has of them."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.airgap.build import Builder
from labkit.airgap.docker import KEY, OWN, Docker
from labkit.airgap.specs import catalogue
from labkit.phases import silent


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        short: short name.
        names: what upstream calls it.
        state: ready (as this labkit would make it), missing, older (of another version of labkit) or official
            (Docker has upstream's own under that name; it is used).
        size_bytes: of all its layers, 0 when missing.
        part: only a part of other images.
    """

    short: str
    names: tuple[str, ...]
    about: str
    state: str
    size_bytes: int
    tag: str
    part: bool


def rows(docker: Docker | None = None) -> list[Row]:
    """All images.

    Raises:
        MachineError: there is no Docker, or it does not answer.
    """
    engine, known = docker or Docker(), catalogue()
    builder = Builder(known, engine, silent)
    tags = {spec.short: builder.final(spec) for spec in known.specs.values()}
    names = [name for spec in known.specs.values() for name in spec.names]
    has = engine.inspect([*tags.values(), *names])
    found = []
    for spec in known.specs.values():
        ready = has.get(tags[spec.short])
        others = [has[name] for name in spec.names if name in has]
        foreign = [raw for raw in others if OWN not in (raw["Config"].get("Labels") or {})]
        older = [raw for raw in others if (raw["Config"].get("Labels") or {}).get(KEY)]
        state = "official" if foreign else "ready" if ready else "older" if older else "missing"
        size = int((ready or {"Size": 0})["Size"])
        found.append(Row(spec.short, spec.names, spec.about, state, size, tags[spec.short], spec.part))
    return found
