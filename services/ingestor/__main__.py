"""Entry point: `python -m services.ingestor`, one process that works until SIGTERM. Settings: `INGESTOR_*`."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import threading
from collections.abc import Callable

import pydantic

from flightdeck.contracts.events import Fold
from services.ingestor.ingestor import Ingestor
from services.ingestor.metrics import Metrics
from services.ingestor.online import FeastOnline, OnlineStoreUnusable, open_store
from services.ingestor.pushing import Pusher
from services.ingestor.settings import IngestorSettings, complaint
from services.ingestor.streams import Streams
from services.ingestor.web import serve

logger = logging.getLogger("flightdeck.ingestor")
UNUSABLE = 3  # exit code: nothing that another try would mend


def main() -> int:
    """Wire the ingestor and run it."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logger.setLevel(logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = IngestorSettings()
        make_fold = fold_named(settings.fold)
        views = make_fold().views
        store = open_store(settings.feature_store, registry=settings.feast_registry, online_redis=settings.online_redis)
        online = FeastOnline(store, views)
    except pydantic.ValidationError as error:
        return _unusable(complaint(error))
    except (OnlineStoreUnusable, ValueError) as error:
        return _unusable(str(error))
    metrics = Metrics(make_fold().kinds, views)
    streams = Streams(
        settings.streams_redis_url, consumer=settings.consumer, lease_s=settings.lease_s,
        dead_letters_kept=settings.dead_letters_kept,
    )  # fmt: skip
    pusher = Pusher(online, metrics)
    pusher.start()
    page = serve(metrics, settings.port)
    logger.info("page on port %d; folding with %s", page.server_port, settings.fold)
    try:
        Ingestor(make_fold, streams, pusher, metrics, settings).run(stop)
    except ValueError as error:  # what is kept, or the clock
        return _unusable(str(error))
    if not pusher.finish(settings.drain_s):
        logger.warning("the last rows were not taken within %s s; the next start pushes them", settings.drain_s)
    page.shutdown()
    streams.close()
    logger.info("ended; all that was read is committed")
    return 0


def fold_named(name: str) -> Callable[[], Fold]:
    """What `module:Class` names.

    Raises:
        ValueError: nothing.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Callable[[], Fold] = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"INGESTOR_FOLD={name} cannot be loaded: {error}") from error
    return found


def _unusable(words: str) -> int:
    logger.error("%s", words)
    return UNUSABLE


if __name__ == "__main__":
    sys.exit(main())
