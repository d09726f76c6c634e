"""Names and references, judged as the API server does.

Rules of Kubernetes v1.37: pkg/apis/autoscaling/validation (references, metric identifiers) and
pkg/apis/core/validation (names of containers and of resources).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from labkit.hpa.errors import SpecError

_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_CONTAINER: Final = re.compile(_LABEL)
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")


def text(field: str, value: Any) -> str:
    """A string; "" where the field is left out."""
    if value is not None and not isinstance(value, str):
        raise SpecError(field, f"found {value!r}", "Give a text; in YAML put quotes around a number.")
    return value or ""


def segment(field: str, value: Any, missing: str) -> str:
    """A name that can be part of a URL's path; `missing` is the hint where there is none."""
    name = text(field, value)
    if not name:
        raise SpecError(field, "is missing", missing)
    if name in (".", "..") or "/" in name or "%" in name:
        raise SpecError(field, f"found {name!r}", 'A name is not "." or "..", and has no "/" and no "%".')
    return name


def subdomain(field: str, value: Any) -> str:
    """A DNS subdomain, as objects are named."""
    name = text(field, value)
    if not _SUBDOMAIN.fullmatch(name) or len(name) > 253:
        raise SpecError(field, f"found {name!r}", "Names have lower-case letters, digits, `-` and `.`.")
    return name


def reference(field: str, value: Any, *, may_be_core: bool) -> tuple[str, str, str]:
    """(apiVersion, kind, name) of a reference to an object; `may_be_core`: whether v1 will do."""
    given: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    kind = segment(f"{field}.kind", given.get("kind"), "Name the kind, such as Deployment.")
    name = segment(f"{field}.name", given.get("name"), f"Name the {kind}.")
    version = text(f"{field}.apiVersion", given.get("apiVersion"))
    hint = "Give group and version, such as apps/v1."
    if version.count("/") > 1:
        raise SpecError(f"{field}.apiVersion", f"found {version!r}", hint)
    if not may_be_core and not version.rpartition("/")[0]:
        problem = f"found {version!r}, which names no group" if version else "is missing"
        raise SpecError(f"{field}.apiVersion", problem, hint)
    return version, kind, name


def container(field: str, value: Any) -> str:
    name = text(field, value)
    if not name:
        raise SpecError(field, "is missing", "Name the container to measure.")
    if not _CONTAINER.fullmatch(name) or len(name) > 63:
        raise SpecError(field, f"found {name!r}", "Containers have lower-case letters, digits and `-`.")
    return name


def container_resource(field: str, value: Any) -> str:
    """A resource that a container can have: cpu, memory, or one with a domain, such as example.com/gpu."""
    name = text(field, value)
    if not name:
        raise SpecError(field, "is missing", "Name the resource, such as cpu.")
    domain, slash, rest = name.rpartition("/")
    standard = not slash and (rest in _RESOURCES or rest.startswith("hugepages-"))
    qualified = slash and _SUBDOMAIN.fullmatch(domain) and len(domain) <= 253
    good = _QUALIFIED.fullmatch(rest) and len(rest) <= 63
    if not good or not (standard or qualified) or (slash and name.startswith("requests.")):
        raise SpecError(field, f"found {name!r}", "Give a resource of containers, such as cpu or memory.")
    return name
