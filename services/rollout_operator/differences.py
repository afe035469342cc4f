"""What a pair of answers says: for every metric that has a margin, how much worse the candidate's answer was. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from flightdeck.contracts.rollout import Judge

Array = npt.NDArray[np.float64]


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Of a prediction record what a pair needs; latency_us is 0 for rows after the first."""

    entity_id: str
    score: float
    decision: str
    degraded: bool
    latency_us: int
    features: list[float | None]
    read_at_s: dict[str, float]  # event time of each stored view's values
    slices: list[str] = []  # its value of each key that answers are sliced by; "" where it tells none


Pair = tuple[Answer, Answer]  # champion's, candidate's
Pairs = dict[str, Pair]  # "request id/row", under weight the candidate's -> its pair


class Differences(NamedTuple):
    """Of one component, a metric or `metric/part`: shape (n_pairs,), each in [-1, 1], and the request of each."""

    component: str
    values: Array
    requests: list[str]


def request_of(key: str) -> str:
    """Of a row's key."""
    return key.rpartition("/")[0]


def clipped_scores(pairs: Sequence[Pair], settings: Judge) -> Array:
    """Scores of champion and candidate, within the score range; shape (n_pairs, 2)."""
    return np.clip([[one.score, other.score] for one, other in pairs], *settings.score_range)


def of_answers(found: Pairs, settings: Judge, *, shadow: bool, middle: float | None) -> Iterator[Differences]:
    """What every pair can say, of all answers and of a slice alike: degraded, scores, decisions.

    Args:
        middle: the champion's median score; None while it is not known.
    """
    pairs, requests = list(found.values()), [request_of(key) for key in found]
    margins, (low, high) = settings.margins, settings.score_range
    scores = clipped_scores(pairs, settings)
    if margins.degraded_rate is not None:
        worse = np.array([float(other.degraded) - one.degraded for one, other in pairs])
        yield Differences("degradedRate", worse, requests)
    if margins.score_shift is not None:
        yield Differences("scoreShift/mean", (scores[:, 1] - scores[:, 0]) / (high - low), requests)
        if middle is not None:
            apart = np.abs(scores - middle)
            yield Differences("scoreShift/spread", (apart[:, 1] - apart[:, 0]) / (high - low), requests)
    if shadow and margins.score_delta is not None:
        yield Differences("scoreDelta", np.abs(scores[:, 1] - scores[:, 0]) / (high - low), requests)
    if shadow and margins.label_flips is not None:
        flips = np.array([float(one.decision != other.decision) for one, other in pairs])
        yield Differences("labelFlips", flips, requests)


def of_latencies(found: Pairs, settings: Judge, yardsticks_us: dict[str, float]) -> Iterator[Differences]:
    """How often either is beyond its limit: the candidate beyond so many times the champion's quantile.

    Args:
        yardsticks_us: the champion's quantiles "p50" and "p99" that are known so far.
    """
    margins = settings.margins
    for name, ratio in (("p50", margins.latency_p50_ratio), ("p99", margins.latency_p99_ratio)):
        if ratio is not None and name in yardsticks_us:
            yard_us = yardsticks_us[name]
            timed = {key: pair for key, pair in found.items() if pair[0].latency_us and pair[1].latency_us}
            worse = [float(b.latency_us > ratio * yard_us) - (a.latency_us > yard_us) for a, b in timed.values()]
            yield Differences(f"latency{name.upper()}Ratio", np.array(worse), [request_of(key) for key in timed])
