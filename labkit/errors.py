"""Typed errors: what happened, what was found, what to do next."""

from __future__ import annotations


class LabkitError(Exception):
    """Base of every error labkit raises on purpose.

    Args:
        message: what happened and what was found, one or two sentences.
        hint: what to do next, or "" where nothing can be done.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n→ {self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback (custom display protocol of IPython)."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(LabkitError):
    """An argument, option or file has a value that cannot be used; the message names it."""


class MachineError(LabkitError):
    """This machine lacks what is needed: a kernel feature, a program, space. `labkit doctor` lists it."""


class AcquireError(LabkitError):
    """A program could not be found, downloaded, verified or built."""


class ClusterError(LabkitError):
    """The cluster, or one of its components or nodes, is not in the state that was asked for."""


class ImageError(LabkitError):
    """An image cannot be built, found or removed."""


class KubeError(LabkitError):
    """The API server (or kubectl) refused a request."""


class WaitTimeout(LabkitError):
    """A condition did not come true before its deadline; the hint says why, from status and events."""


class GitError(LabkitError):
    """git, or the git server, refused something."""


class PipelineError(LabkitError):
    """A pipeline's run cannot be started, followed or found."""


class CheckFailed(LabkitError):
    """A lab's check found the cluster in another state than the step asks for."""


class LabError(LabkitError):
    """A lab cannot be found, executed or reported."""
