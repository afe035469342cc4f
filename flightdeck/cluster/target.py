"""Which cluster a command works on: decided here, made in kind.py and minikube.py."""

from __future__ import annotations

import dataclasses
import enum
import re

KIND_NAME = "flightdeck"
_GUARDED = re.compile(r"(^|[^a-z])(prod|production|prd|live)([^a-z]|$)", re.IGNORECASE)


class Refused(ValueError):
    """The command will not work on this cluster as it was called."""


class How(enum.StrEnum):
    """Where the cluster comes from."""

    EXISTING = "existing"  # the current context answers
    KIND = "kind"  # to be made
    MINIKUBE = "minikube"  # to be made


@dataclasses.dataclass(frozen=True)
class Target:
    """The context to work on, and whether its cluster must be made first."""

    context: str
    how: How

    @property
    def kind_name(self) -> str | None:
        """Name of the kind cluster behind the context, None when it is none."""
        return self.context.removeprefix("kind-") if self.context.startswith("kind-") else None

    @property
    def overlay(self) -> str:
        """The overlay that fits when none is named; empty for a cluster of another kind."""
        return "minikube" if self.context == "minikube" else "kind" if self.kind_name else ""


def looks_like_production(context: str) -> bool:
    """Whether the context's name says that mistakes are expensive there: prod, production, prd or live as a word."""
    return _GUARDED.search(context) is not None


def choose(current: str | None, *, answers: bool, wanted: str | None, sure: bool) -> Target:
    """The cluster to use.

    Args:
        current: the current context, if any.
        answers: whether its API server does.
        wanted: `kind`, `minikube`, or None for what is there, else kind.
        sure: `--yes` was given.
    Raises:
        Refused: the context looks like production and nobody said `--yes`, or `wanted` is unknown.
    """
    if wanted not in (None, "", "kind", "minikube"):
        raise Refused(f"CLUSTER={wanted} is unknown; write kind or minikube, or leave it away for the current context")
    fits = wanted in (None, "") or (current or "").startswith(wanted or "")
    if current and answers and fits:
        if looks_like_production(current) and not sure:
            raise Refused(
                f"the current context is {current!r}, which looks like production; nothing was touched. "
                "Choose another with `kubectl config use-context`, or add --yes"
            )
        return Target(current, How.EXISTING)
    if wanted == "minikube":
        return Target("minikube", How.MINIKUBE)
    return Target(f"kind-{KIND_NAME}", How.KIND)
