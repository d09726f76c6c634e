"""One suite of behaviours, run against every provider; docs/parity.md is made from its results."""
