"""A delivery's candidate: handed to the ModelRollout and followed to its end; promotion is the operator's."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

from flightdeck.cli import kubectl_watch
from flightdeck.cluster import champion
from flightdeck.cluster.champion import Version
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import SERVING
from flightdeck.contracts.release import Release
from flightdeck.delivery import decisions, users
from services.rollout_operator import workloads
from services.rollout_operator.kube.status import remembered

KIND = "modelrollouts.flightdeck.dev"


@dataclasses.dataclass(frozen=True)
class Result:
    """What serves now, and why it is not what was asked for, if it is not.

    Args:
        refused: the candidate was sent home. open: the rollout had not ended when it was no longer followed.
        words: for the log.
    """

    release: Release
    words: str
    refused: str = ""
    open: str = ""


def hand_over(
    kubectl: Kubectl,
    model: str,
    found: Sequence[Version],
    *,
    host: str,
    bodies: Callable[[], Sequence[bytes]],
    rate_per_s: float,
    timeout_s: float,
    say: Callable[[str], None],
    count: Callable[[str, int, int], None],
) -> Result:
    """Ask for the newest version that may serve under the code of this deploy, and follow it.

    Args:
        rate_per_s: of requests that are sent meanwhile, when the environment has no users; 0: none.
    Raises:
        NoChampion: no version may serve, or the first one does not come up.
        CommandFailed: the API server does not answer or refuses.
    """
    rollout = kubectl.get(KIND, model, "-n", SERVING)
    serves = champion.serving(kubectl, model)
    if serves is None:
        first = champion.serve_first(kubectl, model, champion.may_serve(found), count)
        return Result(first, f"{first.short} is the first")
    code = workloads.code_image(kubectl.get("podtemplate", champion.TEMPLATE, "-n", SERVING))
    status = remembered(model, rollout.get("status", {}), time.time())
    were = status.releases if status else []
    newest = champion.release_of(model, champion.may_serve(found), code)
    asked = decisions.asked_release(serves, newest, were, code)
    refused = status.state.refused if status and status.state else None
    needed = decisions.rollout_needed(asked, serves, refused)
    if not needed:
        return Result(serves, f"{serves.short} serves already")
    if needed == "refused":
        why = f"{asked.short} was sent home before and is not tried again by itself; kubectl flightdeck retry {model}"
        return Result(serves, why, refused=why)
    return ask_for(kubectl, model, asked, host=host, bodies=bodies, rate_per_s=rate_per_s, timeout_s=timeout_s, say=say)


def ask_for(
    kubectl: Kubectl,
    model: str,
    asked: Release,
    *,
    host: str,
    bodies: Callable[[], Sequence[bytes]],
    rate_per_s: float,
    timeout_s: float,
    say: Callable[[str], None],
) -> Result:
    """Ask for one release, and follow its rollout.

    Raises:
        NoChampion: the gate's word does not cover it.
        CommandFailed: the API server does not answer or refuses.
    """
    rollout = kubectl.get(KIND, model, "-n", SERVING)
    status = remembered(model, rollout.get("status", {}), time.time())
    champion.refuse_unapproved(kubectl, asked, status.releases if status else ())
    champion.want(kubectl, rollout, asked)
    say(f"{model} wants {asked.short} [{asked.id}]")
    with contextlib.ExitStack() as held:
        if rate_per_s:
            url = held.enter_context(users.way(kubectl))
            sent = held.enter_context(
                users.asking(url, host, bodies(), rate_per_s=rate_per_s, longest_s=timeout_s + 60)
            )
        code = kubectl_watch.follow(lambda: kubectl.get(KIND, model, "-n", SERVING), say, say, timeout_s)
    meanwhile = (
        f"; {sent.answered:,} requests meanwhile, {sent.failed} failed {sent.last}".rstrip() if rate_per_s else ""
    )
    serves = champion.serving(kubectl, model) or asked
    told = str(kubectl.get(KIND, model, "-n", SERVING).get("status", {}).get("reason", ""))
    if code == kubectl_watch.DONE:
        return Result(serves, f"{serves.short} was promoted{meanwhile}")
    if code == kubectl_watch.TIMED_OUT:
        why = f"the rollout of {asked.short} has not ended after {timeout_s:.0f} s and goes on by itself"
        return Result(serves, why + meanwhile, open=why)
    why = f"the rollout sent {asked.short} home: {told}"
    return Result(serves, why + meanwhile, refused=why)
