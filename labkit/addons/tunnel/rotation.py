"""A tunnel's secret is replaced while visitors come: what a script of somebody's makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from labkit import load
from labkit.addons.files import workspace
from labkit.addons.tunnel.credentials import Credentials
from labkit.addons.tunnel.tunnel import Tunnel
from labkit.errors import ConfigError
from labkit.load import LoadResult

_LONGEST_S = 60.0
_BEFORE_S, _AFTER_S = 1.0, 2.0


@dataclass(frozen=True)
class Rotation:
    """What came of it.

    Attributes:
        requests: of the visitors: all that were sent, answered or not.
        seconds: that the script took.
        ended: its exit code; None where it had to be ended.
        output: what it printed.
    """

    requests: LoadResult
    seconds: float
    ended: int | None
    output: str

    @property
    def failed(self) -> int:
        """How many visitors got no answer, or an error."""
        return int(self.requests.requests["failed"].sum())

    def __repr__(self) -> str:
        how = "had to be ended" if self.ended is None else f"ended with {self.ended}"
        sent = len(self.requests.requests)
        told = f"The script {how} after {self.seconds:.1f} s; {self.failed} of {sent} requests failed."
        return f"{told}\n{self.output}".rstrip()


def rotate(tunnel: Tunnel, script: str | Path, public_url: str, rate: float = 10.0) -> Rotation:
    """Let the edge ask for a new secret, and run a script that gives it to the connectors.

    Connectors that are registered stay; those that dial in from now on need the new secret. That is what
    Cloudflare does when a tunnel's token is refreshed.

    Args:
        script: for sh; $CREDENTIALS names a file with the new credentials, which goes when it ends.
        public_url: what visitors ask for meanwhile, `rate` times a second.

    Raises:
        ConfigError: the tunnel is no rehearsal, or there is no script.
    """
    if tunnel.edge is None:
        raise ConfigError("Only a rehearsal's edge takes another secret from here.", "Use mode='rehearsal'.")
    if not Path(script).is_file():
        raise ConfigError(f"There is no script {script}.", "Run the cell that writes it.")
    former = tunnel.credentials
    new = Credentials(former.account, former.tunnel_id, Credentials.generate().secret)
    file = workspace(tunnel.cluster, "tunnel") / "credentials.json"
    file.touch(mode=0o600)
    file.write_text(new.file())
    url, headers = tunnel.route(public_url)
    visitors = load.Request(url, headers=headers)
    try:
        with load.start(visitors, load.constant(rate, 2 * _LONGEST_S), spacing="uniform") as traffic:
            time.sleep(_BEFORE_S)
            tunnel.edge.renew(new)
            tunnel.credentials = new
            begin = time.monotonic()
            ended, output = _run(script, file)
            took = time.monotonic() - begin
            time.sleep(_AFTER_S)
            result = traffic.stop()
    finally:
        file.unlink(missing_ok=True)
    return Rotation(result, took, ended, output.replace(new.secret, "***"))


def _run(script: str | Path, credentials: Path) -> tuple[int | None, str]:
    """Exit code and output; None for a script that had to be ended, with all that it had started."""
    process = subprocess.Popen(
        ["sh", str(script)], env={**os.environ, "CREDENTIALS": str(credentials)}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return None, output
    return process.returncode, output
