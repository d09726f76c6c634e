"""What every service of the shop has in common: settings, logs, metrics, probes, faults and a graceful end.

Each service carries its own copy, since each is a build context of its own: change `services/chassis`, then
run `make -C services chassis`. A test fails while the copies differ.
"""
