"""Start the service: `python -m orders`."""

from chassis.start import start

start("orders.main")
