"""Images for kind where no container registry can be reached: built from package registries, or from a file.

from labkit import airgap
airgap.node_image(listener)                                        # the tag for `kind create cluster --image`
airgap.ensure_image("quay.io/metallb/speaker:v0.16.2", listener)   # Docker has it afterwards
"""

from __future__ import annotations

from labkit.airgap.build import build, ensure_image, ensure_images, node_image
from labkit.airgap.listing import Row, rows
from labkit.airgap.pack import Packed, contents, load, save
from labkit.airgap.specs import Catalogue, Spec, catalogue

__all__ = [
    "Catalogue", "Packed", "Row", "Spec", "build", "catalogue", "contents", "ensure_image",
    "ensure_images", "load", "node_image", "rows", "save",
]  # fmt: skip
