"""Start the service: `python -m frontend`."""

from chassis.start import start

start("frontend.main")
