"""Images as bundles: built from the same Dockerfile that Docker builds, kept in a content-addressed store.

A bundle is a directory (`blobs/<digest>/`: `config.json`, `rootfs/`) plus a virtual environment that images
share (`layers/<key>/venv`). The embedded cluster's runtime starts it as processes; there is no engine.

    from labkit import images
    image = images.build("services/catalog", "shop/catalog:v1")
"""

from __future__ import annotations

from labkit.images.build import build
from labkit.images.names import HOST_IMAGE, normalise
from labkit.images.program import from_files, from_program
from labkit.images.store import Image, ImageStore, default_root

__all__ = [
    "HOST_IMAGE",
    "Image",
    "ImageStore",
    "build",
    "default_root",
    "from_files",
    "from_program",
    "normalise",
]
