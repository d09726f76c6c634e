"""What the steps of a pipeline see of this machine's environment: a list of what they need, and nothing else.

Everything else stays out, whatever it is called: API keys, agents, passwords. A step runs the code of whoever
may push.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from labkit.cluster import Cluster
from labkit.folders import base
from labkit.tools import cache_dir

_PLAIN = """
LANG LANGUAGE TZ TMPDIR USER LOGNAME SHELL
SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE GIT_SSL_CAINFO
PIP_CERT PIP_DEFAULT_TIMEOUT PIP_DISABLE_PIP_VERSION_CHECK PIP_FIND_LINKS PIP_NO_INDEX
UV_SYSTEM_CERTS UV_NATIVE_TLS UV_OFFLINE UV_FIND_LINKS UV_NO_INDEX UV_PYTHON UV_PYTHON_DOWNLOADS
DOCKER_HOST DOCKER_CERT_PATH DOCKER_TLS_VERIFY DOCKER_CONTEXT
LABKIT_EMBEDDED LABKIT_IMAGES LABKIT_REGISTRY
"""
_PREFIXES = ("LC_", "LABKIT_NO_")
_ADDRESSES = """
http_proxy https_proxy all_proxy
pip_index_url pip_extra_index_url uv_default_index uv_index_url uv_index uv_extra_index_url
"""
"""Names, in small letters, of variables with addresses: kept where no user or password is in them."""


def environment(
    cluster: Cluster, server: str, home: Path, programs: Sequence[Path], given: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment of steps.

    Args:
        server: URL of the git server, which is reached without a proxy.
        home: private folder of the runner. Steps get a home in it, where they find none of the user's
            settings, keys or tokens; labkit's own folders stay where they are.
        programs: folders that come first on PATH.
    """
    own_home = home / "home"
    own_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    folders = [str(Path(sys.executable).parent), *(str(folder) for folder in programs)]
    folders += [str(folder) for folder in sorted(cache_dir().glob("uv-*/bin"))[-1:]]
    direct = ",".join(filter(None, (_given(given, "no_proxy"), "127.0.0.0/8", urlsplit(server).hostname)))
    own = {
        "PATH": os.pathsep.join([*folders, given.get("PATH", os.defpath)]),
        "HOME": str(own_home),
        "LABKIT_CLUSTER": cluster.name,
        "LABKIT_PROVIDER": cluster.provider,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "no_proxy": direct,
        "NO_PROXY": direct,
        **_folders(given),
    }
    if cluster.provider == "kind" and "DOCKER_HOST" not in given:
        own |= _engine(given)
    kubeconfig = home / "kubeconfig"
    if kubeconfig.exists():
        own["KUBECONFIG"] = str(kubeconfig)
    return {**{name: value for name, value in given.items() if _kept(name, value)}, **own}


def _kept(name: str, value: str) -> bool:
    if "://" in value and "@" in value:  # user:password@host
        return False
    if name.lower() in _ADDRESSES.split():
        return True
    return name in _PLAIN.split() or name.startswith(_PREFIXES)


def _given(given: Mapping[str, str], name: str) -> str:
    return given.get(name) or given.get(name.upper(), "")


def _folders(given: Mapping[str, str]) -> dict[str, str]:
    """Where labkit in a step finds clusters, images and caches although its home is another one."""
    return {name: str(base(name, given)) for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}


def _engine(given: Mapping[str, str]) -> dict[str, str]:
    """Docker's engine by its address: which one it is stands in the user's home, which steps do not have."""
    ask = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    try:
        said = subprocess.run(ask, env=dict(given), capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    host = said.stdout.strip()
    return {"DOCKER_HOST": host} if said.returncode == 0 and host else {}
