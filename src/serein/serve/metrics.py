"""What is counted, for Prometheus; nothing of what was said."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Counters of one server, in a registry of its own.

    Args:
        waiting: tells how many callers wait for the network.
        busy: tells how many requests with a recording are being answered.
    """

    def __init__(self, waiting: Callable[[], float], busy: Callable[[], float]) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("serein_requests", "Requests answered", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "serein_request_seconds", "From a request's header to the end of the answer", ["route"], registry=registry
        )
        self.audio = Counter("serein_audio_seconds", "Seconds of audio judged, windows each", registry=registry)
        self.batches = Histogram(
            "serein_batch_recordings",
            "Recordings or windows judged together",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self.decoder_restarts = Counter("serein_decoder_restarts", "Decoding processes replaced", registry=registry)
        self.streams = Gauge("serein_streams", "Open streams", registry=registry)
        Gauge("serein_queue", "Callers waiting for the network", registry=registry).set_function(waiting)
        Gauge("serein_busy", "Requests with a recording in work", registry=registry).set_function(busy)

    def batch(self, recordings: int, seconds: float) -> None:
        """Count one batch."""
        self.batches.observe(recordings)
        self.audio.inc(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)
