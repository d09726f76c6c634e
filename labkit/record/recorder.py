"""Recorder: watches for changes and writes down the present state at an interval."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from labkit.errors import ConfigError, KubeError, LabkitError
from labkit.kube import Event, Kube, Watch, dig, quantity
from labkit.kube.objects import timestamp
from labkit.record.facts import COLUMNS, FIXED_NAMESPACES, KINDS, Facts
from labkit.record.recording import Recording

Probe = Callable[[], float]
Key = tuple[str, str]  # namespace, name
_PATIENCE_S = 0.5
_ANSWER_S = 2.0
"""A sample after which the API server has answered nothing for so long is dropped."""
_METRICS = "/apis/metrics.k8s.io/v1beta1"


@dataclass(frozen=True)
class _Sample:
    """The state of tables at one moment, of which nobody knows yet whether it is the present."""

    at: float
    t_seconds: float
    tables: dict[str, dict[Key, Facts]]


class Recorder:
    """Records in background threads from `start` (or `with`) to `stop`.

    Objects are watched, not polled: their state at each interval comes from memory, and each change is noted
    when it happens. A sample counts once the API server has answered something after it. Where it has not, or
    where a watch is not connected, there is a row in `gaps` instead, and nothing invented in the table.
    Only metrics.k8s.io, which cannot be watched, is asked each time, in a thread of its own.

    Args:
        namespaces: which to record; None for all.
        interval_s: between samples, 0.2 or more.
        probes: functions that return a number, called at each interval in a thread of their own.
        limit_s: the recording stops by itself after so long.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        namespaces: Sequence[str] | None = None,
        interval_s: float = 1.0,
        probes: Mapping[str, Probe] | None = None,
        limit_s: float = 3600.0,
    ) -> None:
        if interval_s < 0.2:
            raise ConfigError(f"An interval of {interval_s} s is too short.", "Use 0.2 s or more.")
        connection = kube.connection
        self._kube = Kube(connection.kubeconfig, connection.context, patience_s=_PATIENCE_S)
        self._namespaces = list(namespaces) if namespaces is not None else None
        self._interval_s = interval_s
        self._probes = dict(probes or {})
        self._limit_s = limit_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._watches: dict[str, list[Watch]] = {}
        self._state: dict[str, dict[Key, Facts]] = {table: {} for table in KINDS}
        self._rows: dict[str, list[Facts]] = {}
        self._unproved: list[_Sample] = []
        self._silence = ""
        self._broken: dict[str, str] = {}
        self._measured: set[tuple[str, Key, float]] = set()
        self._threads: list[threading.Thread] = []
        self.started_at = 0.0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Begin; returns when the first state of every kind is known (at most 5 s)."""
        if self._threads:
            raise ConfigError("This recorder has been started before.", "Make a new one for a new recording.")
        self.started_at = time.time()
        for table, (kind, _) in KINDS.items():
            for namespace in self._namespaces_of(table):
                self._thread(self._follow, table, kind, namespace)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not all(self._fresh(table) for table in KINDS):
            time.sleep(0.02)
        self._thread(self._sample)
        self._thread(self._prove)
        self._thread(self._metrics)
        if self._probes:
            self._thread(self._probe)
        return self

    def stop(self) -> Recording:
        """End the recording; also safe to call twice."""
        self._stop.set()
        for watch in [watch for watches in self._watches.values() for watch in watches]:
            watch.close()
        for thread in self._threads:
            thread.join(5)
        self._ask()  # the last samples
        self._drop(float("inf"))
        return self.recording()

    def recording(self) -> Recording:
        """What has been recorded so far."""
        with self._lock:
            rows = {table: list(self._rows.get(table, [])) for table in COLUMNS}
        tables = {table: pd.DataFrame(entries, columns=COLUMNS[table]) for table, entries in rows.items()}
        for name in ("usage", "node_usage", "gaps"):
            tables[name] = tables[name].sort_values("t_seconds", ignore_index=True)
        return Recording(self.started_at, self._interval_s, **tables)

    def now(self) -> dict[str, dict[Key, Facts]]:
        """The present facts by table and (namespace, name), for a live display."""
        with self._lock:
            return {table: dict(objects) for table, objects in self._state.items()}

    @property
    def t_seconds(self) -> float:
        """Seconds since the recording began."""
        return time.time() - self.started_at

    def _thread(self, target: Callable[..., None], *args: Any) -> None:
        name = target.__name__
        thread = threading.Thread(
            target=self._guard, args=(target, *args), name=f"labkit-record-{name}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _guard(self, target: Callable[..., None], *args: Any) -> None:
        """Run what a thread is for; should it fail, the recording says so and takes its table as unknown."""
        try:
            target(*args)
        except Exception as err:
            source = str(args[0]) if args else target.__name__.strip("_")
            self._broken[source] = f"the recorder failed: {type(err).__name__}: {err}"
            self._gap(source, self._broken[source])

    def _add(self, table: str, **row: Any) -> None:
        with self._lock:
            self._rows.setdefault(table, []).append(row)

    def _gap(self, source: str, error: object) -> None:
        text = error.message if isinstance(error, LabkitError) else str(error)
        self._add("gaps", t_seconds=self.t_seconds, source=source, error=text)

    def _fresh(self, table: str) -> bool:
        """Whether all watches of a table are connected, so that memory is the present."""
        watches = self._watches.get(table, [])
        expected = len(self._namespaces_of(table))
        return (
            table not in self._broken
            and len(watches) == expected
            and all(watch.connected for watch in watches)
        )

    def _namespaces_of(self, table: str) -> Sequence[str | None]:
        """Which namespaces are watched for a table; None for all, or for a kind that is in none."""
        if table in FIXED_NAMESPACES:
            return [FIXED_NAMESPACES[table]]
        return self._namespaces or [None]

    def _follow(self, table: str, kind: str, namespace: str | None) -> None:
        """Note each change of a kind of object, until the end."""
        while not self._stop.is_set():
            try:
                everywhere = namespace is None and kind != "Node"
                watch = self._kube.watch(
                    kind, namespace=namespace, everywhere=everywhere, timeout_s=self._limit_s
                )
            except KubeError as err:  # discovery failed
                self._gap(table, err)
                self._stop.wait(self._interval_s)
                continue
            with self._lock:
                self._watches.setdefault(table, []).append(watch)
            if self._stop.is_set():
                watch.close()
            for event in watch:
                self._change(table, kind, event)
            return

    def _change(self, table: str, kind: str, event: Event) -> None:
        name, namespace = dig(event.object, "metadata.name"), dig(event.object, "metadata.namespace", "")
        key = (namespace, name)
        after = KINDS[table][1](event.object) if event.type != "DELETED" else None
        t_seconds = event.at - self.started_at
        with self._lock:
            before = self._state[table].get(key)
            if after is None:
                self._state[table].pop(key, None)
            else:
                self._state[table][key] = after
            if (before is None) != (after is None):
                changes: list[tuple[str, Any, Any]] = [("exists", before is not None, after is not None)]
                changes += [(what, None, value) for what, value in (after or {}).items()]
            else:
                pairs = ((what, (before or {}).get(what), value) for what, value in (after or {}).items())
                changes = [(what, old, new) for what, old, new in pairs if old != new]
            rows = self._rows.setdefault("transitions", [])
            for change in changes:
                values = (t_seconds, kind, namespace, name, *change)
                rows.append(dict(zip(COLUMNS["transitions"], values, strict=True)))

    def _sample(self) -> None:
        """Note the state of everything at each interval, until it is proved to be the present."""
        deadline = time.monotonic() + self._limit_s
        tick = time.monotonic()
        while not self._stop.is_set() and time.monotonic() < deadline:
            sample = _Sample(time.monotonic(), self.t_seconds, {})
            for table in KINDS:
                if not self._fresh(table):
                    self._gap(table, self._broken.get(table, "not connected"))
                    continue
                with self._lock:
                    sample.tables[table] = dict(self._state[table])
            with self._lock:
                self._unproved.append(sample)
            self._drop(time.monotonic() - _ANSWER_S)
            tick = max(tick + self._interval_s, time.monotonic() - self._interval_s)
            self._stop.wait(max(0.0, tick - time.monotonic()))
        self._stop.set()
        for watch in [watch for watches in self._watches.values() for watch in watches]:
            watch.close()

    def _prove(self) -> None:
        """Ask the API server for something small at each interval: a silent watch alone proves nothing."""
        while not self._stop.is_set():
            begin = time.monotonic()
            self._ask()
            self._stop.wait(max(0.0, begin + self._interval_s - time.monotonic()))

    def _ask(self) -> None:
        begin = time.monotonic()
        try:
            self._kube.request("GET", "/version", timeout_s=_ANSWER_S / 2)
        except KubeError as err:
            self._silence = err.message
            return
        self._drop(time.monotonic() - _ANSWER_S)  # an answer that came late proves nothing for so long ago
        with self._lock:
            proved = [sample for sample in self._unproved if sample.at <= begin]
            self._unproved = [sample for sample in self._unproved if sample.at > begin]
            for sample in proved:
                for table, objects in sample.tables.items():
                    self._rows.setdefault(table, []).extend(
                        {"t_seconds": sample.t_seconds, "namespace": namespace, "name": name, **facts}
                        for (namespace, name), facts in objects.items()
                    )

    def _drop(self, before: float) -> None:
        """Samples that nothing has proved become gaps, at their times."""
        with self._lock:
            late = [sample for sample in self._unproved if sample.at < before]
            self._unproved = [sample for sample in self._unproved if sample.at >= before]
        for sample in late:
            for table in sample.tables:
                error = f"the API server did not answer: {self._silence or 'nothing was heard of it'}"
                self._add("gaps", t_seconds=sample.t_seconds, source=table, error=error)

    def _metrics(self) -> None:
        """Ask for metrics at each interval."""
        paths = [("node_usage", f"{_METRICS}/nodes")]
        if self._namespaces is None:
            paths.append(("usage", f"{_METRICS}/pods"))
        paths += [("usage", f"{_METRICS}/namespaces/{each}/pods") for each in self._namespaces or []]
        while not self._stop.is_set():
            begin = time.monotonic()
            for table, path in paths:
                try:
                    items = self._kube.request("GET", path, timeout_s=2.0).get("items") or []
                except KubeError as err:
                    self._gap(table, err)
                    continue
                for item in items:
                    self._measure(table, item)
            self._stop.wait(max(0.0, begin + self._interval_s - time.monotonic()))

    def _measure(self, table: str, item: dict[str, Any]) -> None:
        """One row per measurement: metrics-server repeats the last one until it has a new one."""
        key = (dig(item, "metadata.namespace", ""), dig(item, "metadata.name"))
        at = timestamp(item.get("timestamp")) or time.time()
        if (table, key, at) in self._measured:
            return
        self._measured.add((table, key, at))
        uses = [each["usage"] for each in item["containers"]] if "containers" in item else [item["usage"]]
        self._add(
            table,
            t_seconds=at - self.started_at,
            namespace=key[0],
            name=key[1],
            cpu_millicores=1000 * sum(quantity(use.get("cpu", 0)) for use in uses),
            memory_bytes=int(sum(quantity(use.get("memory", 0)) for use in uses)),
            window_s=_seconds(item.get("window", "")),
        )

    def _probe(self) -> None:
        """Call the user's probes; what they raise is recorded, not raised."""
        while not self._stop.is_set():
            begin = time.monotonic()
            for name, probe in self._probes.items():
                t_seconds, before, value, error = self.t_seconds, time.monotonic(), float("nan"), ""
                try:
                    value = float(probe())
                except Exception as err:
                    error = f"{type(err).__name__}: {err}"
                took = (time.monotonic() - before) * 1000
                self._add(
                    "probes", t_seconds=t_seconds, name=name, value=value, duration_ms=took, error=error
                )
            self._stop.wait(max(0.0, begin + self._interval_s - time.monotonic()))


def _seconds(duration: str) -> float:
    """A Go duration such as `1m2.5s` in seconds."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|h|m|s)", duration))
