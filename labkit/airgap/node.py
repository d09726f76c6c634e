"""What goes into a kind node's image beside programs: kind's own files and images to start with."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from labkit.acquire import module_folder
from labkit.airgap.context import Context
from labkit.airgap.specs import Catalogue, Spec
from labkit.errors import AcquireError
from labkit.versions import versions

_CONST = re.compile(r'^const (\w+) = "([^"]*)"', re.MULTILINE)
_MANIFEST = re.compile(
    r"^const defaultStorageManifest = (.*?)\n\n?(?=\Z|const |var |func )", re.DOTALL | re.MULTILINE
)


def add_node(
    context: Context, catalogue: Catalogue, spec: Spec, programs: dict[str, Path], images: Path
) -> None:
    """Everything that the recipe of a node needs beside its own folder.

    Args:
        images: archive of `docker save` with the images to be baked.

    Raises:
        AcquireError: kind's module cannot be had, or kubeadm or kind want an image that is not baked.
    """
    kind = module_folder("sigs.k8s.io/kind")
    context.add_tree(kind / "images/base/files", "kind")
    storage = storage_manifest((kind / "pkg/build/nodeimage/const_storage.go").read_text())
    context.add("storage.yaml", storage)
    context.add("version", f"v{versions().kubernetes}")
    context.add("images.tar", images)
    baked = [catalogue.specs[short] for short in spec.baked]
    names = [(f"docker.io/{catalogue.tag(each)}", full(name)) for each in baked for name in each.names]
    context.add("names", "".join(f"{source} {name}\n" for source, name in names))
    wanted = [*kubeadm_images(programs["kubeadm"]), *re.findall(r"image: (\S+)", storage)]
    check(wanted, {name for _, name in names})


def full(name: str) -> str:
    """A name as containerd has it."""
    head, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in head or ":" in head else f"docker.io/{name}"


def check(wanted: list[str], baked: set[str]) -> None:
    """Check that a cluster finds all it starts with in its nodes.

    Raises:
        AcquireError: it does not.
    """
    missing = sorted({full(name) for name in wanted} - baked)
    if missing:
        raise AcquireError(
            f"A cluster starts with images that the node's image would not hold: {', '.join(missing)}.",
            "Add them to `baked` of images.node in airgap/images.toml.",
        )


def kubeadm_images(kubeadm: Path) -> list[str]:
    """The images that kubeadm wants for this version of Kubernetes."""
    argv = [str(kubeadm), "config", "images", "list", "--kubernetes-version", f"v{versions().kubernetes}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise AcquireError(f"kubeadm does not tell which images it wants: {done.stderr.strip()[-300:]}")
    return done.stdout.split()


def storage_manifest(source: str) -> str:
    """The manifest of kind's default StorageClass, out of the Go source that has it as a constant.

    Raises:
        AcquireError: it is not there as expected.
    """
    constants = dict(_CONST.findall(source))
    found = _MANIFEST.search(source)
    if not found:
        raise AcquireError("kind's source has no defaultStorageManifest any more.")
    text = ""
    for literal, name in re.findall(r"`([^`]*)`|\b([A-Za-z]\w+)\b", found[1]):
        if name and name not in constants:
            raise AcquireError(
                f"kind's defaultStorageManifest uses {name}, which is not a constant beside it."
            )
        text += constants[name] if name else literal
    return text
