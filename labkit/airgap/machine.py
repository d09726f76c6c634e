"""How this machine reaches package indexes: settings for builds here, never in a file for others."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from labkit.airgap.context import Context

_BUNDLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
_IMAGE_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PIP = {
    "index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries",
    "find-links", "no-index",
}  # fmt: skip
_APT = re.compile(r'^(Acquire::(?:Check-Valid-Until|Check-Date|Retries)) "(.*)";$')
_APT_PROXY = re.compile(r'^Acquire::http::Proxy "(.+)";$')


def settings() -> Context:
    """Files with which `pip install` in an image reaches the index as it does here; empty if none needed."""
    context = Context()
    pip = {}
    bundle = _bundle()
    if bundle:
        context.add(f"files{_IMAGE_BUNDLE}", bundle)
        pip["cert"] = _IMAGE_BUNDLE
    pip |= _pip()
    if pip:
        lines = ["[global]", *(f"{key} = {value}" for key, value in sorted(pip.items()))]
        context.add("files/etc/pip.conf", "\n".join(lines) + "\n")
    return context


def settings_key() -> str:
    """Digest of the settings, 8 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, content in sorted(settings().files.items()):
        digest.update(name.encode() + (content if isinstance(content, bytes) else content.read_bytes()))
    return digest.hexdigest()[:8]


def build_args() -> dict[str, str]:
    """Build arguments with which apt works in a build as it does on this machine, and proxies."""
    args = {}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        value = os.environ.get(name) or os.environ.get(name.upper())
        if value:
            args[name] = value
    options = []
    for line in _apt_config():
        if match := _APT.match(line):
            options.append(f"-o {match[1]}={match[2]}")
        elif (match := _APT_PROXY.match(line)) and match[1] != "DIRECT":
            args.setdefault("http_proxy", match[1])
    if options:
        args["APT_OPTIONS"] = " ".join(options)
    return args


def _bundle() -> bytes:
    """Certificates that this machine trusts, b"" where they cannot be found."""
    for name in (*(os.environ.get(v, "") for v in _BUNDLES), *_SYSTEM_BUNDLES):
        if name and Path(name).is_file():
            return Path(name).read_bytes()
    return b""


def _pip() -> dict[str, str]:
    """pip's settings that decide where packages come from; folders of this machine left out."""
    argv = [sys.executable, "-m", "pip", "config", "list"]
    said = _output(argv)
    found = {}
    for line in said.splitlines():
        name, _, value = line.partition("=")
        key, value = name.split(".")[-1], value.strip("'\"")
        local = key == "find-links" and "://" not in value
        if key in _PIP and not local and "\\n" not in value:
            found["timeout" if key == "default-timeout" else key] = value
    proxy = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY")
    if proxy:
        found.setdefault("proxy", proxy)
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    if index:
        found.setdefault("index-url", index)
    return found


def _apt_config() -> list[str]:
    return _output(["apt-config", "dump"]).splitlines() if shutil.which("apt-config") else []


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
