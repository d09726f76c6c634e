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


@dataclass
class Context:
    """Files of a build context: name → content, path of it, or target of a link."""

    files: dict[str, bytes | Path] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    executables: set[str] = field(default_factory=set)

    def add(self, name: str, content: bytes | str | Path, *, executable: bool = False) -> None:
        """Add a file; `content` is what is in it, or where it is."""
        self.files[name] = content.encode() if isinstance(content, str) else content
        if executable:
            self.executables.add(name)

    def add_tree(self, root: Path, prefix: str) -> None:
        """Add all files below a folder; scripts stay executable."""
        for path in sorted(root.rglob("*")):
            if path.is_file():
                script = path.read_bytes()[:2] == b"#!"
                self.add(f"{prefix}/{path.relative_to(root)}", path, executable=script)

    def write(self, stream: IO[bytes]) -> None:
        """Send it all as a tar archive."""
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for folder in _parents([*self.files, *self.links]):
                archive.addfile(_member(folder, tarfile.DIRTYPE, 0o755))
            for name, content in self.files.items():
                member = _member(name, tarfile.REGTYPE, 0o755 if name in self.executables else 0o644)
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
        context.add(f"files{path}", programs[program], executable=True)
    for path, source in spec.files.items():
        content = module_file(source).read_bytes()
        context.add(f"files{path}", content, executable=content[:2] == b"#!")
    for path, target in spec.links.items():
        context.links[f"files{path}"] = target


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
