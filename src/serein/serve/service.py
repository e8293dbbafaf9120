"""What stands behind the routes: places, processes that decode, the thread that judges."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
from jaxtyping import Float32
from starlette.requests import Request

from serein.errors import AudioError
from serein.frames.audio import SAMPLE_RATE, Decoded
from serein.recognizer import EmotionRecognizer
from serein.serve.batching import Batcher
from serein.serve.bodies import receive
from serein.serve.decoding import Decoders
from serein.serve.limits import Admission, Limits
from serein.serve.metrics import Metrics
from serein.serve.refusals import Refusal
from serein.streaming import EmotionStream
from serein.timeline import Timeline, quieter_than

T = TypeVar("T")


class Service:
    """One recognizer at work for many; its methods belong to the event loop's thread.

    Args:
        recognizer: the model.
        limits: how much is taken from anybody.
    """

    def __init__(self, recognizer: EmotionRecognizer, limits: Limits) -> None:
        self.recognizer = recognizer
        self.limits = limits
        self.requests = Admission(limits.queue)
        self.streams = Admission(limits.streams)
        self.metrics = Metrics(waiting=lambda: self._batcher.waiting, busy=lambda: self.requests.taken)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start what it needs; at the end finish what runs, and leave no thread and no process."""
        # Their threads only wait, for the one that judges: a place for each that may be let in.
        self._threads = ThreadPoolExecutor(self.limits.queue + self.limits.streams, thread_name_prefix="timeline")
        self._batcher = Batcher(self._judge, self.recognizer.cost, self.metrics.batch)
        self._decoders = Decoders(self.limits, self.metrics.decoder_restarts.inc)
        try:
            await self.probabilities(np.zeros(SAMPLE_RATE, dtype=np.float32))  # the first time is the slowest
            yield
        finally:
            self._threads.shutdown()
            self._batcher.close()
            self._decoders.close()

    @property
    def draining(self) -> bool:
        """Nobody is let in any more."""
        return self.requests.draining

    def drain(self) -> None:
        """Refuse new work from now on."""
        self.requests.draining = self.streams.draining = True

    @asynccontextmanager
    async def recording(self, request: Request) -> AsyncIterator[Decoded]:
        """The recording that a request carries, and a place to work on it.

        Raises:
            Refusal: the request asks for too much, or carries no recording.
        """
        with self.requests.place():
            heard = await self._decoders.decode(await receive(request, self.limits))
            try:
                yield heard
            except AudioError as error:  # decoded well, but beyond what the encoder can take
                raise Refusal("corrupt_audio", str(error)) from error

    async def probabilities(self, samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " classes"]:
        """Probabilities of one recording, judged together with whatever else waits."""
        (row,) = await asyncio.wrap_future(self._batcher.submit([samples]))
        return np.asarray(row)

    async def timeline(self, samples: Float32[np.ndarray, " samples"], window: float, hop: float) -> Timeline:
        """The recognizer's timeline; its windows take turns with everybody else's."""
        return await self.aside(lambda: self.stream(window, hop, SAMPLE_RATE).follow([samples]))

    def stream(self, window: float, hop: float, rate: int) -> EmotionStream:
        """A stream that waits for its scores when fed, as it should be :meth:`aside`."""
        labels = self.recognizer.labels
        return EmotionStream(self._in_turn, labels, window, hop, rate=rate, silent=quieter_than(-50.0))

    async def aside(self, function: Callable[[], T]) -> T:
        """Call what waits for scores in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _judge(self, recordings: list[Float32[np.ndarray, " _"]]) -> Float32[np.ndarray, "recordings classes"]:
        probabilities: np.ndarray = self.recognizer.probabilities_of(recordings, numbered=False).numpy()
        return probabilities

    def _in_turn(self, pieces: list[Float32[np.ndarray, " _"]]) -> list[list[float]]:
        rows: list[list[float]] = self._batcher.submit(pieces).result().tolist()
        return rows
