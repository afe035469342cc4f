"""What Prometheus sees: plain numbers here, text when somebody asks. Every label is from a fixed set."""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flightdeck.contracts.events import Effect
from services.ingestor.intake import Reason, Taken

FLUSH_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
FRESHNESS_BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0, 60.0, 600.0, 1800.0, 3600.0)


class Histogram:
    """Counts per bucket; the last one is unbounded."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum_s = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def observe(self, seconds: float) -> None:
        """One measurement."""
        self.counts[bisect.bisect_left(self.bounds, seconds)] += 1
        self.sum_s += seconds

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """As Prometheus wants it."""
        total, rows = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return HistogramMetricFamily(name, text, buckets=rows, sum_value=self.sum_s)


class Metrics(Collector):
    """All numbers of one ingestor.

    Args:
        kinds, views: of the fold: the labels there are.
    """

    def __init__(self, kinds: Sequence[str], views: Sequence[str]) -> None:
        self._kinds, self._views = tuple(kinds), tuple(views)
        self.events: Counter[tuple[str, str]] = Counter()  # kind, effect
        self.duplicates: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.clamped: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.snapshots: Counter[str] = Counter()
        self.revised: Counter[str] = Counter()
        self.pushed: Counter[str] = Counter()
        self.skipped = self.push_failures = self.restarts = self.backlog = self.remembered = 0
        self.lag_s = self.reached_s = self.clock_behind_s = 0.0
        self.leads, self.online_up, self.streams_up = False, True, True
        self.flush, self.freshness = Histogram(FLUSH_BUCKETS_S), Histogram(FRESHNESS_BUCKETS_S)
        self.beat_s = time.monotonic()
        self._registry = prometheus_client.CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        prometheus_client.ProcessCollector(registry=self._registry)

    def count(self, taken: Taken) -> None:
        """What a committed batch did."""
        for event in taken.accepted:
            self.events[event.kind, event.effect] += 1
            self.late[event.kind] += event.late
        self.duplicates.update(taken.duplicates)
        self.clamped.update(taken.clamped)
        self.dead.update(letter.reason.value for letter in taken.dead)
        for row in taken.snapshots:
            (self.revised if row.revision else self.snapshots)[row.view] += 1
        self.skipped += taken.skipped

    def text(self) -> bytes:
        """Prometheus text exposition 0.0.4."""
        return prometheus_client.generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """What Prometheus sees."""
        kinds, views = self._kinds, self._views
        events = CounterMetricFamily("ingestor_events", "Valid events, each once.", labels=("kind", "effect"))
        for kind in kinds:
            for effect in Effect:
                events.add_metric((kind, effect.value), float(self.events[kind, effect]))
        yield events
        for name, text, label, values, counts in (
            ("ingestor_duplicate_events", "Events that had come before.", "kind", kinds, self.duplicates),
            ("ingestor_late_events", "Events after a snapshot that should have known them.", "kind", kinds, self.late),
            ("ingestor_clamped_events", "Events from the future, set back to now.", "kind", kinds, self.clamped),
            ("ingestor_dead_letters", "Entries that are no events.", "reason", tuple(Reason), self.dead),
            ("ingestor_snapshot_rows", "Feature rows made.", "view", views, self.snapshots),
            ("ingestor_revised_rows", "Feature rows made again for a late event.", "view", views, self.revised),
            ("ingestor_pushed_rows", "Feature rows written to the online store.", "view", views, self.pushed),
        ):
            family = CounterMetricFamily(name, text, labels=(label,))
            for value in values:
                family.add_metric((str(value),), float(counts[value]))
            yield family
        for name, text, count in (
            ("ingestor_skipped_snapshots", "Snapshots not made after a gap too long to be filled.", self.skipped),
            (
                "ingestor_push_failures",
                "Writes to the online store that failed.",
                self.push_failures,
            ),
            ("ingestor_restarts", "Times that it began again from what is kept, after a failure.", self.restarts),
        ):
            yield CounterMetricFamily(name, text, value=float(count))
        for name, text, gauge in (
            ("ingestor_backlog_events", "Events on the stream that are not done.", self.backlog),
            ("ingestor_lag_seconds", "Age on the stream of the newest event done; 0 when none waits.", self.lag_s),
            ("ingestor_remembered_events", "Events that a snapshot may still know.", self.remembered),
            ("ingestor_reached_timestamp_seconds", "The clock's time until which all is heard.", self.reached_s),
            ("ingestor_clock_behind_seconds", "How far the clock is behind events already heard.", self.clock_behind_s),
            ("ingestor_leads", "1 while this one works, 0 while another does.", self.leads),
            ("ingestor_online_up", "1 while the online store takes rows.", self.online_up),
            ("ingestor_streams_up", "1 while the streams server answers.", self.streams_up),
        ):
            yield GaugeMetricFamily(name, text, value=float(gauge))
        yield self.flush.family("ingestor_flush_seconds", "From a batch read until it was committed.")
        yield self.freshness.family(
            "ingestor_freshness_seconds",
            "From an event on the stream until a snapshot that knows it was in the online store.",
        )
