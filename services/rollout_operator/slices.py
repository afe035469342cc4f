"""Answers by slice: the same differences, counted for each value of a key, e.g. for each region. Pure.

In the shadow a pair is about one row and lies in its slice. Under weight two answers that are compared are about two
rows, so each slice draws its own pairs: a candidate's answer about one value with one of the champion's about
the same.

Nothing grows without bound: the first `maxValues` values of a key have a slice each, all later ones share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np

from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.rollout import Slices
from services.rollout_operator.differences import Answer, Pairs, request_of
from services.rollout_operator.matching import matched

OTHER = "(other)"
LONGEST_VALUE = 40  # characters: values come from users
GRAIN = 10  # slices keep differences on every tenth level only: 41 of 401, and a fortieth of a megabyte less each


class Slice(msgspec.Struct):
    """One value of one key.

    Args:
        pairs: compared requests. series: component -> step -> histogram slot -> differences.
    """

    pairs: int = 0
    series: dict[str, dict[int, dict[int, int]]] = msgspec.field(default_factory=dict)


ByKey = dict[str, dict[str, Slice]]  # key -> value -> its slice, in the order in which they came
Waiting = dict[str, dict[str, Answer]]  # "key=value" -> candidate's answers that wait for a partner


def check_keys(settings: Slices | None, known: set[str]) -> None:
    """Refuse a key that no answer can tell.

    Args:
        known: join keys of either release's features.
    Raises:
        ValueError: names it, and what could be meant.
    """
    for name in settings.by if settings else ():
        if name not in known:
            raise ValueError(
                f"judge.slices.by: {name!r} is no join key of the releases' features; they have "
                f"{', '.join(sorted(known)) or 'none'}"
            )


def values_of(record: PredictionRecord, settings: Slices | None) -> list[str]:
    """A record's value of each key; "" where it tells none: an older release, or a row without an entity."""
    return [record.keys.get(name, "")[:LONGEST_VALUE] for name in settings.by] if settings else []


def pairs_by_slice(
    settings: Slices,
    slices: ByKey,
    waiting: Waiting,
    *,
    ours: Mapping[str, Answer],
    theirs: Mapping[str, Answer],
    joined: Pairs | None,
    generator: Callable[[], np.random.Generator],
) -> Iterator[tuple[str, Slice, Pairs]]:
    """("key=value", its slice, its pairs of this moment) for each slice that has some; makes slices as they come.

    Args:
        ours, theirs: answers of champion and candidate. joined: in the shadow their pairs; None under weight.
    """
    for place, key in enumerate(settings.by):
        known = slices.setdefault(key, {})
        found: dict[str, Pairs] = {}
        if joined is not None:
            for row, pair in joined.items():  # either may be of an older release that tells no keys
                if told := _told(pair[0], place) or _told(pair[1], place):
                    found.setdefault(_slice_of(known, told, settings), {})[row] = pair
        else:
            champions, candidates = (_grouped(it, place, known, settings) for it in (ours, theirs))
            for value in known:
                left = waiting.setdefault(f"{key}={value}", {})
                left |= candidates.get(value, {})
                if left:
                    found[value], _ = matched(list(champions.get(value, {}).values()), left, generator())
        for value, pairs in found.items():
            if pairs:
                known[value].pairs += len({request_of(row) for row in pairs})
                yield f"{key}={value}", known[value], pairs


def _told(answer: Answer, place: int) -> str:
    return answer.slices[place] if place < len(answer.slices) else ""


def _grouped(
    answers: Mapping[str, Answer], place: int, known: dict[str, Slice], settings: Slices
) -> dict[str, dict[str, Answer]]:
    found: dict[str, dict[str, Answer]] = {}
    for row, answer in answers.items():
        if told := _told(answer, place):
            found.setdefault(_slice_of(known, told, settings), {})[row] = answer
    return found


def _slice_of(known: dict[str, Slice], value: str, settings: Slices) -> str:
    """The value itself, or the one name of all that came too late."""
    name = value if value in known or len(known.keys() - {OTHER}) < settings.max_values else OTHER
    known.setdefault(name, Slice())
    return name
