"""Labs: their metadata, how they are executed headless, and the report of a run.

`metadata` reads notebooks, `execute` and `kernel` run one, `run` runs several on a cluster and `report` tells
of it; `phaselog` and `visit` are for the notebooks themselves.
"""
