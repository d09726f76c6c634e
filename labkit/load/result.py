"""What a load run measured."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from labkit.load.profiles import Profile

BASE_COLUMNS = ["t_scheduled_s", "latency_ms", "lag_ms", "status", "error"]
_LAG_LIMIT_MS = 50.0


@dataclass(frozen=True)
class Summary:
    """Latencies are of requests answered with a status below 400, counted from the scheduled arrival."""

    requests: int
    failed: int
    offered_rps: float
    answered_rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    lag_p99_ms: float
    generator_cpu_percent: float
    cpu_ms_per_request: float
    failures: tuple[tuple[str, int], ...]
    kept_up: bool

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in self.failures)
        lines = [
            f"{self.requests} requests, {self.failed} failed{f' ({kinds})' if kinds else ''}",
            f"offered {self.offered_rps:.1f}/s, answered {self.answered_rps:.1f}/s",
            f"latency p50 {self.p50_ms:.1f} ms, p95 {self.p95_ms:.1f} ms, p99 {self.p99_ms:.1f} ms",
        ]
        if not self.kept_up:
            lines.append(
                f"WARNING: the load generator itself could not keep up (1 % of requests left more than "
                f"{self.lag_p99_ms:.0f} ms late, its CPU was {self.generator_cpu_percent:.0f} % busy): "
                "the latencies are partly its own. Lower the rate."
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class LoadResult:
    """A finished (or running) load.

    Attributes:
        requests: one row per request, by scheduled time: t_scheduled_s (seconds since `started_at`),
            latency_ms (from the scheduled arrival to the last byte), lag_ms (the part of it before sending),
            status (0 for none), error ("" for none), failed, and a column per collected header.
        started_at: seconds since 1970 of t_scheduled_s = 0.
    """

    requests: pd.DataFrame
    profile: Profile
    started_at: float
    generator_cpu_s: float = 0.0
    generator_wall_s: float = 0.0

    def summary(self) -> Summary:
        frame = self.requests
        good = frame.loc[~frame["failed"], "latency_ms"]
        quantiles = good.quantile([0.5, 0.95, 0.99]).tolist() if len(good) else [float("nan")] * 3
        bad = frame.loc[frame["failed"]]
        kinds = bad["error"].where(bad["error"] != "", "HTTP " + bad["status"].astype(str)).value_counts()
        span = max(frame["t_scheduled_s"].max(), 1e-9) if len(frame) else 1e-9
        lag = float(frame["lag_ms"].quantile(0.99)) if len(frame) else 0.0
        busy = 100 * self.generator_cpu_s / self.generator_wall_s if self.generator_wall_s else 0.0
        return Summary(
            requests=len(frame),
            failed=len(bad),
            offered_rps=len(frame) / span,
            answered_rps=len(good)
            / max(span, float((frame["t_scheduled_s"] + frame["latency_ms"] / 1000).max()))
            if len(good)
            else 0.0,
            p50_ms=quantiles[0],
            p95_ms=quantiles[1],
            p99_ms=quantiles[2],
            max_ms=float(good.max()) if len(good) else float("nan"),
            lag_p99_ms=lag,
            generator_cpu_percent=busy,
            cpu_ms_per_request=1000 * self.generator_cpu_s / max(1, len(frame)),
            failures=tuple((str(kind), int(count)) for kind, count in kinds.items()),
            kept_up=lag <= _LAG_LIMIT_MS,
        )

    def over_time(self, window_s: float = 1.0, by: str | None = None) -> pd.DataFrame:
        """Per window of scheduled time (and value of column `by`): rates and latencies.

        Returns:
            t_seconds (start of the window), [by,] offered_rps, failed_rps, p50_ms, p95_ms; latencies of
            answered requests only. Windows without requests are left out.
        """
        frame = self.requests.assign(t_seconds=(self.requests["t_scheduled_s"] // window_s) * window_s)
        frame["good_ms"] = frame["latency_ms"].where(~frame["failed"])
        keys = ["t_seconds", *([by] if by else [])]
        grouped = frame.groupby(keys, sort=True)
        table = pd.DataFrame(
            {
                "offered_rps": grouped.size() / window_s,
                "failed_rps": grouped["failed"].sum() / window_s,
                "p50_ms": grouped["good_ms"].quantile(0.5),
                "p95_ms": grouped["good_ms"].quantile(0.95),
            }
        )
        return table.reset_index()


def frame_of(rows: list[list[object]], headers: list[str]) -> pd.DataFrame:
    """The tidy table of the generator's rows."""
    frame = pd.DataFrame(rows, columns=[*BASE_COLUMNS, *headers])
    frame = frame.astype({"t_scheduled_s": float, "latency_ms": float, "lag_ms": float, "status": int})
    frame["failed"] = (frame["error"] != "") | (frame["status"] >= 400)
    return frame.sort_values("t_scheduled_s", kind="stable", ignore_index=True)
