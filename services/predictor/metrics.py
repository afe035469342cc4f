"""Counters of the hot path: plain numbers here, Prometheus text only when somebody asks.

prometheus_client's own counters cost a lock and, under BentoML's multi-process mode, a memory-mapped file per update;
one process with one event loop needs neither. Every label comes from a fixed set, so that no caller can grow them.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BUCKETS_S = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.02,
    0.03,
    0.05,
    0.1,
    0.2,
    0.3,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
)


class _Histogram:
    """Counts per bucket of one label value; the last bucket is unbounded."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.buckets[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        total, rows = 0, []
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self.buckets, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class Metrics(Collector):
    """All numbers of one predictor process, with the model version as a constant label."""

    def __init__(self, *, model: str, version: str, sha256: str, feature_service: str, image: str) -> None:
        self._info = {
            "model": model,
            "version": version,
            "sha256": sha256,
            "feature_service": feature_service,
            "image": image,
        }
        self._version = version
        self.requests: Counter[tuple[str, str]] = Counter()  # (route template, code class)
        self.errors: Counter[tuple[str, str]] = Counter()  # (route template, error code)
        self.latency: dict[str, _Histogram] = {}
        self.rows: Counter[str] = Counter()
        self.degraded: Counter[str] = Counter()  # kind of reason
        self.features: Counter[tuple[str, str]] = Counter()  # (view, kind)
        self.log_dropped = 0
        self.log_written = 0
        self.log_failures = 0
        self.log_queued = 0
        self.store_up = True
        self.store_failures: Counter[str] = Counter()
        self.in_flight = 0
        self.ready = False
        self._registry = prometheus_client.CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        prometheus_client.ProcessCollector(registry=self._registry)

    def observe(self, route: str, status: int, seconds: float) -> None:
        """One finished request."""
        self.requests[route, f"{status // 100}xx"] += 1
        histogram = self.latency.get(route)
        if histogram is None:
            histogram = self.latency[route] = _Histogram()
        histogram.observe(seconds)

    def text(self) -> bytes:
        """Prometheus text exposition 0.0.4."""
        return prometheus_client.generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """What Prometheus sees."""
        version = self._version
        yield self._counter(
            "predictor_requests",
            "Requests by route and class of status code.",
            ("route", "code"),
            self.requests.items(),
        )
        yield self._counter(
            "predictor_errors", "Refused requests by route and error code.", ("route", "error"), self.errors.items()
        )
        latency = HistogramMetricFamily(
            "predictor_request_seconds",
            "Time from the first byte to the handler until the answer was handed over.",
            labels=("route", "model_version"),
        )
        for route, histogram in self.latency.items():
            latency.add_metric((route, version), buckets=histogram.cumulative(), sum_value=histogram.sum_s)
        yield latency
        yield self._counter("predictor_rows", "Rows answered by route.", ("route",), _single(self.rows))
        yield self._counter(
            "predictor_degraded_rows", "Rows answered with a reason of this kind.", ("reason",), _single(self.degraded)
        )
        yield self._counter(
            "predictor_feature_problems",
            "Rows whose view was missing, stale, ...",
            ("view", "kind"),
            self.features.items(),
        )
        yield self._counter(
            "predictor_store_failures", "Lookups that failed, by kind.", ("kind",), _single(self.store_failures)
        )
        for name, value, text in (
            (
                "predictor_log_dropped_rows",
                self.log_dropped,
                "Rows lost because the queue was full or the flush failed.",
            ),
            ("predictor_log_written_rows", self.log_written, "Rows written to the stream."),
            ("predictor_log_failures", self.log_failures, "Writes to the stream that failed and were tried again."),
        ):
            yield self._counter(name, text, (), [((), value)])
        for name, gauge, text in (
            ("predictor_log_queued_rows", self.log_queued, "Rows waiting to be written."),
            ("predictor_store_up", self.store_up, "1 while the online store answers."),
            ("predictor_in_flight", self.in_flight, "Requests being answered."),
            ("predictor_ready", self.ready, "1 while /readyz says yes."),
        ):
            yield GaugeMetricFamily(name, text, value=float(gauge))
        info = GaugeMetricFamily("predictor_model_info", "What serves; always 1.", labels=tuple(self._info))
        info.add_metric(tuple(self._info.values()), 1.0)
        yield info

    def _counter(
        self, name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]
    ) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=(*labels, "model_version"))
        for values, count in rows:
            family.add_metric((*values, self._version), float(count))
        return family


def _single(counter: Counter[str]) -> Iterator[tuple[tuple[str], float]]:
    return (((label,), float(count)) for label, count in counter.items())
