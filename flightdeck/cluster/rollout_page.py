"""The evidence page of a ModelRollout: history and releases from its status, the judge's looks from valkey-streams."""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from flightdeck.cluster.commands import CommandFailed, Kubectl
from flightdeck.cluster.forward import forward
from flightdeck.cluster.names import PLATFORM, SERVING
from flightdeck.contracts.release import Release
from services.rollout_operator.remembered import Look
from services.rollout_operator.state import Transition, dec_hook
from services.rollout_operator.verdict import Judgement

STREAMS, PORT = "valkey-streams", 6379
TIMEOUT_S = 10.0
_ABSENT = dict.fromkeys(("source", "step", "champion", "candidate"))  # nulls are left out of a status


class NoLooks(RuntimeError):
    """The looks cannot be read; the message says why and who may."""


def read_looks(kubectl: Kubectl, uid: str) -> list[Look]:
    """Looks of the object with this uid, oldest first; none where none were kept.

    Raises:
        NoLooks: no right to, no way to, or no answer from valkey-streams.
    """
    import redis

    from services.rollout_operator.kube import looks

    try:
        secret = kubectl.get("secret", "valkey", "-n", SERVING)
    except CommandFailed as error:
        raise NoLooks(
            f"they are in {STREAMS}, and its password is the Secret valkey of {SERVING}{_why(error, 'get secrets')}"
        ) from error
    password = base64.b64decode(secret["data"]["password"]).decode()
    try:
        with forward(kubectl, PLATFORM, STREAMS, PORT) as url:
            at = urllib.parse.urlsplit(url)
            client = redis.Redis(
                at.hostname or "", at.port or 0, password=password, socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
            )  # fmt: skip
            with client:
                return looks.kept(client, uid)
    except CommandFailed as error:
        outside = "; this cluster has no such Service: its Valkey is elsewhere" if "NotFound" in str(error) else ""
        words = outside or _why(error, "create pods/portforward")
        raise NoLooks(f"they are in {PLATFORM}/{STREAMS}{words}") from error
    except redis.RedisError as error:
        raise NoLooks(f"{PLATFORM}/{STREAMS} did not tell them: {error}") from error


def _why(error: CommandFailed, right: str) -> str:
    if "Forbidden" in f"{error}{error.stderr}" or "forbidden" in f"{error}{error.stderr}":
        return f", which your user may not read: forbidden; ask for the right to {right} there"
    return f": {error}"


def save(kubectl: Kubectl, rollout: Mapping[str, Any], path: Path) -> None:
    """Write the page and print its path.

    Raises:
        ValueError: none has begun; or, once the page is written, why it has no looks. OSError: it cannot be written.
        ModuleNotFoundError: a small installation has no Matplotlib.
    """
    from flightdeck.pages.rollout import NothingToShow

    try:
        missing = write(rollout, path, lambda: read_looks(kubectl, rollout["metadata"]["uid"]))
    except NothingToShow as error:
        raise ValueError(str(error)) from error
    print(path)
    if missing:
        raise ValueError(f"the page has no plots. {missing}")


def write(rollout: Mapping[str, Any], path: Path, looks: Callable[[], list[Look]]) -> str:
    """Write the page of the newest rollout; returns why it has no looks, empty when it has.

    Raises:
        NothingToShow: none has begun. OSError: the file cannot be written.
    """
    from flightdeck.pages.page import write_page
    from flightdeck.pages.rollout import evidence_page

    status = rollout.get("status", {})
    missing = ""
    try:
        found = looks()
    except NoLooks as error:
        found, missing = [], f"Without the judge's looks: {error}."
    judged = status.get("judgement")
    content = evidence_page(
        rollout["metadata"]["name"], history(status), found, releases(status),
        judgement=msgspec.convert(judged, Judgement) if judged else None, note=missing,
    )  # fmt: skip
    write_page(path, content)
    return missing


def history(status: Mapping[str, Any]) -> list[Transition]:
    """The entries that the status keeps, oldest first."""
    return [msgspec.convert({**_ABSENT, **entry}, Transition, dec_hook=dec_hook) for entry in status.get("history", ())]


def releases(status: Mapping[str, Any]) -> list[Release]:
    """Every release that the status names."""
    named = [status[role] for role in ("champion", "candidate", "queued", "refused") if role in status]
    return [Release.model_validate(it) for it in [*status.get("releases", ()), *named]]
