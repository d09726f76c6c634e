"""What a load run measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd

from labkit import boxes
from labkit.load.profiles import Profile
from labkit.sender.faults import NOT_SENT

BASE_COLUMNS = ["t_scheduled_s", "latency_ms", "lag_ms", "status", "error"]
OWN_COLUMNS = ["own_ms", "unread_ms"]
_OWN_SHARE, _OWN_LEAST_MS = 0.25, 2.0
"""The generator's own part of p99 is small below this share of it, or below so many milliseconds."""

_SLIVER = 0.1
"""The least part of a window by which a rate is divided."""


def _nothing_unsent() -> pd.DataFrame:
    return pd.DataFrame({"t_scheduled_s": pd.Series(dtype=float), "error": pd.Series(dtype=str)})


@dataclass(frozen=True)
class Summary:
    """Latencies are of requests answered with a status below 400, counted from the scheduled arrival.

    They end when the kernel has the answer's last byte, however late the generator reads it.

    Attributes:
        requests: that were sent; `failed` of them without a good answer.
        unsent: (reason, number) of those that were due, and were not sent for want of something on this side.
        lag_p99_ms: how late requests were sent: the schedule's error.
        own_p99_ms: the generator's own part of the latencies: the lag, and what it took between connecting
            and sending.
        unread_p99_ms: how long answers waited to be read. The latencies do not contain it; NaN where the
            kernel does not tell, and then they do.
        kept_up: everything was sent, and the generator's own part is small against p99.
    """

    requests: int
    failed: int
    offered_rps: float
    answered_rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    lag_p99_ms: float
    own_p99_ms: float
    unread_p99_ms: float
    generator_cpu_percent: float
    cpu_ms_per_request: float
    failures: tuple[tuple[str, int], ...]
    unsent: tuple[tuple[str, int], ...]
    kept_up: bool

    def __str__(self) -> str:
        kinds = _counted(self.failures)
        lines = [
            f"{self.requests} requests, {self.failed} failed{f' ({kinds})' if kinds else ''}",
            f"offered {self.offered_rps:.1f}/s, answered {self.answered_rps:.1f}/s",
            f"latency p50 {self.p50_ms:.1f} ms, p95 {self.p95_ms:.1f} ms, p99 {self.p99_ms:.1f} ms",
            f"the generator's own part: {self.own_p99_ms:.1f} ms at p99 (requests left up to "
            f"{self.lag_p99_ms:.1f} ms late); {self._reading}",
        ]
        if self.unsent:
            lines.append(
                f"WARNING: the load generator did not send {sum(count for _, count in self.unsent)} more "
                f"requests ({_counted(self.unsent)}). That is its own fault, not the server's. {self._remedy}"
            )
        elif not self.kept_up:
            lines.append(
                "WARNING: the load generator itself could not keep up: "
                f"{self.own_p99_ms:.1f} ms at p99 are its own (CPU {self.generator_cpu_percent:.0f} % "
                "busy). Lower the rate, or let the machine do less meanwhile."
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        numbers = (
            f"{self.requests:,}",
            f"{self.failed:,}",
            f"{self.offered_rps:.1f}/s",
            f"{self.answered_rps:.1f}/s",
            *("–" if math.isnan(ms) else f"{ms:.1f} ms" for ms in (self.p50_ms, self.p95_ms, self.p99_ms)),
        )
        columns = ("requests", "failed", "offered", "answered", "p50", "p95", "p99")
        return boxes.box(
            "Load",
            boxes.table(columns, [numbers]),
            boxes.line(f"Failures: {_counted(self.failures)}" if self.failures else ""),
            *(boxes.line(each, warning=each.startswith("WARNING")) for each in str(self).splitlines()[3:]),
            state="failed" if self.failed else "ok" if self.kept_up else "degraded",
        )

    @property
    def _reading(self) -> str:
        if self.unread_p99_ms != self.unread_p99_ms:
            return "the time that answers waited to be read is in the latencies too"
        return f"answers waited up to {self.unread_p99_ms:.1f} ms to be read, which is not counted"

    @property
    def _remedy(self) -> str:
        reasons = {reason for reason, _ in self.unsent}
        if "in-flight limit" in reasons:
            return "Lower the rate, or raise max_in_flight."
        if "too many open files" in reasons:
            return "Raise the limit of open files (`ulimit -Hn`), or lower the rate."
        return "Lower the rate, or set keep_alive=True."


def _counted(kinds: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{count} × {kind}" for kind, count in kinds)


@dataclass(frozen=True, repr=False)
class LoadResult:
    """A finished (or running) load.

    Attributes:
        requests: one row per request that was sent, by scheduled time: t_scheduled_s (seconds since
            `started_at`), latency_ms (from the scheduled arrival until the kernel had the last byte), lag_ms
            (the part of it before sending), status (0 for none), error ("" for none), failed, a column per
            collected header, own_ms (the lag, and what the generator took between connecting and sending),
            unread_ms (how long the answer waited to be read, not part of the latency).
        started_at: seconds since 1970 of t_scheduled_s = 0.
        unsent: one row per request that was due and not sent, for want of something on the generator's side:
            t_scheduled_s, error.
        sent_until_s: how far the load had come. After its end, all that was due before is in `requests` or
            `unsent`.
    """

    requests: pd.DataFrame
    profile: Profile
    started_at: float
    generator_cpu_s: float = 0.0
    generator_wall_s: float = 0.0
    unsent: pd.DataFrame = field(default_factory=_nothing_unsent)
    sent_until_s: float | None = None

    @property
    def span_s(self) -> float:
        """How long requests have been sent."""
        return self.profile.duration_s if self.sent_until_s is None else self.sent_until_s

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def summary(self) -> Summary:
        """Rates, latencies, failures, and the generator's own error."""
        frame = self.requests
        good = frame.loc[~frame["failed"], "latency_ms"]
        p50, p95, p99 = (_quantile(good, share) for share in (0.5, 0.95, 0.99))
        own, lag = _quantile(frame["own_ms"], 0.99), _quantile(frame["lag_ms"], 0.99)
        done_s = float((frame["t_scheduled_s"] + frame["latency_ms"] / 1000)[~frame["failed"]].max())
        busy = 100 * self.generator_cpu_s / self.generator_wall_s if self.generator_wall_s else 0.0
        return Summary(
            requests=len(frame),
            failed=int(frame["failed"].sum()),
            offered_rps=(len(frame) + len(self.unsent)) / self.span_s if self.span_s else 0.0,
            answered_rps=len(good) / max(self.span_s, done_s, 1e-9) if len(good) else 0.0,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            max_ms=float(good.max()) if len(good) else float("nan"),
            lag_p99_ms=lag,
            own_p99_ms=own,
            unread_p99_ms=_quantile(frame["unread_ms"], 0.99),
            generator_cpu_percent=busy,
            cpu_ms_per_request=1000 * self.generator_cpu_s / max(1, len(frame)),
            failures=_kinds(failures(frame)),
            unsent=_kinds(self.unsent["error"]),
            kept_up=self.unsent.empty
            and not own > max(_OWN_LEAST_MS, _OWN_SHARE * (p99 if len(good) else 0.0)),
        )

    def over_time(self, window_s: float = 1.0, by: str | None = None) -> pd.DataFrame:
        """Per window of scheduled time (and value of column `by`): rates and latencies.

        Returns:
            t_seconds (start of the window), [by,] offered_rps, failed_rps, p50_ms, p95_ms; latencies of
            answered requests only. Windows without requests are left out. The last window may be shorter.
        """
        frame = self.requests.assign(t_seconds=(self.requests["t_scheduled_s"] // window_s) * window_s)
        frame["good_ms"] = frame["latency_ms"].where(~frame["failed"])
        grouped = frame.groupby(["t_seconds", *([by] if by else [])], sort=True)
        table = pd.DataFrame(
            {
                "offered_rps": grouped.size(),
                "failed_rps": grouped["failed"].sum(),
                "p50_ms": grouped["good_ms"].quantile(0.5),
                "p95_ms": grouped["good_ms"].quantile(0.95),
            }
        ).reset_index()
        # A sliver of a window would make a rate of one request.
        lengths = (self.span_s - table["t_seconds"]).clip(_SLIVER * window_s, window_s)
        for rate in ("offered_rps", "failed_rps"):
            table[rate] = table[rate] / lengths
        return table


def failures(requests: pd.DataFrame) -> pd.Series[str]:
    """What each failed request failed by: its error, or its status."""
    bad = requests.loc[requests["failed"]]
    return bad["error"].where(bad["error"] != "", "HTTP " + bad["status"].astype(str))


def frame_of(rows: list[list[object]], headers: list[str]) -> pd.DataFrame:
    """The tidy table of the generator's rows."""
    frame = pd.DataFrame(rows, columns=[*BASE_COLUMNS, *headers, *OWN_COLUMNS])
    numbers = ["t_scheduled_s", "latency_ms", "lag_ms", *OWN_COLUMNS]
    frame = frame.astype({**dict.fromkeys(numbers, float), "status": int})
    frame["failed"] = (frame["error"] != "") | (frame["status"] >= 400)
    return frame.sort_values("t_scheduled_s", kind="stable", ignore_index=True)


def split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Requests that were sent, and those that were not for want of something on the generator's side."""
    unsent = frame["error"].isin(NOT_SENT)
    left = frame.loc[unsent, ["t_scheduled_s", "error"]]
    return frame[~unsent].reset_index(drop=True), left.reset_index(drop=True)


def _kinds(errors: pd.Series[str]) -> tuple[tuple[str, int], ...]:
    return tuple((str(kind), int(count)) for kind, count in errors.value_counts().items())


def _quantile(values: pd.Series[float], share: float) -> float:
    return float(values.quantile(share)) if len(values) else float("nan")
