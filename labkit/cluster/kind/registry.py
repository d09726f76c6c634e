"""Official images by pinned name: pulled within bounds, their digests remembered and checked from then on."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.cluster.kind.engine import Engine
from labkit.cluster.state import changing_file
from labkit.errors import AcquireError, LabkitError, MachineError
from labkit.folders import data_dir, private, write

FIRST_WORD_S = 20.0
"""A registry that has not answered by then counts as not reachable."""
SILENCE_S = 180.0
WHOLE_S = 1800.0
_TAIL = 65536  # the digest and the reason of a failure come last
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # how a line of progress is drawn again
_DIGEST = re.compile(r"Digest: (sha256:[0-9a-f]{64})")


class Unavailable(Exception):
    """The registry cannot be reached, or does not hand out the image; the text says which."""


@dataclass(frozen=True)
class Pulled:
    """An image in the engine.

    Attributes:
        name: NAME:TAG under which the engine has it.
        digest: of its manifest at the registry.
    """

    name: str
    digest: str


class Digests:
    """digests.json: what each image was when it was first pulled."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or data_dir() / "digests.json"

    def known(self, name: str) -> str:
        """The recorded digest of NAME:TAG, "" where it was never pulled."""
        return self._read().get(name, "")

    def check(self, name: str, digest: str) -> None:
        """Record a digest at the first time; later ones must be the same.

        Raises:
            AcquireError: it is another one than at the first pull.
        """
        private(self.file.parent)
        with changing_file(self.file):
            known = self._read()
            before = known.setdefault(name, digest)
            if before != digest:
                raise AcquireError(
                    f"The registry's {name} is {digest[:19]}… now; it was {before[:19]}… when it was first "
                    "pulled. It was not used.",
                    "Somebody published it anew, or changes it on its way. If that is right, remove its "
                    f"line from {self.file}.",
                )
            write(self.file, json.dumps(known, indent=1, sort_keys=True))

    def _read(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads(self.file.read_text())
            return found
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as err:
            raise MachineError(
                f"{self.file}, which has the digests of pulled images, is damaged: {err}",
                "Correct or remove it; removed, digests are recorded anew at the next pull.",
            ) from err


def pull(
    engine: Engine, image: str, tell: Callable[[str], None], *, digests: Digests | None = None,
    first_word_s: float = FIRST_WORD_S,
) -> Pulled:  # fmt: skip
    """Pull NAME:TAG or NAME:TAG@DIGEST, and let the engine have it as NAME:TAG.

    $LABKIT_REGISTRY names a mirror: HOST/NAME is pulled from it instead, under the name without its registry.

    Raises:
        Unavailable: the registry cannot be reached, refuses, or has no such image.
        AcquireError: what it has is not what was pinned, or what it was when it was first pulled.
        MachineError: the engine cannot take it.
    """
    digests = digests or Digests()
    name, _, pinned = image.partition("@")
    source = mirrored(name)
    repository = source.rpartition(":")[0]
    # By digest nothing else can be had; without one the tag decides, and what it was is remembered.
    said = _pull(engine, f"{repository}@{pinned}" if pinned else source, tell, first_word_s)
    found = _DIGEST.search(said)
    digest = found[1] if found else ""
    if not digest or (pinned and digest != pinned):
        got = f"{digest[:19]}…" if digest else "no digest"
        raise AcquireError(
            f"The registry sent {got} for {name}, not {pinned[:19] or 'a digest'}…. It was not used."
        )
    digests.check(name, digest)
    engine.run("tag", f"{repository}@{digest}", name)
    return Pulled(name, digest)


def mirrored(name: str) -> str:
    """Where an image is pulled from: the name itself, or below $LABKIT_REGISTRY."""
    mirror = os.environ.get("LABKIT_REGISTRY", "").strip().removesuffix("/")
    if not mirror:
        return name
    first, slash, rest = name.partition("/")
    has_registry = slash and ("." in first or ":" in first or first == "localhost")
    return f"{mirror}/{rest if has_registry else name}"


def _pull(engine: Engine, reference: str, tell: Callable[[str], None], first_word_s: float) -> str:
    """What `docker pull` said; ended when nothing is heard for too long.

    It runs on a terminal: elsewhere docker says nothing while a layer comes, and a slow registry would be
    taken for none.
    """
    terminal, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            [engine.program, "pull", reference], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        )
    except BaseException:
        os.close(terminal)
        raise
    finally:
        os.close(theirs)
    said, begin = b"", time.monotonic()
    layers = complete = 0
    heard = begin
    try:
        while True:
            now = time.monotonic()
            patience = SILENCE_S if said else first_word_s
            if now - heard > patience or now - begin > WHOLE_S:
                raise Unavailable(
                    f"{host_of(reference)} has sent nothing for {patience:.0f} s"
                    if now - heard > patience
                    else f"{reference} was not complete after {WHOLE_S / 60:.0f} min"
                )
            if not select.select([terminal], [], [], 0.5)[0]:
                continue
            chunk = _read(terminal)
            if not chunk:
                break
            said, heard = said + chunk, time.monotonic()
            layers += _added(b"Pulling fs layer", said, chunk)
            complete += _added(b"Pull complete", said, chunk) + _added(b"Already exists", said, chunk)
            said = said[-_TAIL:]
            tell(f"pulling {reference}, {complete} of {layers} layers")
        code = process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        os.close(terminal)
    text = _CONTROL.sub("", said.decode(errors="replace").replace("\r", "\n"))
    if code:
        raise _refusal(reference, text)
    return text


def _read(terminal: int) -> bytes:
    """What the program has written; nothing when it has ended, which Linux tells by an error."""
    try:
        return os.read(terminal, 65536)
    except OSError as err:
        if err.errno != errno.EIO:
            raise
        return b""


def _added(word: bytes, said: bytes, chunk: bytes) -> int:
    """How often a word is in what was said and ends in its last chunk."""
    return said[-(len(chunk) + len(word) - 1) :].count(word)


def _refusal(reference: str, said: str) -> Exception:
    """What a failed pull means."""
    low, last = said.lower(), (said.strip().splitlines() or ["no reason given"])[-1]
    if "manifest verification failed" in low or "unexpected commit digest" in low or "digest mismatch" in low:
        return AcquireError(
            f"What the registry sent for {reference} does not have its digest: {last}",
            "Something between this machine and the registry changes images. It was not used.",
        )
    known = Engine.fault(said)
    if isinstance(known, MachineError):
        return known
    if "manifest unknown" in low or "not found" in low:
        return Unavailable(f"{host_of(reference)} has no {reference} (404)")
    if re.search(r"denied|forbidden|unauthorized|\b403\b", low):  # a port may be 40397
        return Unavailable(f"{host_of(reference)} refuses to hand out {reference}: {last}")
    return Unavailable(f"{host_of(reference)} cannot be reached: {last}")


def host_of(reference: str) -> str:
    """The registry of an image name."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def choose(
    wanted: str,
    official: Callable[[], str],
    built: Callable[[], str],
    note: Callable[[str], None],
) -> tuple[str, str]:
    """An image from the registry, or one that was built here.

    Args:
        wanted: registry, airgap or auto: the registry where it answers, else built here.
        official, built: get the image, and return its name.
        note: told when the registry had it not.

    Returns:
        The image's name, and where it came from.

    Raises:
        AcquireError: it cannot be had in the way that was asked for.
    """
    if wanted == "airgap":
        return built(), "built here from package registries"
    try:
        return official(), "official image"
    except Unavailable as why:
        if wanted == "registry":
            raise AcquireError(
                f"{why}.",
                "With images=airgap (LABKIT_IMAGES=airgap) labkit builds it from package registries.",
            ) from why
        note(f"{why}: the image built from package registries is used instead")
        try:
            return built(), "built here from package registries"
        except LabkitError as err:
            raise type(err)(f"{why}, and it cannot be built here: {err.message}", err.hint) from err
