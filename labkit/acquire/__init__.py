"""The embedded cluster's two programs, `kube` and `shim`: from the cache, a release, or a build.

from labkit import acquire
binaries = acquire.binaries()
binaries.kube, binaries.shim
"""

from __future__ import annotations

from labkit.acquire.cache import Binaries, binaries, cached, pack
from labkit.acquire.modules import module_folder
from labkit.acquire.programs import program_key, programs
from labkit.acquire.sources import source_key, sources

__all__ = [
    "Binaries", "binaries", "cached", "module_folder", "pack", "program_key", "programs", "source_key",
    "sources",
]  # fmt: skip
