"""How many replicas are in force: an autoscaler must help in a rollout, and must not be fooled by one. Pure.

While a candidate takes users the champion's pods have less to do, and an autoscaler that looks at them wants fewer. All
users may be back with them a second later. So while a rollout runs, and a while after its end, replicas of champion and
candidate only grow.
"""

from __future__ import annotations

from services.rollout_operator.state import State

HOLD_S = 300.0  # as long as an HPA waits before it takes a pod away (its default): by then it has seen all users again


def in_force(wanted: int, before: int | None, state: State | None, now_s: float) -> int:
    """Replicas of champion and of candidate, each.

    Args:
        wanted: `spec.replicas` as it is. before: in force until now; None when nothing was.
    """
    if before is None or state is None:
        return wanted
    runs = state.candidate is not None
    just_ended = state.started_s < state.since_s and now_s - state.since_s < HOLD_S  # one that was none did not end
    return max(wanted, before) if runs or just_ended else wanted
