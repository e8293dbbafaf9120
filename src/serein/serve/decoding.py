"""Decoding of untrusted bytes in processes that may crash, hang or fill their memory: they are killed and replaced."""

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import numpy as np
import soundfile

from serein.errors import SereinError
from serein.frames.audio import SAMPLE_RATE, Decoded
from serein.serve.decoder import BODY, HEADER
from serein.serve.limits import Limits
from serein.serve.refusals import Refusal

START_SECONDS = 60.0  # for a process to come up on a busy machine; that is not the sender's fault
LIFE = 500  # recordings; then a fresh process, whatever libsndfile may have leaked
BASE_MEMORY = 2**29  # bytes of address space for Python, numpy and libsndfile
LARGEST_HEADER = 65_536  # bytes
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each thread would reserve address space
INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")  # what it takes to start; the rest may hold tokens
# What a broken process leaves in its pipe is as untrusted as what broke it.
BROKEN = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
CODES = {
    "UnsupportedAudio": "unsupported_audio",
    "CorruptAudio": "corrupt_audio",
    "TooShort": "too_short",
    "NonFiniteAudio": "non_finite_audio",
    "AudioError": "too_long",
    "MemoryError": "too_large",
}


class DecoderFailed(SereinError):
    """A process that decodes did not start, or cannot decode."""


class Decoder:
    """One child process; for one thread at a time.

    Raises:
        DecoderFailed: the system starts no process.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = LIFE
        self._ready = False
        # The file and a mended copy, the samples in pieces, in one, and once more where the first reading was mended.
        memory = BASE_MEMORY + 4 * limits.body_bytes + int(4 * limits.audio_seconds * SAMPLE_RATE * 4)
        settings = map(str, (limits.audio_seconds, limits.decode_seconds + 1, memory))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "serein.serve.decoder", *settings],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={name: os.environ[name] for name in INHERITED if name in os.environ} | ONE_THREAD,
                start_new_session=True,  # Ctrl-C is for the server
            )
        except OSError as error:
            raise DecoderFailed(f"no process that decodes can be started: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    @property
    def worn(self) -> bool:
        """Dead, or has decoded enough."""
        return self._left <= 0 or self._process.poll() is not None

    def decode(self, body: bytearray) -> Decoded:
        """Decode the bytes of one file.

        Raises:
            Refusal: they cannot be decoded, not within the limits, or not without breaking the process.
            DecoderFailed: the process did not start.
        """
        if not self._ready:
            self._await_start()
        self._left -= 1
        deadline = _Deadline(self._limits.decode_seconds, self._process.kill)
        try:
            with deadline:
                return self._exchange(body)
        except BROKEN as error:
            self._end()
            raise Refusal("too_slow" if deadline.passed else "corrupt_audio") from error

    def close(self) -> None:
        """Leave nothing of the process."""
        self._end()
        self._stdout.close()
        with suppress(BrokenPipeError):  # nobody reads what was still to be written
            self._stdin.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _await_start(self) -> None:
        try:
            with _Deadline(START_SECONDS, self._process.kill):
                self._header()
        except BROKEN as error:
            self._end()
            raise DecoderFailed(
                f"a decoding process did not start (it ended with {self._process.returncode}): what it wrote to stderr "
                "says why; `python -m serein.serve.decoder 600 11 1000000000` starts one by hand"
            ) from error
        self._ready = True

    def _exchange(self, body: bytearray) -> Decoded:
        self._stdin.write(BODY.pack(len(body)))
        self._stdin.write(body)
        self._stdin.flush()
        facts = self._header()
        if "error" in facts:
            raise Refusal(CODES[facts["error"]], facts["message"].replace("these bytes", "this recording", 1))
        if not 0 < facts["samples"] <= (self._limits.audio_seconds + 1) * SAMPLE_RATE:
            raise ValueError("more samples than asked for")
        samples = np.empty(facts["samples"], dtype="<f4")
        if self._stdout.readinto(samples.data.cast("B")) != samples.nbytes:  # type: ignore[attr-defined]
            raise EOFError
        return Decoded(samples, tuple(facts["warnings"]), facts["rate"], facts["channels"])

    def _header(self) -> dict[str, Any]:
        (length,) = HEADER.unpack(self._read(HEADER.size))
        if length > LARGEST_HEADER:
            raise ValueError("a header longer than any")
        facts: dict[str, Any] = json.loads(self._read(length))
        return facts

    def _read(self, size: int) -> bytes:
        data = self._stdout.read(size)
        if len(data) < size:
            raise EOFError
        return data


class _Deadline:
    """Calls a function unless its block ends in time."""

    def __init__(self, seconds: float, function: Callable[[], None]) -> None:
        self._timer = threading.Timer(seconds, self._pass)
        self._function = function
        self.passed = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()  # else it could still strike the next recording

    def _pass(self) -> None:
        self.passed = True
        self._function()


class Decoders:
    """A few warm processes, each with a thread of ours that feeds it.

    Args:
        limits: how many, and what each may take.
        replaced: called when a process was killed, died, or has decoded enough.
    """

    def __init__(self, limits: Limits, replaced: Callable[[], None]) -> None:
        self._limits = limits
        self._replaced = replaced
        self._threads = ThreadPoolExecutor(limits.decoders, thread_name_prefix="decode")
        self._idle: SimpleQueue[Decoder] = SimpleQueue()
        try:
            for _ in range(limits.decoders):
                self._idle.put(Decoder(limits))
        except DecoderFailed:
            self.close()
            raise

    async def warm_up(self) -> None:
        """Hear that every process decodes.

        Raises:
            DecoderFailed: one does not start, or cannot decode a second of silence.
        """
        second = io.BytesIO()
        soundfile.write(second, np.zeros(SAMPLE_RATE), SAMPLE_RATE, format="WAV")
        try:  # as many at once as there are processes: each takes the next one of the queue
            await asyncio.gather(*(self.decode(bytearray(second.getvalue())) for _ in range(self._limits.decoders)))
        except Refusal as refusal:
            seconds = f"{self._limits.decode_seconds:g} s"
            raise DecoderFailed(f"a decoding process has not decoded a second of silence in {seconds}") from refusal

    async def decode(self, body: bytearray) -> Decoded:
        """Decode the bytes of one file when a process is free; raises as :meth:`Decoder.decode`.

        Cancelled before, it decodes nothing; cancelled while decoding, it is decoded for nobody.
        """
        waiting = [body]
        del body
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, waiting)
        finally:
            waiting.clear()  # the threads' queue keeps what was cancelled, this frame too, until it comes to it

    def close(self) -> None:
        """Finish what runs, then end all processes."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()

    def _decode(self, waiting: list[bytearray]) -> Decoded:
        body = waiting.pop()
        decoder = self._idle.get()
        try:
            if decoder.worn:
                decoder.close()
                decoder = Decoder(self._limits)
                self._replaced()
            return decoder.decode(body)
        finally:  # even where no process could be started: whoever is next tries again
            self._idle.put(decoder)
