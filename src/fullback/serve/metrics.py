"""What is counted, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_IMAGES = (1, 2, 4, 8, 12, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server.

    Parameters
    ----------
    models : the names of the models; nothing that a client sends becomes a label
    """

    def __init__(self, models: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        requests = Counter(
            "fullback_requests",
            "Predictions that were asked for, by model and status of the answer",
            ["model", "status"],
            registry=self.registry,
        )
        images = Counter(
            "fullback_images", "Images that were predicted", ["model"], registry=self.registry
        )
        seconds = Histogram(
            "fullback_request_seconds",
            "From the head of a request to its answer",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        blocks = Histogram(
            "fullback_block_images",
            "Images that were computed together",
            buckets=_IMAGES,
            registry=self.registry,
        )
        known = tuple(models)
        self.block: Callable[[float], None] = blocks.observe
        self._images = {name: images.labels(name) for name in known}
        self._seconds = {name: seconds.labels(name) for name in known}
        self._done = {name: requests.labels(name, "200") for name in known}
        self._requests = requests

    def gauge(self, name: str, what: str, read: Callable[[], float]) -> None:
        """Add a number that is read when it is asked for."""
        Gauge(name, what, registry=self.registry).set_function(read)

    def done(self, model: str, images: int, seconds: float) -> None:
        """Count a request that was answered with predictions."""
        self._done[model].inc()
        self._images[model].inc(images)
        self._seconds[model].observe(seconds)

    def refused(self, model: str, status: int) -> None:
        """Count a request that was not; ``model`` is empty where there is no such model."""
        self._requests.labels(model, str(status)).inc()

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self.registry)
