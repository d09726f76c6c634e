"""Figures for labs: each returns a matplotlib Figure, one message in its title, readable at 900 pixels.

from labkit import plots
plots.hpa_figure(recording, result, kube.get("HorizontalPodAutoscaler", "pricing", namespace="shop"))
"""

from __future__ import annotations

from labkit.plots.addresses import address_pool_figure, fail_over_figure
from labkit.plots.alerts import alert_figure
from labkit.plots.autoscaling import hpa_figure
from labkit.plots.deliveries import delivery_figure, pipeline_figure
from labkit.plots.gameday import budget_figure, efficiency_figure, shift_figure
from labkit.plots.guesses import guesses_figure
from labkit.plots.memory import memory_figure
from labkit.plots.nodes import join_figure, node_timeline
from labkit.plots.outages import outage_figure
from labkit.plots.phases import phases_figure
from labkit.plots.rollouts import requests_per_pod, rollout_figure
from labkit.plots.scalability import scalability_figure
from labkit.plots.tunnels import reconnect_figure
from labkit.plots.why import Held, holds

__all__ = [
    "Held",
    "address_pool_figure",
    "alert_figure",
    "budget_figure",
    "delivery_figure",
    "efficiency_figure",
    "fail_over_figure",
    "guesses_figure",
    "holds",
    "hpa_figure",
    "join_figure",
    "memory_figure",
    "node_timeline",
    "outage_figure",
    "phases_figure",
    "pipeline_figure",
    "reconnect_figure",
    "requests_per_pod",
    "rollout_figure",
    "scalability_figure",
    "shift_figure",
]
