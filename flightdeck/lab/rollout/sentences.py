"""A rollout's status in plain sentences. Pure: from the files' content to text."""

from __future__ import annotations

from collections.abc import Sequence

from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import InvalidRollout, RolloutSpec, duration_text, parse_rollout
from flightdeck.lab.rollout.store import Status
from services.rollout_operator import plan
from services.rollout_operator.plan import Phase, State
from services.rollout_operator.verdict import Judgement

STALE_S = 10.0  # a controller writes the status more than once a second
START = "start one with `flightdeck lab up`"


def spec_in_force(status: Status) -> RolloutSpec | None:
    """The plan and judge that the controller follows; None before its first look."""
    try:
        return parse_rollout(status.rollout).spec if status.rollout else None
    except InvalidRollout:  # kept by another version
        return None


def is_stale(status: Status | None, now_s: float) -> bool:
    """Nobody looks after this rollout at present."""
    return status is None or now_s - status.updated_at_s > STALE_S


def absence(status: Status | None, now_s: float) -> str:
    """That no controller is running, and what it means; empty when one is."""
    if status is None:
        return f"no controller has looked at it yet; {START}"
    if is_stale(status, now_s):
        age = duration_text(round(now_s - status.updated_at_s))
        return f"no controller is running: what is shown is {age} old, and nobody moves or judges it; {START}"
    return ""


def where(spec: RolloutSpec | None, state: State) -> str:
    """`canary 10 %, step 2 of 3`; a pause names what is paused."""
    step = plan.current_step(spec, state) if spec else None
    words = str(state.works_in) if step is None or spec is None or state.step is None else (
        f"{step.words}, step {min(state.step, len(spec.plan) - 1) + 1} of {len(spec.plan)}"
    )  # fmt: skip
    return f"paused in {words}" if state.phase is Phase.PAUSED else words


def clock(spec: RolloutSpec | None, state: State, now_s: float) -> str:
    """How long, of how much."""
    spent = duration_text(round(plan.elapsed_s(state, now_s)))
    limit_s = plan.deadline_s(spec, state) if spec else None
    if limit_s is None:
        return f"for {spent}" if state.phase not in plan.ENDED else f"since {spent}"
    return f"{spent} of at most {duration_text(limit_s)}" + (" (stands still)" if state.paused else "")


def lines(status: Status, wanted: Release | None, now_s: float) -> list[tuple[str, str]]:
    """Label and sentence of everything but the metrics."""
    state = status.state
    if state is None:
        return [("phase", "none yet: the controller has only begun to look")]
    spec = spec_in_force(status)
    found = [("phase", f"{where(spec, state)}, {clock(spec, state, now_s)}")]
    weight = status.weight if state.candidate else 0
    if state.champion:
        found.append(("champion", _side(state.champion, status.champion_ready, 100 - weight, status)))
    if state.candidate:
        copies = ", gets a copy of each request" if status.mirrored else ""
        found.append(("candidate", _side(state.candidate, status.candidate_ready, weight, status) + copies))
    if judged := judgement_of(status):
        found.append(("verdict", f"{judged.verdict}: {judged.reason}"))
    if status.doubt:
        found.append(("doubt", status.doubt))
    found.append(("reason", state.reason or "-"))
    if state.holding:
        found.append(("holds", f"until a verdict or an order: `flightdeck rollout promote {status.name}`, or abort"))
    if state.queued:
        after = "when the stop of all rollouts is lifted" if state.phase in plan.ENDED else "after this rollout"
        found.append(("waits", f"{state.queued.short} begins {after}"))
    if state.refused and wanted and state.refused.id == wanted.id and state.phase in plan.ENDED:
        again = f"`flightdeck rollout retry {status.name}` tries it again"
        found.append(("refused", f"{state.refused.short} was sent home and is still the wanted release; {again}"))
    return found


def _side(release: Release, ready: int, share: int, status: Status) -> str:
    replicas = f"{ready} of {status.replicas} replicas ready"
    return f"{release.short} [{release.id}], {replicas}, answers {share} % of the users"


def judgement_of(status: Status) -> Judgement | None:
    """The judgement, where it is about the rollout that is shown and still says something."""
    state, found = status.state, status.judgement
    if state is None or found is None or state.works_in in {Phase.PENDING, Phase.DONE}:
        return None
    if state.phase in {Phase.ABORTING, Phase.ABORTED} and found.reason not in state.reason:
        return None  # it was not the judge
    return found


def short(status: Status, spec: RolloutSpec | None) -> str:
    """One line for `watch`: phase, weight, ready replicas, verdict; the same as long as nothing of it changes."""
    state = status.state
    if state is None:
        return "not begun"
    judged = f", {status.judgement.verdict}" if status.judgement and state.step is not None else ""
    ready = f", {status.candidate_ready} of {status.replicas} candidate replicas ready" if state.candidate else ""
    return f"{where(spec, state)}, weight {status.weight} %{ready}{judged}"


class NoSuchRelease(LookupError):
    """There is no such release to go back to; the message names those that there are."""


def chosen_before(name: str, wanted: Release, releases: Sequence[Release], to: str | None) -> Release:
    """The release that an undo goes back to.

    Args:
        wanted: now. releases: that were champion, newest first. to: the beginning of an id; None for the newest other.
    Raises:
        NoSuchRelease: none fits, or more than one.
    """
    found = [it for it in releases if (it.id.startswith(to) if to else it.id != wanted.id)]
    if len(found) == 1 or (found and to is None):
        return found[0]
    known = "; ".join(f"{it.id}: {it.short}" for it in releases) or "none yet"
    what = f"{len(found)} releases begin with {to!r}" if to else f"no other release than {wanted.id} was champion"
    raise NoSuchRelease(f"{name}: {what}; were champion, newest first: {known}")


def ended(status: Status | None, wanted: Release, *, orders_wait: bool) -> Phase | None:
    """DONE or ABORTED once nothing is left to do for the wanted release, else None."""
    state = status.state if status else None
    if state is None or orders_wait or state.phase not in plan.ENDED:
        return None
    if state.champion and state.champion.id == wanted.id:
        return Phase.DONE
    return Phase.ABORTED if state.refused and state.refused.id == wanted.id else None
