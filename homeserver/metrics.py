"""The server's figures for Prometheus. docs/metrics.md describes each; a test holds the two together.

There is no global registry: the composition root makes one `Metrics` and hands it to whoever counts.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_PUSH_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 86400.0)
_SEND_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3600.0, 86400.0)
_BATCH_EVENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

# Twice the lines, for a time that nobody looks at.
disable_created_metrics()  # type: ignore[no-untyped-call]


class CacheFigures:
    """What a cache counts about itself, as plain numbers: `figures.hits += 1`."""

    __slots__ = ("hits", "misses", "size")

    def __init__(self, size: Callable[[], int]) -> None:
        self.hits = 0
        self.misses = 0
        self.size = size


class _OperationFigures:
    """How often an operation was answered, and how fast."""

    __slots__ = ("in_bucket", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.in_bucket = [0] * (len(_REQUEST_SECONDS) + 1)
        self.seconds = 0.0


class _HotFigures(Collector):
    """What is counted several times a message, without the library's locks: the event loop has one thread."""

    def __init__(self) -> None:
        self.operations: dict[str, _OperationFigures] = {}
        self.caches: dict[str, CacheFigures] = {}

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("http_requests", "Requests answered.", labels=("operation", "status"))
        times = HistogramMetricFamily(
            "http_request_seconds", "Time from a request's headers to the end of its answer.", labels=("operation",)
        )
        for operation, figures in self.operations.items():
            for status, count in figures.statuses.items():
                requests.add_metric((operation, str(status)), count)
            bounds = [*map(str, _REQUEST_SECONDS), "+Inf"]
            buckets = list(zip(bounds, accumulate(figures.in_bucket), strict=True))
            times.add_metric((operation,), buckets, figures.seconds)
        lookups = CounterMetricFamily("cache_requests", "Look-ups in a cache.", labels=("cache", "result"))
        entries = GaugeMetricFamily("cache_entries", "Entries in a cache.", labels=("cache",))
        for name, cache in self.caches.items():
            lookups.add_metric((name, "hit"), cache.hits)
            lookups.add_metric((name, "miss"), cache.misses)
            entries.add_metric((name,), cache.size())
        yield from (requests, times, lookups, entries)


class Metrics:
    """Every metric of one process, in a registry of its own. To be used from the event loop's thread."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._hot = _HotFigures()
        registry.register(self._hot)
        self.events_persisted = Counter("events_persisted_total", "Events committed.", registry=registry)
        self.commit_batch_events = Histogram(
            "commit_batch_events", "Events in one commit.", buckets=_BATCH_EVENTS, registry=registry
        )
        self.commit_seconds = Histogram(
            "commit_seconds", "Time of one commit.", buckets=_COMMIT_SECONDS, registry=registry
        )
        self.sync_waiting = Gauge("sync_waiting", "Sync requests that wait for news.", registry=registry)
        self.sync_woken = Counter("sync_woken_total", "Waiting sync requests that news woke.", registry=registry)
        self.database_pool_in_use = Gauge(
            "database_pool_in_use", "Database connections that are at work.", registry=registry
        )
        self._count_federation(registry)
        self._count_deliveries(registry)
        self._count_media(registry)

    def _count_federation(self, registry: CollectorRegistry) -> None:
        self.federation_requests = Counter(
            "federation_requests_total", "Requests to other servers.", ("outcome",), registry=registry
        )
        self.federation_transactions = Counter(
            "federation_transactions_total", "Tries to send a transaction to a server.", ("outcome",), registry=registry
        )
        self.federation_sent = Counter(
            "federation_sent_total", "What other servers were sent and took.", ("kind",), registry=registry
        )
        self.federation_send_seconds = Histogram(
            "federation_send_seconds",
            "Time from when something was to be sent to a server to its answer.",
            buckets=_SEND_SECONDS,
            registry=registry,
        )
        self.federation_destinations_behind = Gauge(
            "federation_destinations_behind",
            "Servers that something waits for which do not take it.",
            registry=registry,
        )
        self.server_key_fetches = Counter(
            "server_key_fetches_total",
            "Times that keys of a server were asked for.",
            ("source", "outcome"),
            registry=registry,
        )

    def _count_deliveries(self, registry: CollectorRegistry) -> None:
        self.pushes = Counter(
            "pushes_total", "Pushes to gateways, by what became of them.", labelnames=("result",), registry=registry
        )
        self.push_lag_seconds = Histogram(
            "push_lag_seconds", "Time from an event to its push.", buckets=_PUSH_SECONDS, registry=registry
        )
        self.mails = Counter(
            "mails_total",
            "Mails, by kind and by what became of them.",
            labelnames=("kind", "result"),
            registry=registry,
        )
        self.push_pending = Gauge("push_pending", "Events not yet looked at for pushes.", registry=registry)
        self.appservice_transactions = Counter(
            "appservice_transactions_total",
            "Transactions that an application service took.",
            ("service",),
            registry=registry,
        )
        self.appservice_failures = Counter(
            "appservice_failures_total",
            "Attempts at a transaction that an application service did not take.",
            ("service",),
            registry=registry,
        )
        self.appservice_lag = Gauge(
            "appservice_lag_seconds",
            "For how long the oldest thing has waited that an application service was not told.",
            ("service",),
            registry=registry,
        )

    def _count_media(self, registry: CollectorRegistry) -> None:
        self.media_bytes = Counter("media_bytes_total", "Bytes of files.", ("direction",), registry=registry)
        self.media_thumbnails = Counter(
            "media_thumbnails_total", "Thumbnails that were asked for.", ("result",), registry=registry
        )
        self.media_fetches = Counter(
            "media_fetches_total", "Files of other servers that were not here.", ("result",), registry=registry
        )

    def observe_request(self, operation: str, status: int, seconds: float) -> None:
        """Count a request that was answered. `operation` is the route's operation ID, never a part of the path."""
        figures = self._hot.operations.get(operation)
        if figures is None:
            figures = self._hot.operations[operation] = _OperationFigures()
        figures.statuses[status] = figures.statuses.get(status, 0) + 1
        figures.in_bucket[bisect_left(_REQUEST_SECONDS, seconds)] += 1
        figures.seconds += seconds

    def cache(self, name: str, size: Callable[[], int]) -> CacheFigures:
        """The figures of the cache of this name, for the cache to count in; `size` says how many entries it has.

        Asked for once a cache, not once a look-up. A second cache of the name takes the place of the first.
        """
        figures = self._hot.caches[name] = CacheFigures(size)
        return figures

    def render(self) -> tuple[bytes, str]:
        """The figures in Prometheus' text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE
