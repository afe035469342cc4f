"""Matches what the candidate did with what the champion did at the same moment, by draws that see no outcome. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from services.rollout_operator.differences import Answer, Pairs

SURPLUS = 50  # candidate's answers and attempts that wait for a partner under weight: a moment, not an hour


class Attempts(msgspec.Struct, frozen=True):
    """Attempts at one endpoint since its counter began: cumulative, each counted when it ends."""

    total: int
    failed: int


def increments(
    role: str, counters: dict[str, list[int]], now: Mapping[str, Attempts], *, from_zero: bool
) -> tuple[int, int]:
    """All and failed attempts since the last scrape; writes what was seen into `counters`.

    A counter that fell began anew. An endpoint that is missing from a scrape is no zero.

    Args:
        from_zero: what an endpoint counted before it was first seen belongs to the rollout.
    """
    total = failed = 0
    for endpoint, seen in now.items():
        name = f"{role} {endpoint}"
        before = counters.get(name)
        counters[name] = [seen.total, seen.failed]
        if before is None:
            if not from_zero:
                continue
            before = [0, 0]
        if seen.total < before[0] or seen.failed < before[1]:
            before = [0, 0]
        total, failed = total + seen.total - before[0], failed + seen.failed - before[1]
    return total, min(failed, total)


def matched_attempts(
    champion: tuple[int, int], candidate: tuple[int, int], generator: np.random.Generator
) -> tuple[dict[float, int], list[int]]:
    """As many of either as the smaller side has, drawn without a look: [all, failed] become differences.

    What a draw without replacement leaves of the failures is hypergeometric, so nobody has to keep single attempts.

    Returns:
        Difference -> count; and what the candidate has left for the next moment, [all, failed].
    """
    count = min(candidate[0], champion[0])
    failed = int(generator.hypergeometric(candidate[1], candidate[0] - candidate[1], count))
    left, left_failed = candidate[0] - count, candidate[1] - failed
    kept = min(left, SURPLUS)  # above a weight of 50 % there are more than the champion can match
    waiting = [kept, int(generator.hypergeometric(left_failed, left - left_failed, kept))]
    if not count:
        return {}, waiting
    other = int(generator.hypergeometric(champion[1], champion[0] - champion[1], count))
    both = int(generator.hypergeometric(other, count - other, failed)) if failed else 0
    return {1.0: failed - both, -1.0: other - both, 0.0: count - failed - other + both}, waiting


def matched(pool: Sequence[Answer], left: dict[str, Answer], generator: np.random.Generator) -> tuple[Pairs, int]:
    """Each answer of the candidate with one of the champion's of this moment; those without one wait for the next.

    Who is matched, waits or is dropped is drawn: the order in a batch tells replicas apart, and under much weight
    the last replica of each batch would never be looked at.

    Args:
        pool: the champion's. left: the candidate's by row; keeps at most `SURPLUS` that wait.
    Returns:
        The pairs, and how many were dropped.
    """
    keys = list(left)
    drawn = generator.permutation(len(pool))
    order = [keys[at] for at in generator.permutation(len(keys))]
    pairs = {key: (pool[at], left.pop(key)) for at, key in zip(drawn, order, strict=False)}
    gone = order[len(pool) + SURPLUS :]
    for key in gone:
        del left[key]
    return pairs, len(gone)


def mean_by_request(values: npt.NDArray[np.float64], requests: list[str]) -> npt.NDArray[np.float64]:
    """One difference per request, the mean over its rows, in the order of the requests' first rows.

    Rows of one request share its moment, its replica and its fate. Counted one by one they would be the same evidence
    many times over.

    Args:
        values: shape (n_rows,). requests: the request of each row.
    """
    if len(set(requests)) == len(requests):
        return values
    numbers: dict[str, int] = {}
    at = np.array([numbers.setdefault(request, len(numbers)) for request in requests])
    return np.asarray(np.bincount(at, weights=values) / np.bincount(at), dtype=np.float64)
