"""Make images, each after what it is made of; nothing is made twice, and a run that was cut off goes on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from labkit import acquire
from labkit.airgap import machine
from labkit.airgap.context import Context, add_programs, dockerfile, mode_of
from labkit.airgap.docker import KEY, OWN, Docker
from labkit.airgap.node import add_node
from labkit.airgap.rootfs import require_tools, unpacked
from labkit.airgap.specs import NODE, REPOSITORY, Catalogue, Spec, catalogue
from labkit.errors import AcquireError, MachineError
from labkit.locks import alone
from labkit.phases import Listener, Step, phase
from labkit.tools import cache_dir, kubectl

KEPT = 3
"""Images of so many keys stay for each short name; older ones are removed after a build."""
_NEEDED_BYTES = 6 << 30
_LOCK_S = 3600


def node_image(listener: Listener, docker: Docker | None = None) -> str:
    """The image of a kind node, which Docker has afterwards: the tag for `kind create cluster --image`.

    Raises:
        AcquireError, MachineError: it cannot be made; what to do is in the hint.
    """
    return build([NODE], listener, docker=docker)[NODE]


def ensure_image(name: str, listener: Listener) -> str:
    """The same as `ensure_images` for one image; returns its name."""
    ensure_images([name], listener)
    return name


def ensure_images(names: Sequence[str], listener: Listener, known: Catalogue | None = None) -> None:
    """Let Docker have images under upstream's names for them. Those that it already has are left as they are.

    Args:
        names: such as "quay.io/metallb/speaker:v0.16.2".
        known: the images that there are; by default those of `catalogue`.

    Raises:
        ImageError: labkit does not make such an image.
        AcquireError, MachineError: one cannot be made.
    """
    engine, known = Docker(), known or catalogue()
    short = {name: known.named(name).short for name in names}
    has = engine.inspect(names)
    mine = [name for name in names if name not in has or _own(has[name])]
    if not mine:
        return
    tags = build([short[name] for name in mine], listener, docker=engine, known=known)
    for name in mine:
        engine.tag(tags[short[name]], name)


def build(
    names: Sequence[str],
    listener: Listener,
    *,
    again: bool = False,
    docker: Docker | None = None,
    known: Catalogue | None = None,
) -> dict[str, str]:
    """Make images, and what they are made of.

    Args:
        names: short or upstream's names; none for all that a cluster is made of.
        again: also those that Docker has, with the packages of today.
        known: the images that there are; by default those of `catalogue`.

    Returns:
        Short name → tag.

    Raises:
        ImageError: no such image.
        AcquireError, MachineError: something cannot be had; what to do is in the hint.
    """
    known = known or catalogue()
    wanted = [known.named(name) for name in names] or known.shipped()
    return Builder(known, docker or Docker(), listener, again).make(wanted)


class Builder:
    """One run of builds."""

    def __init__(self, known: Catalogue, docker: Docker, listener: Listener, again: bool = False) -> None:
        self._known, self._docker, self._listener, self._again = known, docker, listener, again
        self._programs: dict[str, Path] = {}
        self._done: set[str] = set()

    def make(self, wanted: Sequence[Spec]) -> dict[str, str]:
        """Make these images and give them upstream's names, where those are free."""
        if not self._missing(wanted):
            self._name(wanted)
            return {spec.short: self.final(spec) for spec in wanted}
        with phase("docker", self._listener, "asking the engine") as step:
            self._check_engine(step)
        with _locked(self._listener):
            missing = self._missing(wanted)
            self._compile(missing)
            for spec in missing:
                self._one(spec)
            self._docker.prune_stages()
        self._name(wanted)
        return {spec.short: self.final(spec) for spec in wanted}

    def final(self, spec: Spec) -> str:
        """The tag that a cluster uses: with this machine's settings, where an image has them."""
        tag = self._known.tag(spec)
        return f"{tag}-{self._settings}" if spec.machine else tag

    @cached_property
    def _settings(self) -> str:
        return machine.settings_key()

    def _missing(self, wanted: Sequence[Spec]) -> list[Spec]:
        """What must be made, in the order in which it can be."""
        tags = {
            tag for spec in self._known.specs.values() for tag in (self._known.tag(spec), self.final(spec))
        }
        has = set() if self._again else set(self._docker.inspect(sorted(tags)))
        needed: dict[str, Spec] = {}

        def need(spec: Spec) -> None:
            if spec.short in needed or self.final(spec) in has:
                return
            if self._known.tag(spec) not in has:
                for other in (*filter(None, (spec.base,)), *spec.baked):
                    need(self._known.specs[other])
            needed[spec.short] = spec

        for spec in wanted:
            need(spec)
        return list(needed.values())

    def _check_engine(self, step: Step) -> None:
        facts = self._docker.info()
        root = Path(str(facts.get("DockerRootDir", "")))
        step.tell(f"Docker {facts.get('ServerVersion')}")
        try:
            free = shutil.disk_usage(root).free
        except OSError:
            return  # an engine elsewhere, as Docker Desktop's; it says itself when its disk is full
        if free < _NEEDED_BYTES:
            raise MachineError(
                f"Docker keeps images in {root}, where {free / (1 << 30):.1f} GiB are free; "
                f"{_NEEDED_BYTES >> 30} GiB are needed.",
                "`docker system df` shows what takes space; `docker system prune` frees what is unused.",
            )

    def _compile(self, missing: Sequence[Spec]) -> None:
        """Compile what the images need, all at once: what programs share is compiled once."""
        has = self._docker.inspect([self._known.tag(spec) for spec in missing])
        names = {
            program
            for spec in missing
            if self._again or self._known.tag(spec) not in has
            for program in spec.programs.values()
        }
        if not names:
            return
        with phase("programs", self._listener, f"{len(names)} programs") as step:
            if "kube" in names:
                self._programs["kube"] = acquire.binaries(step.tell, step.note).kube
            if "kubectl" in names:
                self._programs["kubectl"] = kubectl()
            self._programs |= acquire.programs(sorted(names - {"kube", "kubectl"}), step.tell)
            step.tell(f"{len(names)} programs are in the cache")

    def _one(self, spec: Spec) -> None:
        tag = self._known.tag(spec)
        with phase(f"image {spec.short}", self._listener, spec.about) as step:
            if self._again or tag not in self._docker.inspect([tag]):
                if spec.bootstrap:
                    self._bootstrap(spec, tag, step)
                elif spec.baked:
                    self._node(spec, tag, step)
                else:
                    self._build(spec, tag, self._context(spec), step)
            if spec.machine:
                self._build(spec, self.final(spec), _settings(tag), step)
            step.tell(f"{self.final(spec)}, {self._size(self.final(spec)) / 1e6:.0f} MB")
            self._forget(spec)

    def _bootstrap(self, spec: Spec, tag: str, step: Step) -> None:
        require_tools()
        stage = f"{REPOSITORY}/{spec.short}-unpacked:{self._known.key(spec)}"
        with unpacked(self._known.suite, self._known.mirror, _folder(), step.tell) as archive:
            step.tell("handing it to Docker")
            self._docker.import_tar(archive, stage, {OWN: "stage"})
        try:
            self._build(spec, tag, self._context(spec), step, base=stage)
        finally:
            self._docker.remove(stage)

    def _node(self, spec: Spec, tag: str, step: Step) -> None:
        with tempfile.TemporaryDirectory(dir=_folder(), prefix="node-") as scratch:
            images = Path(scratch) / "images.tar"
            step.tell("collecting the images that a node holds")
            with images.open("wb") as out:
                baked = [self._known.tag(self._known.specs[short]) for short in spec.baked]
                self._docker.save(baked, lambda piece: void(out.write(piece)))
            context = self._context(spec)
            add_node(context, self._known, spec, self._programs, images)
            self._build(spec, tag, context, step)

    def _context(self, spec: Spec) -> Context:
        context = Context()
        if spec.recipe:
            for name, content in self._known.recipe_files(spec):
                context.add(name, content, mode=mode_of(content))
        else:
            base = self._known.tag(self._known.specs[spec.base]) if spec.base else ""
            context.add("Dockerfile", dockerfile(spec, base))
        add_programs(context, spec, self._programs)
        return context

    def _build(self, spec: Spec, tag: str, context: Context, step: Step, base: str = "") -> None:
        args = machine.build_args()
        if spec.recipe and not base and spec.base:
            base = self._known.tag(self._known.specs[spec.base])
        if base:
            args["BASE"] = base
        if spec.bootstrap:
            args |= {"SUITE": self._known.suite, "MIRROR": self._known.mirror}
        labels = {
            OWN: spec.short,
            KEY: self._known.key(spec),
            "org.opencontainers.image.description": spec.about,
        }
        used = {
            name: value
            for name, value in args.items()
            if name.lower().endswith("proxy") or _uses(context, name)
        }
        self._docker.build(context.write, tag, args=used, labels=labels, progress=step.tell)

    def _name(self, wanted: Sequence[Spec]) -> None:
        """Give images upstream's names, where the engine has no image of another origin under them."""
        for spec in wanted:
            if spec.part:
                continue
            has = self._docker.inspect(spec.names)
            ours = self._docker.inspect([self.final(spec)])[self.final(spec)]["Id"]
            for name in spec.names:
                if name not in has or (_own(has[name]) and has[name]["Id"] != ours):
                    self._docker.tag(self.final(spec), name)

    def _forget(self, spec: Spec) -> None:
        """Remove images of older keys, but the newest few."""
        current = self._known.tag(spec)
        tags = self._docker.own_tags(f"{REPOSITORY}/{spec.short}")
        for old in [tag for tag in tags if not tag.startswith(current)][KEPT - 1 :]:
            self._docker.remove(old)

    def _size(self, tag: str) -> int:
        return int(self._docker.inspect([tag])[tag]["Size"])


def void(_: object) -> None:
    """Drop a result."""


def _own(image: dict[str, object]) -> bool:
    config = image.get("Config")
    labels = config.get("Labels") if isinstance(config, dict) else None
    return bool(labels and OWN in labels)


def _uses(context: Context, argument: str) -> bool:
    content = context.files["Dockerfile"]
    return isinstance(content, bytes) and f"ARG {argument}\n".encode() in content


def _settings(base: str) -> Context:
    """The last layer of an image with this machine's settings."""
    context = machine.settings()
    copy = "COPY files/ /\n" if context.files else "LABEL dev.labkit.airgap.settings=none\n"
    context.add("Dockerfile", f"FROM {base}\n{copy}")
    return context


def _folder() -> Path:
    folder = cache_dir() / "airgap"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(listener: Listener) -> Iterator[None]:
    """One process at a time builds; what an earlier one left half-made is removed."""
    with ExitStack() as waiting:

        def busy() -> AcquireError:
            return AcquireError("Another process has been building for an hour.")

        def wait() -> None:
            waiting.enter_context(phase("waiting", listener, "another labkit process is building images"))

        with alone(_folder() / "lock", _LOCK_S, busy, wait):
            waiting.close()
            for left in (*_folder().glob("rootfs-*"), *_folder().glob("node-*")):
                shutil.rmtree(left, ignore_errors=True)
            yield
