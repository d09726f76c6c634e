"""The suite's images for kind's nodes: upstream's where their registry answers, else built here."""

from __future__ import annotations

from collections.abc import Sequence

from labkit import airgap
from labkit.airgap.specs import Catalogue, extended
from labkit.cluster.kind.cluster import KindCluster
from labkit.cluster.kind.registry import choose, pull
from labkit.cluster.phases import Listener, phase
from labkit.conformance.images import repository, wanted
from labkit.errors import ImageError


def provide(cluster: KindCluster, names: Sequence[str], listener: Listener) -> None:
    """Let the nodes have the suite's images, or leave it to them to pull them.

    Args:
        names: as the suite lists them, registry and tag included.

    Raises:
        ImageError: the suite names none that labkit knows.
        AcquireError, MachineError: one can neither be had nor made.
    """
    mine = list(wanted(names))
    if not mine:
        raise ImageError("The suite names no image that labkit knows.", "See labkit/conformance/images.toml.")
    with phase("images", listener, "the suite's images") as step:
        _, origin = choose(
            cluster.wanted_images,
            lambda: pull(cluster.engine, mine[0], step.tell).name,
            lambda: _built(cluster, mine, listener),
            step.note,
        )
        step.tell(f"{len(mine)} images of the suite, {origin}")


def _built(cluster: KindCluster, names: Sequence[str], listener: Listener) -> str:
    """Build them all and load them into all nodes."""
    airgap.ensure_images(names, listener, catalogue(names))
    with phase("loading", listener, "the suite's images") as step:
        cluster.load_images(names, step, everywhere=True)
    return names[0]


def catalogue(names: Sequence[str]) -> Catalogue:
    """labkit's images, and the suite's."""
    return extended({short(name): recipe.table(name) for name, recipe in wanted(names).items()})


def short(name: str) -> str:
    """Its name in the catalogue: registry.k8s.io/e2e-test-images/agnhost:2.1 → suite-agnhost-2.1."""
    return f"suite-{repository(name)}-{name.rsplit(':', 1)[-1]}"
