"""What stands behind the routes: places, processes that decode, the thread that judges."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Float64
from starlette.requests import Request
from torch import Tensor

from serein.errors import AudioError
from serein.frames.audio import SAMPLE_RATE, Decoded
from serein.recognizer import EmotionRecognizer
from serein.serve.batching import Batcher, Caller
from serein.serve.bodies import receive
from serein.serve.decoding import Decoders
from serein.serve.leaving import while_there
from serein.serve.limits import Admission, Limits
from serein.serve.metrics import Metrics
from serein.serve.refusals import Refusal
from serein.streaming import EmotionStream
from serein.timeline import QUIET, Timeline

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
        self._caller = threading.local()  # whose windows this thread asks for

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start what it needs; at the end leave no thread and no process: nobody waits for an answer by then."""
        with (
            # These threads mostly wait, for the one that judges: a place for each that may be let in.
            ThreadPoolExecutor(self.limits.queue + self.limits.streams, thread_name_prefix="aside") as self._threads,
            closing(Decoders(self.limits, self.metrics.decoder_restarts.inc)) as self._decoders,
            closing(Batcher(self._judge, self._cost, self.metrics.batch)) as self._batcher,
        ):
            await self._decoders.warm_up()
            await self.predict(np.zeros(SAMPLE_RATE, dtype=np.float32))  # the first time is the slowest
            yield

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
            ClientDisconnect: the client left before it was decoded.
        """
        with self.requests.place():
            heard = await while_there(request, self._decoders.decode(await receive(request, self.limits)))
            try:
                yield heard
            except AudioError as error:  # decoded well, but beyond what the encoder can take
                raise Refusal("corrupt_audio", str(error)) from error

    async def predict(self, samples: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " classes"]:
        """Probabilities of one recording; its windows are judged together with whatever else waits, in turns."""
        (row,) = await self.aside(lambda: self._in_turn([samples]))
        return np.array(row, dtype=np.float32)

    async def timeline(self, samples: Float32[np.ndarray, " samples"], window: float, hop: float) -> Timeline:
        """The recognizer's timeline; its windows take turns with everybody else's."""
        return await self.aside(lambda: self.stream(window, hop, SAMPLE_RATE).follow([samples]))

    def stream(self, window: float, hop: float, rate: int) -> EmotionStream:
        """A stream that waits for its scores when fed, as it should be :meth:`aside`."""
        labels = self.recognizer.labels
        return EmotionStream(self._in_turn, labels, window, hop, rate=rate, silent=QUIET)

    async def aside(self, function: Callable[[], T]) -> T:
        """Call what waits for scores, or takes long, in a thread of its own; cancelled, it waits for no more scores."""
        caller = Caller(self._batcher)

        def call() -> T:
            self._caller.here = caller
            return function()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        finally:
            caller.leave()

    def _in_turn(self, recordings: list[Float32[np.ndarray, " _"]]) -> list[list[float]]:
        def judge(windows: list[Float32[np.ndarray, " _"]]) -> Float64[Tensor, "windows classes"]:
            return torch.from_numpy(self._caller.here.ask(windows))

        rows: list[list[float]] = self.recognizer.probabilities_of(recordings, judge=judge).tolist()
        return rows

    def _judge(self, windows: list[Float32[np.ndarray, " _"]]) -> Float64[np.ndarray, "windows classes"]:
        logs: np.ndarray = self.recognizer.judge(windows).numpy()
        return logs

    def _cost(self, samples: int) -> int:
        return max(samples, self.recognizer.encoder.padded_to)
