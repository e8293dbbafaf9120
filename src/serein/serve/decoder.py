"""The process that decodes what strangers send; `serein.serve.decoding` starts it, feeds it and kills it.

It reads one recording after the other from stdin, eight bytes of length and then the file, and writes to stdout four
bytes of length, a JSON header, and the samples as float32. Before the first it closes itself in: it can open no file,
write none, start no process (but root's can: run the server as a user of its own), and has a bounded memory and
processor time. No torch in here: it starts in a third of a second.
"""

import json
import math
import os
import resource
import struct
import sys
import time
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from serein.errors import AudioError
from serein.frames.audio import SAMPLE_RATE, decode

BODY = struct.Struct("<Q")
HEADER = struct.Struct("<I")


def close_in(memory: int) -> None:
    """Give up, for good, what decoding does not need; ``memory`` is in bytes of address space."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),  # a dump would hold somebody's voice
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (most, most))


def answer(file: BinaryIO, header: dict[str, Any], samples: bytes | memoryview = b"") -> None:
    """Write one header and what belongs to it."""
    text = json.dumps(header).encode()
    file.write(HEADER.pack(len(text)) + text)
    file.write(samples)
    file.flush()


def serve(requests: BinaryIO, answers: BinaryIO, audio_seconds: float, cpu_seconds: float) -> None:
    """Decode until the requests end."""
    while len(length := requests.read(BODY.size)) == BODY.size:
        most = math.ceil(time.process_time() + cpu_seconds)  # the limit counts from the start of the process
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
        try:
            heard = decode(requests.read(*BODY.unpack(length)), max_seconds=audio_seconds)
        except (AudioError, MemoryError) as error:
            answer(answers, {"error": type(error).__name__, "message": str(error)})
        else:
            facts = {"samples": len(heard.samples), "warnings": heard.warnings}
            facts |= {"rate": heard.original_rate, "channels": heard.channels}
            answer(answers, facts, np.ascontiguousarray(heard.samples, dtype="<f4").data)


def main() -> None:
    """``python -m serein.serve.decoder AUDIO_SECONDS CPU_SECONDS MEMORY_BYTES``."""
    audio_seconds, cpu_seconds, memory = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    soxr.resample(np.zeros(SAMPLE_RATE, np.float32), 48_000, SAMPLE_RATE)  # whatever loads on first use, loads now
    soundfile.available_formats()
    close_in(memory)
    os.close(2)  # libmpg123 prints what it finds in a file; until here errors go where the server's go
    answer(sys.stdout.buffer, {"ready": True})
    serve(sys.stdin.buffer, sys.stdout.buffer, audio_seconds, cpu_seconds)


if __name__ == "__main__":
    main()
