"""Start the service: `python -m pricing`."""

from chassis.start import start

start("pricing.main")
