"""The metrics: what they count, and that docs/metrics.md describes each of them."""

import re
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from homeserver.metrics import Metrics

MANUAL = Path(__file__).parents[2] / "docs" / "metrics.md"


def busy_metrics() -> Metrics:
    """Metrics in which everything has been counted once, so that every series shows."""
    metrics = Metrics()
    metrics.observe_request("sendMessage", 200, 0.003)
    figures = metrics.cache("rooms", lambda: 7)
    figures.hits += 2
    figures.misses += 1
    metrics.events_persisted.inc(3)
    metrics.commit_batch_events.observe(3)
    metrics.commit_seconds.observe(0.001)
    metrics.sync_waiting.inc()
    metrics.sync_woken.inc()
    metrics.pushes.labels("sent").inc()
    metrics.mails.labels("validation", "sent").inc()
    metrics.push_lag_seconds.observe(0.1)
    metrics.push_pending.set(1)
    metrics.database_pool_in_use.set(1)
    metrics.federation_requests.labels("ok").inc()
    metrics.server_key_fetches.labels("server", "ok").inc()
    metrics.federation_transactions.labels("delivered").inc()
    metrics.federation_sent.labels("pdu").inc()
    metrics.media_bytes.labels("in").inc(7)
    metrics.media_thumbnails.labels("made").inc()
    metrics.media_fetches.labels("fetched").inc()
    metrics.appservice_transactions.labels("bridge").inc()
    metrics.appservice_failures.labels("bridge").inc()
    metrics.appservice_lag.labels("bridge").set(1)
    return metrics


def exposed_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_documents_every_metric_with_its_type_and_its_labels() -> None:
    documented = {}
    for line in MANUAL.read_text(encoding="utf-8").splitlines():
        row = re.fullmatch(r"\| `(\w+)` \| (\w+) \| (.*?) ?\| \S.* \|", line)
        if row:
            documented[row[1]] = (row[2], set(re.findall(r"`(\w+)`", row[3])))
    exposed = {
        exposed_name(family): (family.type, set().union(*(s.labels.keys() for s in family.samples)) - {"le"})
        for family in busy_metrics().registry.collect()
    }
    assert documented == exposed


def test_renders_text_that_prometheus_parses() -> None:
    body, content_type = busy_metrics().render()
    families = {exposed_name(family) for family in text_string_to_metric_families(body.decode())}
    assert {"http_requests_total", "http_request_seconds", "cache_entries", "process_cpu_seconds_total"} <= families
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"_created" not in body


def test_counts_requests_by_operation_and_status() -> None:
    metrics = Metrics()
    for status, seconds in ((200, 0.0004), (200, 0.001), (429, 0.0011), (200, 60.0)):
        metrics.observe_request("sync", status, seconds)
    assert value(metrics, "http_requests_total", operation="sync", status="200") == 3
    assert value(metrics, "http_requests_total", operation="sync", status="429") == 1
    # A bucket holds what is at most its bound, the smaller ones included.
    assert value(metrics, "http_request_seconds_bucket", operation="sync", le="0.001") == 2
    assert value(metrics, "http_request_seconds_bucket", operation="sync", le="0.0025") == 3
    assert value(metrics, "http_request_seconds_bucket", operation="sync", le="30.0") == 3
    assert value(metrics, "http_request_seconds_bucket", operation="sync", le="+Inf") == 4
    assert value(metrics, "http_request_seconds_count", operation="sync") == 4
    assert value(metrics, "http_request_seconds_sum", operation="sync") == 0.0004 + 0.001 + 0.0011 + 60.0


def test_asks_a_cache_for_its_size_when_the_figures_are_read() -> None:
    metrics = Metrics()
    entries: list[int] = []
    figures = metrics.cache("events", entries.__len__)
    figures.misses += 1
    entries.append(1)
    assert value(metrics, "cache_entries", cache="events") == 1
    assert value(metrics, "cache_requests_total", cache="events", result="hit") == 0
    assert value(metrics, "cache_requests_total", cache="events", result="miss") == 1


def test_two_servers_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.events_persisted.inc()
    first.observe_request("sync", 200, 0.1)
    assert value(first, "events_persisted_total") == 1
    assert value(second, "events_persisted_total") == 0
    assert value(second, "http_requests_total", operation="sync", status="200") is None
