"""A git server in the cluster, and working copies of its repositories.

from labkit.addons.git import GitServer

git = GitServer(cluster)
git.install()
shop = git.clone("shop")
shop.commit("Sort the products")
shop.push()
"""

from __future__ import annotations

from labkit.addons.git.server import GitServer, Push
from labkit.addons.git.working_copy import WorkingCopy

__all__ = ["GitServer", "Push", "WorkingCopy"]
