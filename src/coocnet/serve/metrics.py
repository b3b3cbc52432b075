"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_NUMBERS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "coocnet_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "coocnet_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_work = Gauge("coocnet_requests_in_work", "Requests in work or waiting.", registry=self.registry)
        self.refused = Counter("coocnet_refused", "Requests refused at the door.", ["reason"], registry=self.registry)
        self.batch = Histogram(
            "coocnet_queries_per_pass",
            "Queries answered by one pass over the rows.",
            buckets=_NUMBERS,
            registry=self.registry,
        )
        self.pictures = Gauge("coocnet_pictures", "Pictures in the index.", registry=self.registry)
        self.upload_bytes = Gauge("coocnet_upload_bytes", "Memory of pictures sent.", registry=self.registry)
        self.job_running = Gauge("coocnet_sync_running", "Whether a sync is in work.", registry=self.registry)
