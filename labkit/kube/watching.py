"""Watch: changes of objects as they happen, across dropped connections and expired versions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labkit.errors import KubeError
from labkit.kube.connection import Connection
from labkit.kube.objects import Object, dig

_SERVER_TIMEOUT_S = 240


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

    Args:
        timeout_s: the iterator ends after so many seconds.
        count: or after so many events.
    """

    def __init__(
        self, connection: Connection, path: str, query: dict[str, str], timeout_s: float, count: int | None
    ) -> None:
        self._connection = connection
        self._path = path
        self._query = query
        self._deadline = time.monotonic() + timeout_s
        self._left = count
        self._known: dict[str, Object] = {}
        self._closed = threading.Event()
        self._response: Any = None
        self.gaps = 0
        self.connected = False

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iterator, also from another thread while it waits for the next event."""
        self._closed.set()
        response = self._response
        if response is not None:
            try:
                response.shutdown()
            except (OSError, ValueError, RuntimeError):  # already closed
                return

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
        version = ""
        while not self._over():
            try:
                if not version:
                    listed = self._connection.call("GET", self._path, query=self._query)
                    version = dig(listed, "metadata.resourceVersion", "")
                    yield from self._differences(listed)
                    self.connected = True
                for kind, obj in self._stream(version):
                    if kind == "ERROR":  # 410 Gone and its like: begin with a list again
                        version = ""
                        self.gaps += 1
                        break
                    version = dig(obj, "metadata.resourceVersion", version)
                    if kind != "BOOKMARK":
                        yield self._remember(kind, obj)
            except KubeError:
                if self._over():
                    return
                self.connected = False
                self.gaps += 1
                version = ""
                self._closed.wait(0.2)

    def _stream(self, version: str) -> Iterator[tuple[str, Object]]:
        """Events of one connection, until the server, the network or `close` ends it."""
        import urllib3

        seconds = max(1, min(_SERVER_TIMEOUT_S, int(self._deadline - time.monotonic()) + 1))
        query = {**self._query, "watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = str(seconds)
        response = self._connection.stream("GET", self._path, query=query, timeout_s=seconds + 5)
        self._response = response
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
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            return  # the next connection goes on from the last version
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
