import asyncio
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from serein.frames.audio import decode
from serein.serve import decoder as child_side
from serein.serve import decoding
from serein.serve.decoding import Decoder, Decoders
from serein.serve.limits import Limits
from serein.serve.refusals import Refusal

LIMITS = Limits(decoders=1, audio_seconds=60.0)


@pytest.fixture
def decoder():
    with closing(Decoder(LIMITS)) as child:
        yield child


@pytest.fixture(scope="module")
def slow(sound) -> bytes:
    return sound(500.0, 48_000, kind="FLAC")  # half a second of work


@pytest.fixture
def replaced() -> list[None]:
    return []


def children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def refused(child: Decoder, body: bytes) -> str:
    with pytest.raises(Refusal) as refusal:
        child.decode(bytearray(body))
    return refusal.value.code


def outcomes(pool: Decoders, *bodies: bytes) -> list[str]:
    async def work() -> list:
        return await asyncio.gather(*(pool.decode(bytearray(body)) for body in bodies), return_exceptions=True)

    return [getattr(result, "code", "heard") for result in asyncio.run(work())]


def instead_of_the_child(monkeypatch, code: str) -> None:
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **o: popen([command[0], "-c", code, *command[4:]], **o))


def test_it_decodes_as_the_library_does(decoder, sound):
    for body in (sound(1.0, 44_100, 2), sound(0.7, 48_000, kind="FLAC"), sound(2.0, kind="MP3")):
        found, expected = decoder.decode(bytearray(body)), decode(body)
        assert np.array_equal(found.samples, expected.samples)
        assert (found.original_rate, found.channels) == (expected.original_rate, expected.channels)
        assert found.warnings == expected.warnings


def test_one_process_outlives_what_it_refuses(decoder, sound):
    before = children()
    assert refused(decoder, b"") == "unsupported_audio"
    assert refused(decoder, sound(61.0)) == "too_long"
    assert decoder.decode(bytearray(sound())).seconds == 0.5
    assert children() == before


def test_the_process_has_no_torch_and_can_open_and_start_nothing():
    code = """
import os, sys
from serein.serve import decoder
def attempt(requests, answers, *_):
    faults = []
    for forbidden in (lambda: open("/etc/passwd"), lambda: bytearray(2**31), os.pipe):
        try:
            forbidden()
        except (OSError, MemoryError) as error:
            faults.append(type(error).__name__)
    decoder.answer(answers, {"faults": faults, "torch": "torch" in sys.modules})
decoder.serve = attempt
decoder.main()
"""
    done = subprocess.run([sys.executable, "-c", code, "60", "11", str(2**30)], capture_output=True, check=True)
    assert done.stdout.endswith(b'{"faults": ["OSError", "MemoryError", "OSError"], "torch": false}')


def test_what_takes_too_long_is_killed_with_its_process(slow):
    with closing(Decoder(Limits(decode_seconds=0.02))) as child:
        assert refused(child, slow) == "too_slow"
        assert child.worn


def test_processor_time_is_bounded_anew_for_each_recording(slow):
    with closing(Decoder(Limits(decode_seconds=4.0))) as child:
        limits = Path(f"/proc/{child._process.pid}/limits")
        bounds = []
        for _ in range(4):
            child.decode(bytearray(slow))
            (line,) = (line for line in limits.read_text().splitlines() if line.startswith("Max cpu time"))
            bounds.append(int(line.split()[3]))
    assert 5 < bounds[0] < bounds[-1] < 20


def test_what_needs_more_memory_than_there_is_is_refused_and_the_next_one_heard(sound, monkeypatch):
    code = """
from pathlib import Path
from serein.serve import decoder
def close_in(_, close_in=decoder.close_in):
    close_in(int(Path("/proc/self/statm").read_text().split()[0]) * 4096 + 60_000_000)
decoder.close_in = close_in
decoder.main()
"""
    instead_of_the_child(monkeypatch, code)
    with closing(Decoder(Limits())) as child:
        assert refused(child, sound(599.0)) == "too_large"
        assert child.decode(bytearray(sound())).seconds == 0.5


def test_a_process_that_dies_is_no_answer_but_a_refusal(decoder, sound):
    decoder.decode(bytearray(sound()))
    os.kill(decoder._process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(refused, decoder, sound())
        os.kill(decoder._process.pid, signal.SIGKILL)
        assert answer.result() == "corrupt_audio"
    assert decoder.worn


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x05\0\0\0{}",
        b"\xff\xff\xff\xff",
        b"\x03\0\0\0[1]",
        b"\x02\0\0\0{}",
        b'\x10\0\0\0{"error": "Odd"}',
        b'\x1b\0\0\0{"samples": 99999999999999}',
        b'\x0e\0\0\0{"samples": 8}\0\0\0\0',
        b'\x10\0\0\0{"samples": "8"}',
        b"\x03\0\0\0\xff\xfe{",
    ],
)
def test_a_process_that_was_taken_over_is_not_believed(monkeypatch, answer):
    said = b"\x02\0\0\0{}" + answer
    code = f"import sys; sys.stdout.buffer.write({said!r}); sys.stdout.flush(); sys.stdin.buffer.read(12)"
    instead_of_the_child(monkeypatch, code)
    with closing(Decoder(Limits(decode_seconds=5.0))) as child:
        assert refused(child, b"RIFF") == "corrupt_audio"
        assert child.worn


def test_a_pool_replaces_what_was_killed_and_leaves_nothing(sound, slow, replaced):
    before = children()
    with closing(Decoders(Limits(decoders=2, decode_seconds=0.2), lambda: replaced.append(None))) as pool:
        assert len(children() - before) == 2
        assert outcomes(pool, *[sound(), slow] * 3) == ["heard", "too_slow"] * 3
        assert len(replaced) == 3
        assert len(children() - before) == 2
    assert children() == before


def test_a_process_found_dead_is_replaced_before_it_is_asked(sound, replaced):
    with closing(Decoders(LIMITS, lambda: replaced.append(None))) as pool:
        idle = pool._idle.get()
        os.kill(idle._process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, idle._process.pid, os.WEXITED | os.WNOWAIT)
        pool._idle.put(idle)
        assert outcomes(pool, sound()) == ["heard"]
        assert len(replaced) == 1


def test_a_process_is_replaced_after_its_share_of_work(sound, replaced, monkeypatch):
    monkeypatch.setattr(decoding, "LIFE", 2)
    with closing(Decoders(LIMITS, lambda: replaced.append(None))) as pool:
        for expected in (0, 1, 1, 2):
            assert outcomes(pool, sound()) == ["heard"]
            assert len(replaced) == expected


def test_a_process_ends_when_its_server_is_killed():
    code = """
import time
from serein.serve.decoding import Decoder
from serein.serve.limits import Limits
child = Decoder(Limits())
print(child._process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        status = Path(f"/proc/{int(parent.stdout.readline())}/status")
        assert status.exists()
        parent.kill()
    deadline = time.monotonic() + 20
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_answers_follow_each_other_as_their_headers_say(sound, monkeypatch, tmp_path):
    limits = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, most: limits.append((kind, most[0])))
    bodies = [sound(1.0), b"", sound(2.0)]
    (tmp_path / "in").write_bytes(b"".join(struct.pack("<Q", len(body)) + body for body in bodies))
    with (tmp_path / "in").open("rb") as requests, (tmp_path / "out").open("wb") as answers:
        child_side.serve(requests, answers, 60.0, 10.0)
    with (tmp_path / "out").open("rb") as answers:
        for seconds in (1, 0, 2):
            facts = json.loads(answers.read(*struct.unpack("<I", answers.read(4))))
            if seconds:
                assert facts == {"samples": seconds * 16_000, "warnings": [], "rate": 16_000, "channels": 1}
                assert np.abs(np.frombuffer(answers.read(seconds * 64_000), dtype="<f4")).max() < 0.31
            else:
                assert facts == {"error": "UnsupportedAudio", "message": "these bytes: is empty"}
        assert answers.read() == b""
    assert [kind for kind, _ in limits] == [resource.RLIMIT_CPU] * 3


def test_the_process_closes_itself_in_before_it_hears_anything(sound, monkeypatch, tmp_path):
    limits = {}
    monkeypatch.setattr(resource, "setrlimit", lambda kind, most: limits.update({kind: most[0]}))
    body = sound()
    (tmp_path / "in").write_bytes(struct.pack("<Q", len(body)) + body)
    monkeypatch.setattr(sys, "argv", ["decoder", "60.0", "10.0", "1000000"])
    with (tmp_path / "in").open() as requests, (tmp_path / "out").open("w") as answers:
        monkeypatch.setattr(sys, "stdin", requests)
        monkeypatch.setattr(sys, "stdout", answers)
        child_side.main()
    assert (tmp_path / "out").read_bytes().startswith(b'\x0f\0\0\0{"ready": true}')
    assert limits[resource.RLIMIT_AS] == 1_000_000
    assert [limits[getattr(resource, f"RLIMIT_{name}")] for name in ("CORE", "FSIZE", "NOFILE", "NPROC")] == [0] * 4
