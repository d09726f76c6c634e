"""The WSGI application: passwords and permissions before dulwich, word of pushes after it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs

from dulwich.web import make_wsgi_chain

from gitserver.pushes import Pushes
from gitserver.repositories import Repositories
from gitserver.users import Users

Environ = dict[str, Any]
Start = Callable[..., Any]
LONGEST_WAIT_S = 25.0

logger = logging.getLogger("git")


class App:
    """Repositories at /NAME.git, pushes at /pushes?after=NUMBER&wait=SECONDS, health at /healthz."""

    def __init__(self, repositories: Repositories, users: Users, pushes: Pushes) -> None:
        self._repositories, self._users, self._pushes = repositories, users, pushes

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """One request."""
        path = environ["PATH_INFO"]
        if path == "/healthz":
            return _answer(start, "200 OK", "ok\n")
        user = self._users.name(environ.get("HTTP_AUTHORIZATION", ""))
        if not user:
            ask = [("WWW-Authenticate", 'Basic realm="git"')]
            return _answer(start, "401 Unauthorized", "user and password, please\n", ask)
        if path == "/pushes":
            return self._tell(environ, start)
        name = self._repositories.find(path)
        if not name:
            return _answer(start, "404 Not Found", "no such repository\n")
        if "git-receive-pack" not in f"{path}?{environ.get('QUERY_STRING', '')}":
            return self._serve(environ, start)
        if not self._users.may_push(user, name):
            return _answer(start, "403 Forbidden", f"{user} may not push to {name}\n")
        return self._receive(name, user, environ, start)

    def _receive(self, name: str, user: str, environ: Environ, start: Start) -> Iterable[bytes]:
        """A push, or the question before it which refs there are."""
        if environ["REQUEST_METHOD"] != "POST":
            return self._serve(environ, start)
        with self._repositories.lock(name):
            before = self._repositories.refs(name)
            body = list(self._serve(environ, start))
            moved = self._repositories.moved(before, self._repositories.refs(name))
            self._repositories.tidy(name)
        for ref, old, new in moved:
            logger.info("%s pushed %s of %s: %s → %s", user, ref, name, old[:7], new[:7])
            self._pushes.add(name, ref, old, new, user)
        return body

    def _serve(self, environ: Environ, start: Start) -> Iterator[bytes]:
        """Dulwich's answer."""
        with self._repositories.request() as opened:
            yield from make_wsgi_chain(opened)(environ, start)

    def _tell(self, environ: Environ, start: Start) -> Iterable[bytes]:
        query = parse_qs(environ.get("QUERY_STRING", ""))
        try:
            number = int(query.get("after", ["0"])[0])
            wait_s = min(max(0.0, float(query.get("wait", ["0"])[0])), LONGEST_WAIT_S)
        except ValueError:
            return _answer(start, "400 Bad Request", "after and wait are numbers\n")
        found = [asdict(push) for push in self._pushes.after(number, wait_s)]
        return _answer(start, "200 OK", json.dumps(found), kind="application/json")


def _answer(
    start: Start, status: str, text: str, headers: Iterable[tuple[str, str]] = (), kind: str = "text/plain"
) -> Iterable[bytes]:
    body = text.encode()
    start(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *headers])
    return [body]
