"""A live dashboard of a recording: a widget in JupyterLab, plain status lines where nobody looks."""

from __future__ import annotations

import html
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from labkit.errors import LabkitError
from labkit.load import Running
from labkit.record import Recorder
from labkit.record.facts import Facts

_MAX_LINES = 200
_COLOURS = {"ready": "#009E73", "starting": "#E69F00", "ending": "#BBBBBB", "failed": "#D55E00"}
_RECENT_S = 5.0
_NAMED = 3
_FONT = "font:13px/1.5 system-ui,sans-serif;color:inherit;max-width:880px"
_CELL = "text-align:left;height:24px"
_TABLE = "border-spacing:10px 0;color:inherit;background:none"


@dataclass(frozen=True)
class View:
    """What is shown: plain values, so that text and widget say the same."""

    t_seconds: float
    nodes: tuple[tuple[str, bool, str], ...]  # name, ready, taints
    pods: tuple[tuple[str, str, str], ...]  # name, node, state of _COLOURS
    hpas: tuple[Facts, ...]
    load: str
    rows: tuple[tuple[str, str], ...] = ()  # label, text


def view(recorder: Recorder, load: Running | None) -> View:
    """The present state of a recorder and a load."""
    now = recorder.now()
    hpas = []
    for (namespace, name), facts in sorted(now["hpas"].items()):
        ready = now["deployments"].get((namespace, name), {}).get("ready_replicas")
        hpas.append({"name": name, "ready_replicas": ready, **facts})
    return View(
        t_seconds=recorder.t_seconds,
        nodes=tuple(
            (name, facts["ready"] == "True", facts["taints"])
            for (_, name), facts in sorted(now["nodes"].items())
        ),
        pods=tuple((name, facts["node"], _state(facts)) for (_, name), facts in sorted(now["pods"].items())),
        hpas=tuple(hpas),
        load=_load_words(load) if load else "",
    )


def _state(pod: Facts) -> str:
    if pod["terminating"] or pod["phase"] == "Succeeded":
        return "ending"
    if pod["phase"] == "Failed" or "BackOff" in pod["reason"] or "Err" in pod["reason"]:
        return "failed"
    return "ready" if pod["ready"] else "starting"


def _load_words(load: Running) -> str:
    frame = load.snapshot().requests
    if frame.empty:
        return "load begins"
    recent = frame[frame["t_scheduled_s"] > frame["t_scheduled_s"].max() - _RECENT_S]
    good = recent.loc[~recent["failed"], "latency_ms"]
    p95 = f"p95 {good.quantile(0.95):.0f} ms" if len(good) else "no answers"
    failed = f"{int(frame['failed'].sum())} failed of {len(frame)}"
    return f"{len(recent) / _RECENT_S:.0f} requests/s, {p95}, {failed}"


def as_text(state: View) -> str:
    """One line."""
    ready = sum(1 for _, ok, _ in state.nodes if ok)
    pods = sum(1 for *_, kind in state.pods if kind == "ready")
    parts = [
        f"{state.t_seconds:5.0f} s",
        f"nodes {ready}/{len(state.nodes)} Ready",
        f"pods {pods}/{len(state.pods)} ready",
    ]
    parts += [_hpa_words(facts) for facts in state.hpas]
    parts += [state.load] if state.load else []
    return " | ".join([*parts, *(f"{label}: {text}" for label, text in state.rows)])


def _hpa_words(facts: Facts) -> str:
    used, target = facts["cpu_utilization_percent"], facts["cpu_target_percent"]
    cpu = f"CPU {'?' if used is None else f'{used:.0f}'} of {'?' if target is None else f'{target:.0f}'} %"
    ready = "" if facts["ready_replicas"] is None else f", {facts['ready_replicas']} ready"
    return f"{facts['name']}: {cpu}, {facts['desired_replicas']} desired{ready}"


def as_html(state: View) -> str:
    """A small page: nodes with their pods as squares, autoscalers as bars, the load in words."""
    return _head(state) + _body(state)


def _head(state: View, word: str = "") -> str:
    """How long it has been shown, and what the colours mean."""
    legend = " ".join(f'<span style="color:{colour}">■</span> {name}' for name, colour in _COLOURS.items())
    return f'<div style="{_FONT};opacity:.75">{word}{state.t_seconds:.0f} s · pods: {legend}</div>'


def _body(state: View) -> str:
    """What changes only when something happens."""
    rows = [_node_row(name, ok, taints, state) for name, ok, taints in state.nodes]
    if any(not node for _, node, _ in state.pods):
        rows.append(_row("no node yet", _squares(state, ""), ""))
    rows += [_hpa_row(facts) for facts in state.hpas]
    if state.load:
        rows.append(_row("load", html.escape(state.load), ""))
    table = f'<table style="{_TABLE}">{"".join(rows)}</table>'
    more = "".join(_row(html.escape(label), html.escape(text)) for label, text in state.rows)
    table += f'<table style="{_TABLE}">{more}</table>' if more else ""
    return f'<div style="{_FONT}">{table}</div>'


def _node_row(name: str, ok: bool, taints: str, state: View) -> str:
    colour = _COLOURS["ready" if ok else "failed"]
    word = f'<span style="color:{colour}">{"Ready" if ok else "NotReady"}</span> {html.escape(taints)}'
    return _row(html.escape(name), word, _squares(state, name))


def _squares(state: View, node: str) -> str:
    """The pods of a node: a square for each, and in words how many are in which state."""
    pods = [(name, kind) for name, on, kind in state.pods if on == node]
    squares = "".join(
        f'<span title="{html.escape(name)}: {kind}" style="color:{_COLOURS[kind]};font-size:18px">■</span>'
        for name, kind in pods
    )
    kinds = [kind for _, kind in pods]
    words = ", ".join(f"{kinds.count(kind)} {kind}" for kind in _COLOURS if kind in kinds) or "no pod"
    troubled = [name for name, kind in pods if kind != "ready"]
    named = ", ".join(troubled[:_NAMED]) + (" …" if len(troubled) > _NAMED else "")
    told = html.escape(f"{words} ({named})" if named else words)
    return f'<span aria-hidden="true">{squares}</span> {told}'


def _hpa_row(facts: Facts) -> str:
    used, target = facts["cpu_utilization_percent"] or 0.0, facts["cpu_target_percent"] or 100.0
    full = 2 * target
    bar = (
        '<div style="position:relative;width:260px;height:12px;background:rgba(128,128,128,.25)">'
        f'<div style="width:{min(100, 100 * used / full):.0f}%;height:12px;background:#E69F00"></div>'
        '<div style="position:absolute;left:50%;top:-2px;width:2px;height:16px;background:currentColor">'
        "</div></div>"
    )
    return _row(html.escape(str(facts["name"])), bar, html.escape(_hpa_words(facts).partition(": ")[2]))


def _row(*cells: str) -> str:
    """Rows are of one height, so that nothing moves when the squares of a pod come and go."""
    return "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells) + "</tr>"


class Dashboard:
    """Shows a recorder's present state until `stop`, or to the end of a `with` block.

    Args:
        recorder: one that has been started.
        load: a running load, to show its rate, latency and failures.
        live: True for a widget, False for lines of text, None to choose: a widget in a notebook that somebody
            looks at, else a line every `text_every_s` seconds, and 200 lines at most.
        text_every_s: 0 for lines only where `tell` is called.
        rows: more to show: a function that gives (label, text) pairs, called at each refresh.
    """

    def __init__(
        self,
        recorder: Recorder,
        load: Running | None = None,
        *,
        live: bool | None = None,
        text_every_s: float = 10.0,
        rows: Callable[[], list[tuple[str, str]]] = list,
    ) -> None:
        self.recorder, self.load = recorder, load
        self._rows = rows
        self.live = _somebody_looks() if live is None else live
        self._every_s = 1.0 if self.live else text_every_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._widget: Any = None
        self._clock: Any = None
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.stop()
        except Exception:
            if kind is None:  # else the block's own error tells more
                raise

    def start(self) -> Self:
        """Show it, and keep it up to date in the background."""
        if self.live:
            import ipywidgets  # type: ignore[import-untyped]
            from IPython.display import display

            state = self._view()
            self._clock, self._widget = ipywidgets.HTML(_head(state)), ipywidgets.HTML(_body(state))
            display(ipywidgets.VBox([self._clock, self._widget]))  # type: ignore[no-untyped-call]
        elif not self._every_s:
            self.tell()
            return self
        self._thread = threading.Thread(target=self._run, name="labkit-dashboard", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Show the last state and end; safe to call twice.

        Raises:
            Exception: what went wrong while showing, `rows` included; a LabkitError is only shown.
        """
        if self._thread is not None and not self._stop.is_set():
            self._stop.set()
            self._thread.join(5)
            self._refresh()
            if self._error is not None:
                raise self._error

    def tell(self) -> None:
        """Print the present state as a line, unless a widget shows it anyway."""
        if self._widget is None:
            print(as_text(self._view()), flush=True)

    def _view(self) -> View:
        return replace(view(self.recorder, self.load), rows=tuple(self._rows()))

    def _run(self) -> None:
        lines = 0
        begin = time.monotonic()
        while not self._stop.is_set() and (self.live or lines < _MAX_LINES):
            self._refresh()
            lines += 1
            self._stop.wait(max(0.05, begin + lines * self._every_s - time.monotonic()))

    def _refresh(self) -> None:
        """Show the present state, or what keeps it from being shown; the next time may be better."""
        try:
            self._show()
        except Exception as error:
            if not isinstance(error, LabkitError):
                self._error = self._error or error
            with suppress(OSError, ValueError):  # nowhere left to write to
                self._say(f"The dashboard cannot show the present state: {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        if self._widget is not None:
            self._widget.value = f"<p>{html.escape(text)}</p>"
        else:
            print(text, flush=True)

    def _show(self) -> None:
        if self._widget is not None:
            state = self._view()
            if self._clock is not None:
                self._clock.value = _head(state, "ended after " if self._stop.is_set() else "")
            self._widget.value = _body(state)  # the browser hears of it only when it differs
        else:
            self.tell()


def _somebody_looks() -> bool:
    """Whether this is a notebook with a browser: not so under `labkit run`, which says LABKIT_HEADLESS."""
    if os.environ.get("LABKIT_HEADLESS") or "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"
