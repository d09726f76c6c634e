"""Start the service: `python -m catalog`."""

from chassis.start import start

start("catalog.main")
