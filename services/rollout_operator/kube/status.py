"""The status of a ModelRollout, both ways: what people and `kubectl wait` read, what the operator goes on from. Pure.

`state`, `judgement`, `inForce`, `releases`, `history` and `order` are the memory; all else is told from them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flightdeck.contracts.release import Release
from services.rollout_operator.kube.orders import number_of
from services.rollout_operator.remembered import Status
from services.rollout_operator.state import ENDED, RUNNING, Phase, State, Stop, Transition, dec_hook, enc_hook
from services.rollout_operator.verdict import Judgement

HISTORY_KEPT = 50
Document = dict[str, Any]


def remembered(name: str, status: Mapping[str, Any], now_s: float) -> Status | None:
    """What the operator goes on from; None when nothing was ever said.

    A champion without a state was made by `flightdeck deploy` before any operator ran: it serves, nothing is under way.

    Raises:
        ValueError: it is not what this version writes; never taken for None, that would forget the champion.
    """
    if "state" not in status:
        if "champion" not in status:
            return None
        champion = Release.model_validate(status["champion"])
        words = status.get("reason") or f"{champion.short} serves all users"
        state = State(Phase.DONE, now_s, now_s, champion=champion, reason=words)
        return Status(name, state, releases=[champion])
    try:
        judged = status.get("judgement")
        return Status(
            name,
            msgspec.convert(status["state"], State, dec_hook=dec_hook),
            msgspec.convert(judged, Judgement) if judged else None,
            rollout=status.get("inForce", ""),
            weight=status.get("weight", 0),
            mirrored=status.get("mirrored", False),
            champion_ready=status.get("championReady", 0),
            champion_running=status.get("replicas", 0),
            candidate_ready=status.get("candidateReady", 0),
            replicas=status.get("wantedReplicas", 0),
            orders_done=number_of(status.get("order", "")),
            releases=[Release.model_validate(it) for it in status.get("releases", ())],
            doubt=status.get("doubt", ""),
        )
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"ModelRollout {name}: its status is not of this version of the operator: {error}") from error


def document(
    status: Status, before: Mapping[str, Any], wanted: Release | None, new: Sequence[Transition], *,
    order: str, generation: int, refusal: str, now_s: float, reason: str = "",
    stop: Stop | None = None,
) -> Document:  # fmt: skip
    """The whole status.

    Args:
        before: as it was; conditions keep their time where they say the same. wanted: `spec.release`.
        new: entries of the history since then. order: text of the order that was obeyed and may still stand there.
        refusal: why the plan is not accepted; empty when it is. reason: the same in one word. stop: of all rollouts.
    """
    state = status.state
    found: Document = {
        "weight": status.weight if state and state.candidate else 0,
        "replicas": status.champion_running,
        "championReady": status.champion_ready,
        "candidateReady": status.candidate_ready,
        "wantedReplicas": status.replicas,
        "mirrored": status.mirrored,
        "observedGeneration": generation,
        "conditions": conditions(state, wanted, before.get("conditions", ()), refusal, generation, now_s, reason, stop),
        "history": history(before.get("history", ()), new),
        "releases": [_plain(it) for it in status.releases],
        "inForce": status.rollout,
    }
    if order:
        found["order"] = order
    if status.doubt:
        found["doubt"] = status.doubt
    if status.judgement:
        found["judgement"] = msgspec.to_builtins(status.judgement)
        if state and state.step is not None:
            found["verdict"] = str(status.judgement.verdict)
    if state is None:
        return found
    found |= {"state": _bare(msgspec.to_builtins(state, enc_hook=enc_hook)), "phase": str(state.phase)}
    hidden = stop is not None and stop.words not in state.reason
    found["reason"] = f"{stop.words}; {state.reason}".rstrip("; ") if stop and hidden else state.reason
    for role in ("champion", "candidate", "queued", "refused"):
        if (release := getattr(state, role)) is not None:
            found[role] = _plain(release)
            if role in ("champion", "candidate"):
                found |= {f"{role}Version": f"v{release.model.version}", f"{role}Release": release.id}
    if champion := state.champion:
        found["selector"] = f"flightdeck.dev/model={champion.model.name},flightdeck.dev/release={champion.id}"
    return found


def history(before: Sequence[Mapping[str, Any]], new: Sequence[Transition]) -> list[Document]:
    """The newest entries, oldest first; each with its time for people."""
    entries = [dict(it) for it in before]
    entries += [_bare({**msgspec.to_builtins(it), "at": rfc3339(it.at_s)}) for it in new]
    return entries[-HISTORY_KEPT:]


def conditions(  # noqa: PLR0917 - all that they tell of
    state: State | None, wanted: Release | None, before: Sequence[Mapping[str, Any]], refusal: str, generation: int,
    now_s: float, word: str = "", stop: Stop | None = None,
) -> list[Document]:  # fmt: skip
    """Progressing, Complete and PlanAccepted; `refusal` and, in one word, `word` say why the last is false.

    Stopped is there once all rollouts were stopped.
    """
    accepted = "False" if refusal else "True"
    said = [("PlanAccepted", accepted, (word or "Refused") if refusal else "Accepted", refusal)]
    if state is not None:
        words, phase = state.reason, str(state.phase).capitalize()
        runs = state.phase in RUNNING or state.phase is Phase.ABORTING
        said.append(("Progressing", "True" if runs else "False", "Holding" if state.holding else phase, words))
        served = state.champion is not None and wanted is not None and state.champion.id == wanted.id
        complete = served and state.phase in ENDED
        said.append(("Complete", "True" if complete else "False", phase, words))
    old = {it["type"]: it for it in before}
    if stop or "Stopped" in old:
        said.append(("Stopped", "True", "ByOrder", stop.words) if stop else ("Stopped", "False", "Lifted", ""))
    found = []
    for kind, value, reason, message in said:
        earlier = old.get(kind, {})
        at = earlier.get("lastTransitionTime") if earlier.get("status") == value else None
        found.append(
            {
                "type": kind, "status": value, "reason": reason, "message": message,
                "lastTransitionTime": at or rfc3339(now_s), "observedGeneration": generation,
            }
        )  # fmt: skip
    return found


def event(rollout: Mapping[str, Any], item: Transition) -> Document:
    """A transition as a Kubernetes Event, for `kubectl describe`. Named by the entry: told twice, it is still one."""
    bad = item.event is not None or item.target in (Phase.ABORTING, Phase.ABORTED)
    reason = item.event or str(item.target).capitalize()
    return event_of(
        rollout, name=str(item.serial), reason=reason, message=item.reason, warning=bad, at_s=item.at_s
    )  # fmt: skip


def event_of(
    rollout: Mapping[str, Any], *, name: str, reason: str, message: str, warning: bool, at_s: float
) -> Document:
    """A Kubernetes Event about the rollout; `name` tells it from its others."""
    meta, at = rollout["metadata"], rfc3339(at_s)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name']}.{meta['uid'][:8]}.{name}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": rollout["apiVersion"], "kind": rollout["kind"], "name": meta["name"],
            "namespace": meta["namespace"], "uid": meta["uid"],
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": message[:1000],
        "firstTimestamp": at, "lastTimestamp": at, "count": 1,
        "source": {"component": "flightdeck-operator"},
    }  # fmt: skip


def rfc3339(at_s: float) -> str:
    """To the second, in UTC."""
    return dt.datetime.fromtimestamp(at_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(release: Release) -> Document:
    return release.model_dump(mode="json", by_alias=True, exclude_none=True)


def _bare(value: Any) -> Any:
    """Without nulls: the schema of a Release knows none, and what is absent is None when it is read."""
    if isinstance(value, dict):
        return {key: _bare(it) for key, it in value.items() if it is not None}
    return [_bare(it) for it in value] if isinstance(value, list) else value
