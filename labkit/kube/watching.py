"""Watch: changes of objects as they happen, across dropped connections and expired versions."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from labkit.errors import KubeError
from labkit.kube.connection import Connection, Unreachable
from labkit.kube.objects import Object, dig
from labkit.kube.streams import hang_up

_RENEW_S = 10.0
_MARGIN_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_SHORT_S = 1.0
"""A connection that ends sooner did not do its work: the next one comes after a pause."""


@dataclass(frozen=True)
class Event:
    """One change: `type` is ADDED, MODIFIED or DELETED; `at` is when it arrived, in seconds since 1970."""

    type: str
    object: Object
    at: float


class Watch:
    """An iterator of events, which begins with ADDED for each object that is already there.

    After a gap (connection lost, version expired: 410) the objects are listed again, and what changed
    meanwhile comes as events too: following the events always gives the present state. `gaps` counts them.
    Attempts that fail follow each other with longer and longer pauses, as those of client-go's reflector do.

    Attributes:
        connected: whether what the events said so far is the present; False before the first list, after a
            connection broke or stayed silent, and at the end.
        error: what broke the connection last.

    Args:
        timeout_s: the iterator ends after so many seconds.
        count: or after so many events.
        renew_s: the server is asked to end each connection after so long. One of which nothing is heard for
            five seconds more counts as lost: a server that hangs says nothing either.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        query: dict[str, str],
        timeout_s: float,
        count: int | None,
        renew_s: float = _RENEW_S,
    ) -> None:
        self._connection = connection
        self._path = path
        self._query = query
        self._deadline = time.monotonic() + timeout_s
        self._left = count
        self._renew_s = renew_s
        self._known: dict[str, Object] = {}
        self._closed = threading.Event()
        self._response: Any = None
        self.gaps = 0
        self.connected = False
        self.error: KubeError | None = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iterator, also from another thread while it waits for the next event."""
        self._closed.set()
        response = self._response
        if response is not None:
            hang_up(response)

    def __iter__(self) -> Iterator[Event]:
        if self._left != 0:
            for event in self._events():
                yield event
                if self._left is not None:
                    self._left -= 1
                    if self._left <= 0:
                        break
        self.close()

    def _events(self) -> Iterator[Event]:
        version, pause_s = "", _FIRST_PAUSE_S
        try:
            while not self._over():
                begin = time.monotonic()
                try:
                    if not version:
                        version = yield from self._list()
                    begin = time.monotonic()
                    version = yield from self._follow(version)
                    worked = time.monotonic() - begin > _SHORT_S
                except KubeError as err:
                    self._lost(err)
                    self.gaps += 1
                    version, worked = "", False
                if worked:
                    pause_s = _FIRST_PAUSE_S
                else:
                    left_s = max(0.0, self._deadline - time.monotonic())
                    self._closed.wait(min(left_s, pause_s * random.uniform(0.5, 1.0)))
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self.connected = False

    def _lost(self, err: KubeError) -> None:
        if not self._over():
            self.connected, self.error = False, err

    def _list(self) -> Generator[Event, None, str]:
        """Events for what a list says; its version."""
        listed = self._connection.call("GET", self._path, query=self._query)
        if not isinstance(listed, dict):
            raise KubeError(f"{self._path} is answered by something that is no list: {listed!r:.80}")
        yield from self._differences(listed)
        self.connected = True
        return str(dig(listed, "metadata.resourceVersion", ""))

    def _follow(self, version: str) -> Generator[Event, None, str]:
        """Events of one connection; the version with which the next one goes on, "" for a new list."""
        for kind, obj in self._stream(version):
            if kind == "ERROR":  # 410 Gone and its like: begin with a list again
                self._lost(KubeError(str(dig(obj, "message") or dig(obj, "reason", "the watch failed"))))
                self.gaps += 1
                return ""
            version = dig(obj, "metadata.resourceVersion", version)
            if kind != "BOOKMARK":
                yield self._remember(kind, obj)
        return version

    def _stream(self, version: str) -> Iterator[tuple[str, Object]]:
        """Events of one connection, until the server, the network or `close` ends it."""
        import urllib3

        seconds = max(1, int(min(self._renew_s, self._deadline - time.monotonic() + 1)))
        query = {**self._query, "watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = str(seconds)
        response = self._connection.stream("GET", self._path, query=query, timeout_s=seconds + _MARGIN_S)
        self._response = response
        self.connected = True
        buffer = b""
        try:
            while not self._over():
                chunk = response.read1(65536)
                if not chunk:
                    return
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    yield event["type"], event["object"]
        except (urllib3.exceptions.HTTPError, OSError, ValueError, LookupError, TypeError) as err:
            # The next connection goes on from the last version.
            self._lost(Unreachable(f"The watch of {self._path} broke: {err}"))
        finally:
            self._response = None
            response.close()

    def _differences(self, listed: Object) -> Iterator[Event]:
        """What a fresh list says that the events so far did not."""
        kind, version = str(listed.get("kind", "")).removesuffix("List"), listed.get("apiVersion")
        items = listed.get("items") or []
        present = {
            dig(item, "metadata.uid", ""): {"kind": kind, "apiVersion": version, **item} for item in items
        }
        for uid in [uid for uid in self._known if uid not in present]:
            yield self._remember("DELETED", self._known[uid])
        for uid, obj in present.items():
            known = self._known.get(uid)
            if known is None:
                yield self._remember("ADDED", obj)
            elif dig(known, "metadata.resourceVersion") != dig(obj, "metadata.resourceVersion"):
                yield self._remember("MODIFIED", obj)

    def _remember(self, kind: str, obj: Object) -> Event:
        uid = dig(obj, "metadata.uid", "")
        if kind == "DELETED":
            self._known.pop(uid, None)
        else:
            self._known[uid] = obj
        return Event(kind, obj, time.time())

    def _over(self) -> bool:
        return self._closed.is_set() or time.monotonic() > self._deadline
