"""Image names, read as Docker reads them."""

from __future__ import annotations

import re

from labkit.errors import ImageError

HOST_IMAGE = "labkit/host:latest"
"""Built into the runtime: no files of its own, runs the host's programs."""

_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def normalise(name: str) -> str:
    """The short full form of an image name: `docker.io/shop/catalog` becomes `shop/catalog:latest`.

    Rules of Docker's reference grammar (github.com/distribution/reference): the first component is a
    registry if it has a dot or a colon or is `localhost`; `docker.io` and `library/` are the defaults.

    Raises:
        ImageError: the name is not an image name; the message says which part.
    """
    rest, registry = name, ""
    first, slash, tail = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, rest = first, tail
    path, colon, tag = rest.partition(":")
    tag = tag if colon else "latest"
    if registry in ("docker.io", "index.docker.io"):
        registry = ""
    if not registry:
        path = path.removeprefix("library/")
    hint = "Use NAME:TAG in lower case, such as shop/catalog:v1."
    if "@" in name:
        raise ImageError(f"{name!r} names a digest; a name and a tag are needed here.", hint)
    if not _PATH.fullmatch(path) or (registry and not _HOST.fullmatch(registry)):
        raise ImageError(f"{name!r} is not an image name: {path or registry!r} is not allowed in it.", hint)
    if not _TAG.fullmatch(tag):
        raise ImageError(f"{name!r} is not an image name: {tag!r} is not a tag.", hint)
    return f"{registry}/{path}:{tag}" if registry else f"{path}:{tag}"
