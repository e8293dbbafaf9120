"""Decoding of untrusted bytes in processes that may crash, hang or fill their memory: they are killed and replaced."""

import asyncio
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

from serein.frames.audio import SAMPLE_RATE, Decoded
from serein.serve.decoder import BODY, HEADER
from serein.serve.limits import Limits
from serein.serve.refusals import Refusal

START_SECONDS = 60.0  # for a process to come up on a busy machine; that is not the sender's fault
LIFE = 500  # recordings; then a fresh process, whatever libsndfile may have leaked
BASE_MEMORY = 2**29  # bytes of address space for Python, numpy and libsndfile
LARGEST_HEADER = 65_536  # bytes
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each thread would reserve address space
CODES = {
    "UnsupportedAudio": "unsupported_audio",
    "CorruptAudio": "corrupt_audio",
    "TooShort": "too_short",
    "NonFiniteAudio": "non_finite_audio",
    "AudioError": "too_long",
    "MemoryError": "too_large",
}


class Decoder:
    """One child process; for one thread at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = LIFE
        self._ready = False
        # The file and a mended copy, the samples in pieces, in one, and once more where the first reading was mended.
        memory = BASE_MEMORY + 4 * limits.body_bytes + int(4 * limits.audio_seconds * SAMPLE_RATE * 4)
        settings = map(str, (limits.audio_seconds, limits.decode_seconds + 1, memory))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "serein.serve.decoder", *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libmpg123 prints what it finds in a file
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,  # Ctrl-C is for the server
        )
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
        """
        if not self._ready:
            with _Deadline(START_SECONDS, self._process.kill):
                self._header()
            self._ready = True
        self._left -= 1
        deadline = _Deadline(self._limits.decode_seconds, self._process.kill)
        try:
            with deadline:
                return self._exchange(body)
        # What a broken process leaves in its pipe is as untrusted as what broke it.
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            self._process.kill()
            self._process.wait()
            raise Refusal("too_slow" if deadline.passed else "corrupt_audio") from error

    def close(self) -> None:
        """Leave nothing of the process."""
        self._process.kill()
        self._process.wait()
        self._stdout.close()
        with suppress(BrokenPipeError):  # nobody reads what was still to be written
            self._stdin.close()

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
        for _ in range(limits.decoders):
            self._idle.put(Decoder(limits))

    async def decode(self, body: bytearray) -> Decoded:
        """Decode the bytes of one file when a process is free; raises as :meth:`Decoder.decode`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, body)

    def close(self) -> None:
        """Finish what runs, then end all processes."""
        self._threads.shutdown()
        while not self._idle.empty():
            self._idle.get().close()

    def _decode(self, body: bytearray) -> Decoded:
        decoder = self._fresh(self._idle.get())  # it may have died while nobody looked
        try:
            return decoder.decode(body)
        finally:
            self._idle.put(self._fresh(decoder))

    def _fresh(self, decoder: Decoder) -> Decoder:
        if not decoder.worn:
            return decoder
        decoder.close()
        self._replaced()
        return Decoder(self._limits)
