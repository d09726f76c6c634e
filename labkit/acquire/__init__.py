"""The embedded cluster's two programs, `kube` and `shim`: from the cache, a release, or a build.

from labkit import acquire
binaries = acquire.binaries()
binaries.kube, binaries.shim
"""

from __future__ import annotations

from labkit.acquire.cache import Binaries, binaries, cached, pack
from labkit.acquire.modules import module_file, module_folder
from labkit.acquire.sources import source_key, sources
from labkit.acquire.upstream import compiled, program_key, programs

__all__ = [
    "Binaries",
    "binaries",
    "cached",
    "compiled",
    "module_file",
    "module_folder",
    "pack",
    "program_key",
    "programs",
    "source_key",
    "sources",
]
