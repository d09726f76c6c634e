"""Phases, under the name by which a cluster's modules know them; they are in `labkit.phases`."""

from labkit.phases import Listener, Live, Phase, Plain, State, Step, phase, shown, silent

__all__ = ["Listener", "Live", "Phase", "Plain", "State", "Step", "phase", "shown", "silent"]
