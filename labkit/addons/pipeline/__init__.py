"""A CI/CD pipeline on this machine: each push to `shop` starts the GitHub Actions workflow that it contains.

from labkit.addons.pipeline import Pipeline

pipeline = Pipeline(cluster, git)
pipeline.install()
run = pipeline.wait_for(shop.push())
print(run)
"""

from __future__ import annotations

from labkit.addons.pipeline.run import Run, Step, runs_frame
from labkit.addons.pipeline.runner import Pipeline

__all__ = ["Pipeline", "Run", "Step", "runs_frame"]
