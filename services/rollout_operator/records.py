"""Adapter: what the streams tell since a cursor, predictions and outcomes. Reads only: the lake's drain trims."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import msgspec
import redis

from flightdeck.contracts.model_spec import Task
from flightdeck.contracts.prediction import OUTCOME_STREAM, PREDICTION_STREAM, PredictionRecord
from services.rollout_operator.ports import Unavailable

BATCH = 500  # stream entries per read; an entry holds the records of one flush of a replica
_outcomes = msgspec.msgpack.Decoder(list[tuple[int, str, int | None, float | None]]).decode
_predictions = msgspec.msgpack.Decoder(list[PredictionRecord]).decode


@dataclasses.dataclass
class Records:
    """Reads both streams.

    Args:
        cursors: stream -> id of the last entry seen. Saved with the evidence, so that each entry counts exactly once.
        unreadable: entries that are no records; the lake's drain keeps them aside.
    """

    client: Any
    cursors: dict[str, str] = dataclasses.field(default_factory=dict)
    unreadable: int = 0

    def skip_to_now(self) -> None:
        """Forget what was said before this moment.

        Raises:
            Unavailable: the streams are away.
        """
        for stream in (PREDICTION_STREAM, OUTCOME_STREAM):
            with _told("ask for the newest entry"):
                newest = self.client.xrevrange(stream, count=1)
            self.cursors[stream] = newest[0][0].decode() if newest else "0-0"

    def predictions(self) -> list[PredictionRecord]:
        """Records since the last call, in the order of writing.

        Raises:
            Unavailable: the streams are away; nothing is lost, ask again.
        """
        found: list[PredictionRecord] = []
        for content in self._new(PREDICTION_STREAM):
            try:
                found += _predictions(content)
            except (msgspec.DecodeError, msgspec.ValidationError):
                self.unreadable += 1
        return found

    def outcomes(self, task: Task) -> dict[str, float]:
        """entity_id -> what became known since the last call: late or not, or the delay in minutes.

        Raises:
            Unavailable: the streams are away; nothing is lost, ask again.
        """
        found: dict[str, float] = {}
        for content in self._new(OUTCOME_STREAM):
            try:
                told = _outcomes(content)
            except (msgspec.DecodeError, msgspec.ValidationError):
                self.unreadable += 1
                continue
            for _, entity_id, late, delay in told:
                value = late if task is Task.CLASSIFICATION else delay
                if value is not None:
                    found[entity_id] = float(value)
        return found

    def _new(self, stream: str) -> list[bytes]:
        contents: list[bytes] = []
        cursor = self.cursors.get(stream, "0-0")
        while True:
            with _told("read on"):
                entries = self.client.xrange(stream, min=f"({cursor}", count=BATCH)
            contents += [fields[b"r"] for _, fields in entries if b"r" in fields]
            if entries:
                cursor = entries[-1][0].decode()
            if len(entries) < BATCH:
                self.cursors[stream] = cursor  # only now: after an error in the middle all of it is asked for again
                return contents


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise Unavailable(f"the streams did not {what}: {error}") from error


def connect(url: str) -> Records:
    """Records of the streams Redis at `url`, nothing asked yet."""
    return Records(_client(url))


@functools.cache
def _client(url: str) -> redis.Redis:
    """One for all rollouts of a process: its connections are as many as ticks at once, not as rollouts."""
    return redis.Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=1.0)
