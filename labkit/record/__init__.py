"""Record what a cluster does, as tidy DataFrames: samples at an interval, and every change in between.

from labkit.record import Recorder
with Recorder(cluster.kube, namespaces=["shop"]) as recorder:
    …
recording = recorder.recording()
recording.hpas[["t_seconds", "cpu_utilization_percent", "desired_replicas"]]
recording.save("reports/lab-08")
"""

from __future__ import annotations

from labkit.record.recorder import Recorder
from labkit.record.recording import Recording

__all__ = ["Recorder", "Recording"]
