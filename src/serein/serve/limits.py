"""How much the server takes from anybody."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serein.serve.refusals import Refusal

SHORTEST_WINDOW, LONGEST_WINDOW, SHORTEST_HOP = 0.5, 30.0, 0.1  # seconds, of timelines and streams
MOST_OVERLAP = 40.0  # how often each second is heard: window / hop
BOUNDS = {
    "shortest_window": SHORTEST_WINDOW,
    "longest_window": LONGEST_WINDOW,
    "shortest_hop": SHORTEST_HOP,
    "most_overlap": MOST_OVERLAP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server allows.

    Attributes:
        body_bytes: of a request's body.
        body_seconds: until all of a body must have arrived.
        audio_seconds: length of a recording, decoded.
        timeline_seconds: of audio judged for one timeline: the recording's, times window / hop.
        decode_seconds: wall time for decoding one recording.
        decoders: processes that decode.
        queue: requests with a recording at a time, those that wait included.
        streams: open at a time.
        stream_seconds: of audio in one stream; it ends `idle_seconds` after as long by the clock, too.
        idle_seconds: without a message, until a stream is closed.
        message_bytes: of one message in a stream.
    """

    body_bytes: int = 25_000_000
    body_seconds: float = 60.0
    audio_seconds: float = 600.0
    timeline_seconds: float = 6_000.0
    decode_seconds: float = 10.0
    decoders: int = 2
    queue: int = 32
    streams: int = 8
    stream_seconds: float = 3600.0
    idle_seconds: float = 30.0
    message_bytes: int = 1_048_576


class Admission:
    """Places for work of one kind; belongs to the event loop's thread.

    Attributes:
        taken: places in use.
        draining: nobody is let in any more.

    Example:
        >>> desk = Admission(1)
        >>> with desk.place(), desk.place():
        ...     pass
        Traceback (most recent call last):
        serein.serve.refusals.Refusal: as many requests as this server takes are waiting; try again
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self.taken = 0
        self.draining = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place, or be refused."""
        if self.draining:
            raise Refusal("draining")
        if self.taken >= self._places:
            raise Refusal("busy")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
