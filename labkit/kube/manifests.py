"""Manifests as documents that know where they come from, so that an error can name file, line and field."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from labkit.errors import KubeError
from labkit.kube.objects import Object, title

Source = str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]]
_TYPED = re.compile(r"failed to create typed patch object \(.*?\): (\..*?): (.*)")  # of server-side apply
_KUSTOMIZATION = ("kustomization.yaml", "kustomization.yml", "Kustomization")


@dataclass(frozen=True)
class Document:
    """One object of a manifest; `number` counts from 1, `line` is where it starts, `text` its YAML or ""."""

    obj: Object
    source: str
    number: int
    line: int = 0
    text: str = ""

    @property
    def where(self) -> str:
        return f"{self.source}, document {self.number} ({title(self.obj)})"

    def error(self, message: str, hint: str = "") -> KubeError:
        """An error that says where; a field that the server's message names gets its line."""
        place, typed = self.where, _TYPED.search(message)
        if typed:
            path = re.sub(r"\[[^\]]*\]", "", typed[1])
            parent, _, key = path.rpartition(".")
            kind = str(self.obj.get("kind", "")).lower()
            unknown = typed[2] == "field not declared in schema"
            message = (
                f"there is no field {path.lstrip('.')}" if unknown else f"{path.lstrip('.')}: {typed[2]}"
            )
            hint = f"`kubectl explain {kind}{parent if unknown else path}` says what is allowed."
            place = place.replace(",", f", line {line},", 1) if (line := self._line_of(key)) else place
        return KubeError(f"{place}: {message}", hint)

    def _line_of(self, key: str) -> int:
        """The line of a key that is there once, else 0."""
        lines = enumerate(self.text.splitlines(), self.line)
        hits = [
            number for number, text in lines if re.match(rf"[\s-]*[\"']?{re.escape(key)}[\"']?\s*:", text)
        ]
        return hits[0] if len(hits) == 1 else 0


def load(source: Source, kubectl: Path | None) -> list[Document]:
    """Documents of a dict, a list of dicts, YAML text, a file, a directory, or a kustomization directory.

    Raises:
        KubeError: unreadable, not YAML, a key twice, or not a Kubernetes object; names file and line.
    """
    if isinstance(source, Mapping):
        return [_check(Document(dict(source), "object", 1))]
    if not isinstance(source, str | Path):
        return [_check(Document(dict(obj), "objects", n)) for n, obj in enumerate(source, 1)]
    if isinstance(source, str) and "\n" in source:
        return _parse(source, "text")
    path = Path(source)
    if path.is_dir():
        if any((path / name).is_file() for name in _KUSTOMIZATION):
            return _parse(_kustomize(path, kubectl), f"{path} (kustomize)")
        files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml", ".json"))
        if not files:
            raise KubeError(
                f"{path} has no manifest.", "Name a directory with .yaml files or a kustomization.yaml."
            )
        return [document for file in files for document in load(file, kubectl)]
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as err:
        raise KubeError(f"The manifest {path} cannot be read: {err}.") from err


def _parse(text: str, source: str) -> list[Document]:
    documents: list[Document] = []
    try:
        for node in yaml.compose_all(text, Loader=_StrictLoader):
            if node is None:
                continue
            start, end = node.start_mark, node.end_mark
            body = "\n".join(text.splitlines()[start.line : end.line + 1])
            loader = _StrictLoader("")
            obj = loader.construct_document(node)
            number = len(documents) + 1
            for item in obj["items"] if isinstance(obj, dict) and obj.get("kind") == "List" else [obj]:
                if item is not None:
                    documents.append(_check(Document(item, source, number, start.line + 1, body)))
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark
        raise KubeError(
            f"{source}, line {mark.line + 1 if mark else '?'}: not valid YAML: {err.problem}.",
            "Check the indentation and the quotes of that line and the one before it.",
        ) from err
    except yaml.YAMLError as err:
        raise KubeError(f"{source}: not valid YAML: {err}.") from err
    return documents


def _check(document: Document) -> Document:
    obj = document.obj
    if not isinstance(obj, dict):
        raise KubeError(f"{document.source}, document {document.number} is not an object but {obj!r:.40}.")
    missing = [key for key in ("apiVersion", "kind") if not isinstance(obj.get(key), str)]
    if not isinstance(obj.get("metadata"), dict) or not obj["metadata"].get("name"):
        missing.append("metadata.name")
    if missing:
        raise document.error(
            f"{' and '.join(missing)} missing", "Every object has apiVersion, kind and metadata.name."
        )
    return document


def _kustomize(path: Path, kubectl: Path | None) -> str:
    run = run_kubectl(kubectl, ["kustomize", str(path)])
    if run.returncode != 0:
        raise KubeError(f"kubectl kustomize {path} failed: {run.stderr.strip()[-800:]}")
    return run.stdout


def run_kubectl(
    kubectl: Path | None, args: list[str], timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run kubectl; its exit code is the caller's to judge.

    Raises:
        KubeError: there is no kubectl, or it took longer than `timeout_s`.
    """
    if kubectl is None:
        raise KubeError("kubectl was not found.", "`labkit doctor` says how to get it.")
    try:
        return subprocess.run(
            [str(kubectl), *args], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise KubeError(f"kubectl {' '.join(args)} did not end within {timeout_s:.0f} s.") from None


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is there twice, which YAML forbids and PyYAML lets pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag == "tag:yaml.org,2002:str":
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# A manifest's times stay text, as JSON has no type for them.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in entries if tag != "tag:yaml.org,2002:timestamp"]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
