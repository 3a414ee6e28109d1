"""What Prometheus may ask: how many jobs, how long they waited and ran, how much waits, and what the process takes."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


class Metrics:
    """The counters of one cluster; `queue` tells, when asked, how many jobs of each service are open."""

    def __init__(self, queue: Callable[[], Iterable[tuple[str, str, int]]]) -> None:
        self.registry = CollectorRegistry()
        self._ended = Counter(
            "dioscar_attempts", "Attempts that have ended", ["service", "state"], registry=self.registry
        )
        self._waited = Histogram(
            "dioscar_job_wait_seconds",
            "From a job's event to the start of its first attempt",
            ["service"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._ran = Histogram(
            "dioscar_run_seconds", "How long attempts ran", ["service"], buckets=BUCKETS_S, registry=self.registry
        )
        self._calls = Counter(
            "dioscar_calls", "Synchronous calls that were answered", ["service", "code"], registry=self.registry
        )
        self.registry.register(_Queue(queue))
        ProcessCollector(registry=self.registry)

    def waited(self, service: str, seconds: float) -> None:
        """A job's first attempt starts."""
        self._waited.labels(service).observe(seconds)

    def ended(self, service: str, state: str, seconds: float) -> None:
        """An attempt ended in `state`."""
        self._ended.labels(service, state).inc()
        self._ran.labels(service).observe(seconds)

    def called(self, service: str, code: int) -> None:
        """A synchronous call ended with the exit status `code`."""
        self._calls.labels(service, str(code)).inc()

    def forget(self, service: str) -> None:
        """A service is gone, and so are its series."""
        for metric in (self._ended, self._waited, self._ran, self._calls):
            metric.remove_by_labels({"service": service})

    def watch_webhooks(self, queued: Callable[[], Mapping[str, int]]) -> None:
        """Show, whenever asked, how many events wait for each webhook."""
        self.registry.register(_WebhookQueues(queued))

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Queue:
    """Open jobs by service and state, counted when asked for."""

    def __init__(self, queue: Callable[[], Iterable[tuple[str, str, int]]]) -> None:
        self._queue = queue

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("dioscar_open_jobs", "Jobs that wait or run", labels=["service", "state"])
        for service, state, count in self._queue():
            family.add_metric([service, state], count)
        yield family


class _WebhookQueues:
    """Events that wait for each webhook, counted when asked for."""

    def __init__(self, queued: Callable[[], Mapping[str, int]]) -> None:
        self._queued = queued

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("dioscar_webhook_events", "Events that wait for a webhook", labels=["target"])
        for target, count in self._queued().items():
            family.add_metric([target], count)
        yield family
