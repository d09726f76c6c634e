"""Build contexts as tar streams: the same bytes for the same content, which Docker's cache knows again."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from labkit.acquire import module_file
from labkit.airgap.specs import Spec

_TEXT = "text:"


@dataclass
class Context:
    """Files of a build context: name → content, path of it, or target of a link."""

    files: dict[str, bytes | Path] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, content: bytes | str | Path, *, mode: int = 0o644) -> None:
        """Add a file; `content` is what is in it, or where it is."""
        self.files[name] = content.encode() if isinstance(content, str) else content
        self.modes[name] = mode

    def add_tree(self, root: Path, prefix: str) -> None:
        """Add all files below a folder; scripts stay executable."""
        for path in sorted(root.rglob("*")):
            if path.is_file():
                self.add(f"{prefix}/{path.relative_to(root)}", path, mode=mode_of(path.read_bytes()))

    def write(self, stream: IO[bytes]) -> None:
        """Send it all as a tar archive."""
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for folder in _parents([*self.files, *self.links]):
                archive.addfile(_member(folder, tarfile.DIRTYPE, 0o755))
            for name, content in self.files.items():
                member = _member(name, tarfile.REGTYPE, self.modes[name])
                if isinstance(content, bytes):
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
                else:
                    with content.open("rb") as opened:
                        member.size = content.stat().st_size
                        archive.addfile(member, opened)
            for name, link in self.links.items():
                member = _member(name, tarfile.SYMTYPE, 0o777)
                member.linkname = link
                archive.addfile(member)


def add_programs(context: Context, spec: Spec, programs: dict[str, Path]) -> None:
    """The programs, links and modules' files of an image, below files/; scripts are executable."""
    for path, program in spec.programs.items():
        mode = 0o4755 if path in spec.setuid else 0o755
        context.add(f"files{path}", programs[program], mode=mode)
    for path, source in spec.files.items():
        content = file_content(source)
        context.add(f"files{path}", content, mode=mode_of(content))
    for path, target in spec.links.items():
        context.links[f"files{path}"] = target


def mode_of(content: bytes) -> int:
    """Scripts are executable, other files are not."""
    return 0o755 if content[:2] == b"#!" else 0o644


def file_content(source: str) -> bytes:
    """What is in a file of an image: "text:…" itself, else that of `labkit.acquire.module_file`.

    Raises:
        AcquireError: its module cannot be had.
    """
    return (
        source.removeprefix(_TEXT).encode() if source.startswith(_TEXT) else module_file(source).read_bytes()
    )


def dockerfile(spec: Spec, base: str) -> str:
    """The Dockerfile of an image without a recipe."""
    lines = [f"FROM {base or 'scratch'}"]
    if spec.packages:
        lines += ["ARG APT_OPTIONS", f"RUN install-packages {' '.join(spec.packages)}"]
    if spec.programs or spec.links or spec.files:
        lines.append("COPY files/ /")
    lines += [f"ENV {setting}" for setting in spec.env]
    if spec.user:
        lines.append(f"USER {spec.user}")
    if spec.entrypoint:
        lines.append(f"ENTRYPOINT {json.dumps(spec.entrypoint)}")
    if spec.cmd:
        lines.append(f"CMD {json.dumps(spec.cmd)}")
    if len(lines) == 1:
        lines.append("LABEL dev.labkit.airgap.note=same")  # Docker wants at least one instruction
    return "\n".join(lines) + "\n"


def _parents(names: Iterable[str]) -> list[str]:
    found = {str(parent) for name in names for parent in Path(name).parents} - {"."}
    return sorted(found)


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, 0
    return member
