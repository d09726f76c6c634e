"""A context of a kubeconfig: what it says, and what a cluster that it leads to lacks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from labkit.errors import ConfigError
from labkit.folders import home
from labkit.tools import kubectl

_THIS_MACHINE = ("127.0.0.1", "localhost", "0.0.0.0")


def minified(kubeconfig: str, context: str) -> tuple[str, str, str]:
    """The file (or files, as in KUBECONFIG), the context, and a kubeconfig of it alone with certificates.

    Raises:
        ConfigError: there is no such file or context.
    """
    given = kubeconfig or os.environ.get("KUBECONFIG", "")
    listed = [Path(each).expanduser().absolute() for each in given.split(os.pathsep) if each]
    files = listed or [home() / ".kube/config"]
    file = os.pathsep.join(map(str, files))
    if not any(each.is_file() for each in files):
        raise ConfigError(f"There is no kubeconfig {file}.", "Name one: kubeconfig=… or KUBECONFIG.")
    env = {**os.environ, "KUBECONFIG": file}
    argv = [str(kubectl()), "config", "view", "--minify", "--flatten", "-o", "yaml"]
    argv += ["--context", context] if context else []
    done = _ask(argv, env)
    try:
        found = yaml.safe_load(done.stdout) if done.returncode == 0 else None
    except yaml.YAMLError:
        found = None
    if not found or not found.get("contexts"):
        names = _ask([str(kubectl()), "config", "get-contexts", "-o", "name"], env).stdout.split()
        said = done.stderr.strip() or "it has no current context"
        raise ConfigError(
            f"{file}, context {context or '(the current one)'}: {said}",
            f"Contexts there: {', '.join(names) or 'none'}.",
        )
    return file, str(found["current-context"]), done.stdout


def _ask(argv: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env, check=False, timeout=60
        )
    except subprocess.TimeoutExpired as err:
        raise ConfigError("`kubectl config view` has not ended within 60 s.", "Is the file a pipe?") from err


def gap_sentence(
    context: str, server: str, *, kind: str, lacks: list[str], registry: str, trouble: str
) -> str:
    """What was found instead of a way for images, and what to do.

    Args:
        kind: name of the kind cluster that was found, "" where none was.
        lacks: nodes of it that are not on this machine.
        trouble: why Docker could not be asked, "" where it could.
    """
    if kind:
        why = f"of kind cluster {kind!r} only a part is here: {', '.join(lacks)} has no container that runs"
        return f"The lab's images are built on this machine, and {why}; `docker ps -a` shows its nodes."
    why = f"context {context!r} ({server}) leads to no cluster of labkit or kind on this machine"
    if trouble and urlsplit(server).hostname in _THIS_MACHINE:
        why += f" that can be seen ({trouble.rstrip('.')})"
    if registry:
        why += f", and the labs' manifests do not have the names that images get in {registry}"
    return f"The lab's images are built on this machine, and {why}; a cluster of kind here would do."
