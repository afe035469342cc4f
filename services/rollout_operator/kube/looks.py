"""Adapter: the judge's looks in the streams' Valkey, for the evidence page. One list per object, bounded, expiring.

Looks are for people: losing some changes no decision, so nothing here waits, retries or fails a tick.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import redis

from services.rollout_operator.remembered import Look
from services.rollout_operator.state import Phase
from services.rollout_operator.verdict import Verdict

KEPT = 4_000  # looks of one object, also of its earlier rollouts: the newest; about 1 kB each
KEPT_S = 30 * 86_400
PER_ROLLOUT = 400  # about the width of a picture
_decode = msgspec.msgpack.Decoder(Look).decode


def key(uid: str) -> str:
    """Of the object with this uid."""
    return f"flightdeck:rollout:{uid}:looks"


class Looks:
    """Writes those of one object.

    One a second at first; the longer a rollout lasts, the further apart, so that the whole of a week's rollout stays
    within the bound. What changed phase, step, weight or verdict is kept at once.
    """

    def __init__(self, valkey: Any) -> None:
        self.valkey = valkey
        self.last: Look | None = None

    def due(self, look: Look) -> bool:
        """Whether it shows something that the last one did not."""
        last = self.last
        if last is None or _stands(last) != _stands(look):
            return True
        return look.at_s - last.at_s >= (look.at_s - look.started_s) / PER_ROLLOUT

    def keep(self, uid: str, look: Look) -> bool:
        """If it is due, in one round trip; False when Valkey did not take it."""
        if not self.due(look):
            return True
        content = zlib.compress(msgspec.msgpack.encode(look))
        try:
            with self.valkey.pipeline(transaction=False) as pipe:
                pipe.rpush(key(uid), content)
                pipe.ltrim(key(uid), -KEPT, -1)
                pipe.expire(key(uid), KEPT_S)
                pipe.execute()
        except redis.RedisError:
            return False
        self.last = look
        return True


def kept(valkey: Any, uid: str) -> list[Look]:
    """All, oldest first; those that another version wrote in another way are left out.

    Raises:
        redis.RedisError: Valkey does not answer, or wants another password.
    """
    found = []
    for content in valkey.lrange(key(uid), 0, -1):
        try:
            found.append(_decode(zlib.decompress(content)))
        except (zlib.error, msgspec.DecodeError):
            continue
    return sorted(found, key=lambda look: look.at_s)  # an operator that was thought dead may have written one more


def _stands(look: Look) -> tuple[float, Phase, int, int, Verdict]:
    return look.started_s, look.phase, look.step, look.weight, look.judgement.verdict
