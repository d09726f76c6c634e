"""How well an autoscaler used its replicas: work done per replica-second, against the ideal.

The ideal autoscaler knows the load beforehand and has no delays: at each moment it has just so many replicas
that each works at the target utilization, within the HPA's limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from labkit import load


@dataclass(frozen=True)
class Efficiency:
    """An autoscaler's replicas against the ideal.

    Attributes:
        frame: per second t_seconds, ready and needed (the ideal) replicas.
        done, offered: requests that were worked on successfully, and that should have been.
        cpu_ms_per_request: measured, a pod's own needs included.
        per_replica_s, ideal_per_replica_s: requests done per second of a ready replica.
    """

    frame: pd.DataFrame
    done: int
    offered: float
    cpu_ms_per_request: float

    @property
    def replica_seconds(self) -> float:
        return float(self.frame["ready"].sum())

    @property
    def ideal_replica_seconds(self) -> float:
        return float(self.frame["needed"].sum())

    @property
    def too_many_s(self) -> float:
        """Replica-seconds above the ideal."""
        return float((self.frame["ready"] - self.frame["needed"]).clip(lower=0).sum())

    @property
    def too_few_s(self) -> float:
        """Replica-seconds below it."""
        return float((self.frame["needed"] - self.frame["ready"]).clip(lower=0).sum())

    @property
    def per_replica_s(self) -> float:
        return self.done / self.replica_seconds if self.replica_seconds else 0.0

    @property
    def ideal_per_replica_s(self) -> float:
        return self.offered / self.ideal_replica_seconds if self.ideal_replica_seconds else 0.0

    @property
    def percent(self) -> float:
        """Work per replica-second as a share of the ideal."""
        return 100 * self.per_replica_s / self.ideal_per_replica_s if self.ideal_per_replica_s else 0.0


def needed_replicas(
    rates_rps: Any, cpu_ms_per_request: float, target_millicores: float, low: int, high: int
) -> Any:
    """Replicas with which each uses `target_millicores` at most, within the HPA's limits."""
    need = np.ceil(np.asarray(rates_rps, dtype=float) * cpu_ms_per_request / target_millicores - 1e-9)
    return np.clip(need, low, high).astype(int)


def efficiency(
    ready: pd.DataFrame,
    profile: load.Profile,
    share: float,
    done: int,
    usage: pd.DataFrame,
    *,
    target_millicores: float,
    low: int,
    high: int,
    end_s: float,
) -> Efficiency:
    """Compare ready replicas with the ideal.

    Args:
        ready: t_seconds and ready_replicas, each value held until the next.
        profile, share: the load that was offered, and the share of it that is this service's work.
        done: requests of that share that were worked on successfully.
        usage: cpu_millicores and window_s of the service's pods, one row per measurement.
        target_millicores: CPU that a replica shall use, the HPA's target.
        low, high: the HPA's limits.
        end_s: seconds to look at, from 0.
    """
    seconds = np.arange(0.5, max(end_s, 1.0))
    times = ready["t_seconds"].to_numpy(dtype=float)
    place = np.searchsorted(times, seconds, side="right") - 1
    counts = ready["ready_replicas"].fillna(0).to_numpy(dtype=float)
    have = counts[np.maximum(place, 0)] if len(counts) else np.zeros(len(seconds))
    rates = profile.rate(seconds) * share
    cost = _cpu_ms_per_request(usage, float(have.sum()), done)
    need = needed_replicas(rates, cost, target_millicores, low, high)
    frame = pd.DataFrame({"t_seconds": seconds, "ready": have, "needed": need})
    return Efficiency(frame, done, float(rates.sum()), cost)


def _cpu_ms_per_request(usage: pd.DataFrame, replica_seconds: float, done: int) -> float:
    """Mean CPU of a replica times replica-seconds, by requests; each sample weighs as the time it covers."""
    covered = float(usage["window_s"].sum()) if len(usage) else 0.0
    if not covered or not done:
        return 0.0
    mean_millicores = float((usage["cpu_millicores"] * usage["window_s"]).sum()) / covered
    return mean_millicores * replica_seconds / done
