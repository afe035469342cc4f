"""The frame around the fold: it knows no use case, and its page says what docs/ingestor.md says."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from feature_repo.streaming import FlightFold
from flightdeck.contracts.events import FeatureSnapshot
from services.ingestor.__main__ import fold_named
from services.ingestor.ingestor import SettledClock
from services.ingestor.metrics import Metrics
from services.ingestor.pushing import Pusher
from services.ingestor.settings import IngestorSettings
from services.ingestor.web import STUCK_S, serve
from tests.contract.byo.test_generic_code import WORDS, words

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 20


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(FlightFold.kinds, FlightFold.views)


def row(at_us: int, departures: float = 1.0, view: str = "congestion") -> FeatureSnapshot:
    return FeatureSnapshot(view, {"origin": "EWR"}, {"departures_1h": departures}, at_us, 0, at_us)


def test_the_frame_speaks_of_no_flight():
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted((ROOT / "services" / "ingestor").glob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words(line) & WORDS and "FlightFold" not in line
    ]
    assert not found


def test_the_default_fold_is_there_and_another_is_named_when_it_is_not():
    assert fold_named(IngestorSettings().fold) is FlightFold
    with pytest.raises(ValueError, match=r"INGESTOR_FOLD=feature_repo\.streaming:None_ cannot be loaded"):
        fold_named("feature_repo.streaming:None_")


def test_every_metric_is_in_the_docs_and_every_one_in_the_docs_is_told(metrics):
    page = (ROOT / "docs" / "ingestor.md").read_text()
    documented = set(re.findall(r"^\| `(ingestor_\w+)`", page, re.M))
    told = {family.name + ("_total" if family.type == "counter" else "") for family in metrics.collect()}
    assert documented == told


def test_every_setting_is_in_the_docs():
    page = (ROOT / "docs" / "ingestor.md").read_text()
    assert set(re.findall(r"`INGESTOR_(\w+)`", page)) == {name.upper() for name in IngestorSettings.model_fields}


def test_all_labels_are_there_before_anything_happened(metrics):
    text = metrics.text().decode()
    assert 'ingestor_dead_letters_total{reason="not_json"} 0.0' in text
    assert 'ingestor_events_total{effect="expired",kind="weather"} 0.0' in text


class Store:
    """An online store that refuses the first writes, and can be held."""

    def __init__(self, refuses: int = 0) -> None:
        self.refuses, self.rows, self.calls = refuses, [], 0
        self.open = threading.Event()
        self.open.set()

    def push(self, rows):
        self.open.wait(WAIT_S)
        self.calls += 1
        if self.calls <= self.refuses:
            raise ConnectionError("away")
        self.rows += rows


def test_rows_are_pushed_again_until_they_are_taken(metrics):
    store = Store(refuses=3)
    pusher = Pusher(store, metrics)
    pusher.start()
    pusher.offer([row(1)], [(1, 0.0), (2, 0.0)])
    assert pusher.finish(WAIT_S)
    assert store.rows == [row(1)]
    assert (metrics.push_failures, metrics.online_up, metrics.pushed["congestion"]) == (3, True, 1)
    assert sum(metrics.freshness.counts) == 1, "of the event that the snapshot knows"


def test_only_the_newest_row_waits_for_a_store_that_is_slow(metrics):
    store = Store()
    store.open.clear()
    pusher = Pusher(store, metrics)
    pusher.start()
    for at_us in range(1, 100):
        pusher.offer([row(at_us), row(at_us, view="overdue")])
    store.open.set()
    assert pusher.finish(WAIT_S)
    assert len(store.rows) <= 4
    assert {(item.view, item.at_us) for item in store.rows[-2:]} == {("congestion", 99), ("overdue", 99)}


def test_a_row_that_was_refused_never_replaces_a_newer_one(metrics):
    store = Store(refuses=1)
    store.open.clear()
    pusher = Pusher(store, metrics)
    pusher.start()
    pusher.offer([row(1)])
    while pusher._rows:  # until the thread has it in hand
        pass
    pusher.offer([row(2)])
    store.open.set()
    assert pusher.finish(WAIT_S)
    assert store.rows == [row(2)]


def test_a_store_that_stays_away_does_not_hold_up_the_end(metrics):
    pusher = Pusher(Store(refuses=10**9), metrics)
    pusher.start()
    pusher.offer([row(1)])
    assert not pusher.finish(0.3)


def test_the_settled_clock_is_what_was_shown_then():
    settled = SettledClock(1.0)
    assert settled.told(10.0, 1000) is None
    assert settled.told(10.5, 2000) is None
    assert settled.told(11.0, 3000) == 1000
    assert settled.told(11.6, 4000) == 2000
    assert settled.told(20.0, 5000) == 4000


def test_a_clock_that_was_set_back_settles_anew():
    settled = SettledClock(1.0)
    settled.told(10.0, 9_000_000)
    assert settled.told(11.5, 1000) is None
    assert settled.told(12.5, 2000) == 1000


def test_the_page_tells_a_loop_that_stands_still(metrics):
    page = serve(metrics, 0)
    try:

        def status(path: str) -> int:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{page.server_port}{path}", timeout=5) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code

        assert [status(path) for path in ("/metrics", "/healthz", "/readyz", "/no")] == [200, 200, 200, 404]
        metrics.streams_up = False
        assert [status(path) for path in ("/healthz", "/readyz")] == [200, 503]
        metrics.beat_s -= STUCK_S
        assert status("/healthz") == 503
    finally:
        page.shutdown()
        page.server_close()
