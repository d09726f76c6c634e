"""cloudflared itself, from its official release: for a tunnel that leads out into the world."""

from __future__ import annotations

import os
from pathlib import Path

from labkit.acquire.build import Progress
from labkit.acquire.download import Unpublished, fetch_pinned
from labkit.acquire.sources import target
from labkit.cluster import Cluster
from labkit.errors import AcquireError
from labkit.tools import cache_dir
from labkit.versions import versions


def image() -> str:
    """The image's name with its pinned version."""
    pinned = versions().cloudflared
    return f"{pinned.image}:{pinned.version}"


def program(progress: Progress = lambda _text, _fraction: None) -> Path:
    """The program for this machine, from the cache or its release; LABKIT_CLOUDFLARED_URL overrides where.

    Raises:
        AcquireError: it cannot be had, or is not what its checksum says.
    """
    pinned, platform = versions().cloudflared, target()
    expected = pinned.sha256.get(platform)
    if expected is None:
        raise AcquireError(f"cloudflared {pinned.version} is not pinned for {platform}.")
    home = cache_dir() / "tools" / f"cloudflared-{pinned.version}-{expected[:12]}" / "cloudflared"
    base = os.environ.get("LABKIT_CLOUDFLARED_URL", pinned.url).rstrip("/")
    url = f"{base}/{pinned.version}/cloudflared-{platform}"
    try:
        found = fetch_pinned(url, expected, home, progress)
    except Unpublished as err:
        raise AcquireError(
            f"cloudflared cannot be downloaded: {err}.", "Is there a network? The rehearsal needs none."
        ) from err
    found.chmod(0o755)
    return found


def provide(cluster: Cluster, progress: Progress) -> str:
    """Let pods use cloudflared's image; returns its name.

    The embedded cluster cannot pull images: there it is made of the program. Elsewhere the kubelet pulls it.
    """
    if cluster.underlying().provider == "embedded":
        from labkit.images import from_program

        from_program(image(), program(progress), "/usr/local/bin/cloudflared")
    return image()
