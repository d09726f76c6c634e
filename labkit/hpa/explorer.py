"""The what-if explorer: two settings of an autoscaler under one load, side by side, with sliders.

from labkit.hpa.explorer import Explorer
Explorer()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from html import escape
from typing import Any, Final

import ipywidgets as widgets  # type: ignore[import-untyped]
import pandas as pd

from labkit.hpa import workload
from labkit.hpa.errors import HpaError, choice
from labkit.hpa.figures import COLOURS, whatif
from labkit.hpa.manifest import to_yaml
from labkit.hpa.scenario import Pipeline, Scenario, Service
from labkit.hpa.simulate import Run, simulate
from labkit.hpa.sketch import Sketch
from labkit.hpa.spec import Behavior, HpaSpec, Policy, ScalingRules, cpu_utilization
from labkit.hpa.workload import Load

SHOWN: Final = {
    "replica_seconds": "cost: replica-seconds",
    "mean_replicas": "replicas on average",
    "scalings": "scalings",
    "mean_latency_ms": "mean latency (ms)",
    "slo_miss_percent": "misses (%)",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What one side's sliders say; field names are those of the spec, shortened."""

    target_percent: int = 60
    min_replicas: int = 1
    max_replicas: int = 12
    tolerance_percent: int = 10
    up_window_s: int = 0
    up_policy: str = "Percent"
    up_value: int = 100
    up_period_s: int = 15
    down_window_s: int = 300
    down_policy: str = "Percent"
    down_value: int = 100
    down_period_s: int = 15

    def spec(self, name: str = "pricing", namespace: str = "default") -> HpaSpec:
        """The autoscaler; SpecError where the sliders contradict each other."""
        tolerance = self.tolerance_percent / 100
        up = Policy(self.up_policy, self.up_value, self.up_period_s)
        down = Policy(self.down_policy, self.down_value, self.down_period_s)
        behavior = Behavior(
            ScalingRules((up,), "Max", self.up_window_s, tolerance),
            ScalingRules((down,), "Max", self.down_window_s, tolerance),
        )
        metrics = (cpu_utilization(self.target_percent),)
        return HpaSpec(
            self.max_replicas,
            self.min_replicas,
            metrics,
            behavior,
            name=name,
            namespace=namespace,
            target_name=name,
        )


@dataclass(frozen=True, slots=True)
class World:
    """What both sides share: the load, and the service it meets."""

    shape: str = "spikes"
    low_rps: int = 20
    high_rps: int = 60
    hours: int = 4
    startup_s: int = 30
    cpu_ms: int = 20
    seed: int = 1

    def load(self) -> Load:
        """The load's shape between `low_rps` and `high_rps`."""
        low, high, length = float(self.low_rps), float(self.high_rps), self.hours * 3600.0
        rise = max(high - low, 0.0)
        shapes: dict[str, Callable[[], Load]] = {
            "constant": lambda: workload.constant(high, length),
            "step": lambda: workload.step(low, high, length / 4, length * 3 / 4, length),
            "ramp": lambda: workload.ramp(low, high, length / 4, length * 3 / 4, length),
            "sine": lambda: workload.sine((low + high) / 2, abs(high - low) / 2, length / 2, length),
            "spikes": lambda: workload.spikes(low, rise, length / 8, 400, length, seed=self.seed),
        }
        return shapes[choice("shape", self.shape, workload.SHAPES, HpaError)]()

    def scenario(self, spec: HpaSpec) -> Scenario:
        service = Service(
            cpu_ms_per_request=self.cpu_ms,
            startup_s=self.startup_s,
            pending_s=min(2, self.startup_s),
            limit_millicores=500,
        )
        return Scenario(spec, service, Pipeline(delay_s=5))


def play(settings: Mapping[str, Setting], world: World | None = None) -> dict[str, Run]:
    """One run per setting, all under the same requests."""
    world = world or World()
    load = world.load()
    return {name: simulate(world.scenario(s.spec()), load, world.seed) for name, s in settings.items()}


def table(runs: Mapping[str, Run]) -> pd.DataFrame:
    """The totals that matter, a row per setting."""
    rows = {name: {label: run.totals[key] for key, label in SHOWN.items()} for name, run in runs.items()}
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def picture(runs: Mapping[str, Run], settings: Mapping[str, Setting]) -> Sketch:
    """The runs over time."""
    return whatif(runs, {name: setting.target_percent for name, setting in settings.items()})


_RANGES: Final[dict[str, tuple[int, int, int]]] = {
    "target_percent": (10, 150, 5),
    "min_replicas": (1, 10, 1),
    "max_replicas": (1, 40, 1),
    "tolerance_percent": (0, 50, 1),
    "up_window_s": (0, 600, 15),
    "up_value": (1, 300, 1),
    "up_period_s": (15, 300, 15),
    "down_window_s": (0, 1800, 15),
    "down_value": (1, 100, 1),
    "down_period_s": (15, 300, 15),
    "low_rps": (0, 100, 1),
    "high_rps": (1, 200, 1),
    "hours": (1, 10, 1),
    "startup_s": (0, 180, 5),
    "cpu_ms": (1, 100, 1),
    "seed": (1, 20, 1),
}
_CHOICES: Final[dict[str, list[str]]] = {
    "up_policy": ["Percent", "Pods"],
    "down_policy": ["Percent", "Pods"],
    "shape": list(workload.SHAPES),
}


_STYLE: Final = (
    "<style>.whatif td, .whatif th {padding: 2px 14px; text-align: right; "
    "font-variant-numeric: tabular-nums}</style>"
)


def _control(name: str, value: Any) -> Any:
    label = name.replace("_percent", " (%)").replace("_s", " (s)").replace("_", " ")
    style = {"description_width": "112px"}
    layout = widgets.Layout(width="264px")
    if name in _CHOICES:
        return widgets.Dropdown(
            options=_CHOICES[name], value=value, description=label, style=style, layout=layout
        )
    low, high, step = _RANGES[name]
    return widgets.IntSlider(
        value, low, high, step, description=label, style=style, layout=layout, continuous_update=False
    )


def _title(text: str, colour: str) -> Any:
    return widgets.HTML(f'<b style="color:{colour};font-size:15px">{escape(text)}</b>')


class Explorer(widgets.VBox):  # type: ignore[misc]
    """The explorer as a widget; `settings` and `world` are what the controls say now.

    Args:
        a: what the left side begins with.
        b: and the right side.
        world: load and service to begin with.
    """

    def __init__(
        self, a: Setting | None = None, b: Setting | None = None, world: World | None = None
    ) -> None:
        begin = {"A": a or Setting(), "B": b or Setting(target_percent=80, down_window_s=60)}
        self.settings, self.world = begin, world or World()
        self.image, self.numbers, self.message = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.yaml = {side: widgets.Textarea(layout={"width": "440px", "height": "330px"}) for side in begin}
        self.controls: dict[str, dict[str, Any]] = {}
        shared = self._controls("world", self.world)
        columns = [self._side(side, self._controls(side, begin[side])) for side in begin]
        self.redraw()
        export = widgets.Accordion([widgets.HBox(list(self.yaml.values()))], titles=["Export as YAML: A, B"])
        title = _title("Load and service", "#222222")
        sides = widgets.HBox([widgets.VBox([title, *shared]), *columns])
        super().__init__([sides, self.message, self.image, self.numbers, export])

    def _controls(self, group: str, begin: Setting | World) -> list[Any]:
        made = {field.name: _control(field.name, getattr(begin, field.name)) for field in fields(begin)}
        for control in made.values():
            control.observe(lambda _change: self.redraw(), "value")
        self.controls[group] = made
        return list(made.values())

    def _side(self, side: str, controls: list[Any]) -> Any:
        colour = COLOURS[list(self.settings).index(side)]
        title = _title(side, colour)
        return widgets.VBox([title, *controls])

    def redraw(self) -> None:
        """Read the controls, simulate, draw; a contradiction becomes a message instead of a picture."""
        values = {
            group: {name: control.value for name, control in made.items()}
            for group, made in self.controls.items()
        }
        self.world = replace(self.world, **values["world"])
        self.settings = {side: replace(self.settings[side], **values[side]) for side in self.settings}
        try:
            runs = play(self.settings, self.world)
        except HpaError as error:
            self.message.value = f'<p style="color:#D55E00">{escape(str(error))}</p>'
            return
        self.message.value = ""
        self.image.value = picture(runs, self.settings).svg()
        self.numbers.value = _STYLE + table(runs).to_html(border=0, classes="whatif")
        for side, setting in self.settings.items():
            self.yaml[side].value = to_yaml(setting.spec())
