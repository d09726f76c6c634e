"""The bare repositories of a directory."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dulwich.errors import NotGitRepository
from dulwich.repo import Repo
from dulwich.server import Backend, BackendRepo

NOTHING = b"0" * 40
MOST_PACKS = 20
"""Each push adds a pack, and each request opens them all."""
_PATIENCE_S = 5.0

logger = logging.getLogger("git")


class Repositories:
    """Repositories by name; those that are named and not there yet are made, with the branch main."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self._root, self._names = root, names
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._requests, self._at_work = 0, threading.Condition()
        for name in names:
            folder = self.folder(name)
            if not (folder / "HEAD").exists():
                folder.mkdir(parents=True, exist_ok=True)
                Repo.init_bare(str(folder), default_branch=b"main").close()

    def folder(self, name: str) -> Path:
        """Where a repository is."""
        return self._root / f"{name}.git"

    def lock(self, name: str) -> threading.Lock:
        """One push at a time."""
        return self._locks[name]

    def find(self, path: str) -> str:
        """The repository that a request is about: "/shop.git/info/refs" is of "shop"; "" for none."""
        name = path.strip("/").partition("/")[0].removesuffix(".git")
        return name if name in self._names else ""

    def refs(self, name: str) -> dict[bytes, bytes]:
        """Branches and tags, and the commits that they point to."""
        with Repo(str(self.folder(name))) as repository:
            refs = repository.get_refs()
        return {ref: commit for ref, commit in refs.items() if ref.startswith(b"refs/")}

    def moved(self, before: dict[bytes, bytes], after: dict[bytes, bytes]) -> list[tuple[str, str, str]]:
        """Refs that differ, with their commits before and after."""
        return [
            (ref.decode(), before.get(ref, NOTHING).decode(), after.get(ref, NOTHING).decode())
            for ref in sorted(before.keys() | after.keys())
            if before.get(ref) != after.get(ref)
        ]

    @contextmanager
    def request(self) -> Iterator[Backend]:
        """What a request opens, for dulwich: closed at the request's end, and no pack is removed before."""
        with self._at_work:
            self._requests += 1
        try:
            with ExitStack() as opened:
                yield _Opened(self, opened)
        finally:
            with self._at_work:
                self._requests -= 1
                self._at_work.notify_all()

    def tidy(self, name: str) -> None:
        """One pack of too many, as `git gc --auto` does; left to a later push while others work."""
        packs = len(list((self.folder(name) / "objects" / "pack").glob("*.pack")))
        if packs <= MOST_PACKS:
            return
        with self._at_work:
            if not self._at_work.wait_for(lambda: not self._requests, _PATIENCE_S):
                return
            try:
                with Repo(str(self.folder(name))) as repository:
                    objects = repository.object_store.repack()
            except OSError as error:  # what was pushed is there all the same
                logger.warning("%s: %d packs stay as they are: %s", name, packs, error)
            else:
                logger.info("%s: %d packs became one of %d objects", name, packs, objects)


class _Opened(Backend):
    """The repositories that one request opens."""

    def __init__(self, repositories: Repositories, opened: ExitStack) -> None:
        self._repositories, self._opened = repositories, opened

    def open_repository(self, path: str | bytes) -> BackendRepo:
        """A repository by the path of its URL."""
        text = path.decode() if isinstance(path, bytes) else path
        name = self._repositories.find(text)
        if not name:
            raise NotGitRepository(f"no repository {text}")
        repository = Repo(str(self._repositories.folder(name)))
        return self._opened.enter_context(repository)
