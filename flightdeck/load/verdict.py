"""Whether the users met what they should: a pure verdict on the outcomes."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import msgspec

from flightdeck.lab.users import Outcome, percentile, reason_counts
from flightdeck.load.plan import LoadPlan

LATE_MS = 100.0  # sent so long after its intended start: the users' own process lagged


class Finding(msgspec.Struct, frozen=True):
    """One figure against its limit; both as text with units."""

    name: str
    found: str
    limit: str
    ok: bool


class LoadVerdict(msgspec.Struct, frozen=True):
    """All of it; `notes` are sentences that help to read the figures."""

    ok: bool
    findings: list[Finding]
    notes: list[str]


def judge(plan: LoadPlan, outcomes: Sequence[Outcome]) -> LoadVerdict:
    """What the users met, against the plan's limits.

    Latency counts from the intended start, so a slow server cannot slow its users down and look fast (coordinated
    omission, G. Tene). A request without an answer has failed, and its latency is not among the percentiles.
    """
    limits = plan.limits
    answered = [outcome for outcome in outcomes if outcome.ok]
    failed = plan.total - len(answered)
    latencies = [outcome.latency_ms for outcome in answered]
    p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
    rate = realised_rate(plan, outcomes)
    least = limits.rate_share * plan.rate_per_s
    findings = [
        Finding(
            "p50",
            f"{p50:.1f} ms" if answered else "no answer",
            f"at most {limits.p50_ms:g} ms",
            bool(answered) and p50 <= limits.p50_ms,
        ),
        Finding(
            "p99",
            f"{p99:.1f} ms" if answered else "no answer",
            f"at most {limits.p99_ms:g} ms",
            bool(answered) and p99 <= limits.p99_ms,
        ),
        Finding(
            "failed requests", f"{failed:,} of {plan.total:,}", f"at most {limits.failed:,}", failed <= limits.failed
        ),
        Finding("realised rate", f"{rate:.1f}/s", f"at least {least:.1f}/s", rate >= least),
    ]
    return LoadVerdict(all(it.ok for it in findings), findings, _notes(plan, outcomes))


def realised_rate(plan: LoadPlan, outcomes: Sequence[Outcome]) -> float:
    """Requests sent a second: of all that should have been, over the time from the first to the last one sent."""
    if len(outcomes) < 2:
        return float(len(outcomes)) / plan.seconds
    sent = [outcome.sent_s for outcome in outcomes]
    span = max(max(sent) - min(sent), (plan.total - 1) / plan.rate_per_s)
    return (len(outcomes) - 1) / span


def _notes(plan: LoadPlan, outcomes: Sequence[Outcome]) -> list[str]:
    notes = []
    if unsent := plan.total - len(outcomes):
        notes.append(f"{unsent:,} requests had no answer when the test ended; they count as failed")
    errors = collections.Counter(f"{it.status or 'no answer'} {it.error[:120]}".strip() for it in outcomes if not it.ok)
    notes += [f"{count:,} times: {words}" for words, count in errors.most_common(5)]
    late = sum((it.sent_s - it.intended_s) * 1e3 > LATE_MS for it in outcomes)
    if late:
        notes.append(
            f"{late:,} requests were sent more than {LATE_MS:g} ms after their intended start: either {plan.users} "
            "requests were under way, or this machine was busy; the wait is part of their latency"
        )
    answered = sum(it.ok for it in outcomes)
    for reason, count in reason_counts(outcomes).most_common(5):
        notes.append(f"{count:,} of {answered:,} answers were degraded: {reason}")
    return notes


def words(verdict: LoadVerdict) -> str:
    """For a terminal."""
    width = max(len(it.name) for it in verdict.findings)
    lines = [f"{'ok  ' if it.ok else 'MISS'} {it.name:<{width}}  {it.found}, {it.limit}" for it in verdict.findings]
    return "\n".join([*lines, *(f"     {note}" for note in verdict.notes)])
