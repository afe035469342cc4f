"""Entry point: `python -m pipelines.flights.publish`, a replay of the flights as live events; kill it, run it again.

Obeys everybody's clock; with `--speed` it sets that clock first, at the beginning of the period.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import signal
import sys
import threading
import time

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from flightdeck.contracts.clock import ReplayClock
from flightdeck.contracts.events import microseconds
from pipelines.clock import read_clock, set_clock
from pipelines.data.disturb import Disturbance, disturbed
from pipelines.data.publish import position_key, publish
from pipelines.flights.events import events_between
from pipelines.stores import shown

STREAMS_ENV = "FLIGHTDECK_STREAMS_REDIS"


def main(arguments: list[str] | None = None) -> int:
    """Publish a period."""
    chosen = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    streams = Redis.from_url(chosen.redis, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0))
    try:
        late_by = dt.timedelta(minutes=chosen.late_by_min)
        how = Disturbance(chosen.seed, chosen.repeated, chosen.late, late_by, chosen.unreadable)
        # Whoever goes on where another was killed must tell the very same.
        name = f"flights:{chosen.from_utc:%Y-%m-%dT%H:%M}:{chosen.until_utc:%Y-%m-%dT%H:%M}:{how}"
        if chosen.speed is not None and not streams.exists(position_key(name)):  # else the clock runs already
            set_clock(streams, ReplayClock(chosen.from_utc, time.time(), chosen.speed))
        done = publish(
            streams,
            disturbed(events_between(chosen.from_utc, chosen.until_utc), how),
            name=name,
            now_us=lambda: microseconds(read_clock(streams).now()),
            ends=stop.is_set,
        )
    except (RedisError, ValueError) as error:
        print(f"{shown(chosen.redis)}: {error}", file=sys.stderr)
        return 1
    print(f"{done.written:,} events written, {done.before:,} had been; the server was away {done.failures:,} times")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.flights.publish", description=__doc__)
    add = parser.add_argument
    add("--from", dest="from_utc", type=_utc, required=True, help="UTC, e.g. 2013-07-01T00:00")
    add("--until", dest="until_utc", type=_utc, required=True, help="UTC, not included")
    add("--speed", type=float, help="virtual seconds per second: sets everybody's clock to --from")
    add("--redis", default=os.environ.get(STREAMS_ENV, "redis://127.0.0.1:6379/0"), help=f"${STREAMS_ENV}")
    faults = parser.add_argument_group("what goes wrong, by a seed; shares are 0 to 1")
    faults.add_argument("--seed", type=int, default=0)
    faults.add_argument("--repeated", type=float, default=0.0, metavar="SHARE", help="told twice")
    faults.add_argument("--late", type=float, default=0.0, metavar="SHARE", help="told later than known")
    faults.add_argument("--late-by-min", type=float, default=45.0, help="the longest delay")
    faults.add_argument("--unreadable", type=float, default=0.0, metavar="SHARE", help="entries that are no events")
    return parser


def _utc(text: str) -> dt.datetime:
    at = dt.datetime.fromisoformat(text)
    return at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at.astimezone(dt.UTC)


if __name__ == "__main__":
    sys.exit(main())
