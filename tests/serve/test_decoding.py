import asyncio
import gc
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serein.frames.audio import Decoded, decode
from serein.serve import decoder as child_side
from serein.serve import decoding
from serein.serve.decoding import Decoder, DecoderFailed, Decoders
from serein.serve.limits import Limits
from serein.serve.refusals import Refusal

LIMITS = Limits(decoders=1, audio_seconds=60.0)


@pytest.fixture
def decoder():
    with closing(Decoder(LIMITS)) as child:
        yield child


HANGS = """
import time
from serein.serve import decoder
def decode(body, decode=decoder.decode, **how):
    while body == b"hang":
        time.sleep(3600)
    return decode(body, **how)
decoder.decode = decode
decoder.main()
"""


@pytest.fixture
def replaced() -> list[None]:
    return []


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found.update(map(int, (task / "children").read_text().split()))
    return found


def refused(child: Decoder, body: bytes) -> str:
    with pytest.raises(Refusal) as refusal:
        child.decode(bytearray(body))
    return refusal.value.code


async def attempts(pool: Decoders, *bodies: bytes) -> list:
    return await asyncio.gather(*(pool.decode(bytearray(body)) for body in bodies), return_exceptions=True)


def outcomes(pool: Decoders, *bodies: bytes) -> list[str]:
    results = asyncio.run(attempts(pool, *bodies))
    return ["heard" if isinstance(result, Decoded) else getattr(result, "code", repr(result)) for result in results]


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


def test_what_was_cancelled_while_it_waited_is_not_kept(sound, monkeypatch):
    class Body(bytearray):  # can be watched
        pass

    async def cancelled(pool: Decoders) -> None:
        body = Body(sound())
        watched = weakref.ref(body)
        running, queued = (
            asyncio.ensure_future(pool.decode(bytearray(sound()))),
            asyncio.ensure_future(pool.decode(body)),
        )
        await asyncio.sleep(0)
        queued.cancel()
        with suppress(asyncio.CancelledError):
            await queued
        del body, queued
        gc.collect()
        kept = watched() is not None
        go.set()
        assert (await running).seconds == 0.5
        assert not kept

    go, real = threading.Event(), Decoder.decode
    monkeypatch.setattr(Decoder, "decode", lambda child, body: go.wait() and real(child, body))
    with closing(Decoders(LIMITS, lambda: None)) as pool:
        asyncio.run(cancelled(pool))


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


def test_the_process_can_start_no_other_unless_it_is_roots():
    code = """
import os
from serein.serve import decoder
def attempt(requests, answers, *_):
    if os.geteuid() == 0:
        os.setuid(65534)  # nobody
    try:
        os.fork() or os._exit(0)
    except BlockingIOError:
        decoder.answer(answers, {"forked": False})
decoder.serve = attempt
decoder.main()
"""
    done = subprocess.run([sys.executable, "-c", code, "60", "11", str(2**30)], capture_output=True, check=True)
    assert done.stdout.endswith(b'{"forked": false}')


def test_the_process_knows_no_secrets_of_the_server(sound, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with closing(Decoder(LIMITS)) as child:
        child.decode(bytearray(sound()))
        known = Path(f"/proc/{child._process.pid}/environ").read_text().rstrip("\0").split("\0")
    passed_on = {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH"} & os.environ.keys()
    assert {name.partition("=")[0] for name in known} == passed_on | {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}


def test_what_takes_too_long_is_killed_with_its_process(sound, monkeypatch):
    instead_of_the_child(monkeypatch, HANGS)
    with closing(Decoder(LIMITS)) as child:
        assert child.decode(bytearray(sound())).seconds == 0.5
        child._limits = replace(LIMITS, decode_seconds=0.1)
        assert refused(child, b"hang") == "too_slow"
        assert child.worn


def test_a_process_that_does_not_start_is_ended_and_its_last_words_heard(monkeypatch, capfd):
    instead_of_the_child(monkeypatch, "raise SystemExit('libsndfile is missing')")
    with closing(Decoder(LIMITS)) as child:
        with pytest.raises(DecoderFailed, match=r"did not start \(it ended with 1\): .* stderr says why"):
            child.decode(bytearray(b"RIFF"))
        assert child.worn
    assert "libsndfile is missing" in capfd.readouterr().err


def test_a_process_that_never_says_that_it_is_there_is_killed(monkeypatch):
    monkeypatch.setattr(decoding, "START_SECONDS", 0.2)
    instead_of_the_child(monkeypatch, "import time; time.sleep(3600)")
    with closing(Decoder(LIMITS)) as child:
        with pytest.raises(DecoderFailed, match="ended with -9"):
            child.decode(bytearray(b"RIFF"))
        assert child.worn


def test_after_its_start_the_process_can_print_nothing(decoder, sound):
    decoder.decode(bytearray(sound()))
    open_files = {path.name for path in Path(f"/proc/{decoder._process.pid}/fd").iterdir()}
    assert {"0", "1"} <= open_files
    assert "2" not in open_files


def test_processor_time_is_bounded_anew_for_each_recording(sound):
    slow = sound(500.0, 48_000, kind="FLAC")  # half a second of work
    with closing(Decoder(Limits(decode_seconds=60.0))) as child:
        limits = Path(f"/proc/{child._process.pid}/limits")
        bounds = []
        for _ in range(4):
            child.decode(bytearray(slow))
            (line,) = (line for line in limits.read_text().splitlines() if line.startswith("Max cpu time"))
            bounds.append(int(line.split()[3]))
    assert 61 < bounds[0] < bounds[-1] < 120


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
        b'\x23\0\0\0{"error": "TooShort", "message": 7}',
        b"\x60\xea\0\0" + b"[" * 60_000,
    ],
)
def test_a_process_that_was_taken_over_is_not_believed(monkeypatch, answer):
    said = b"\x02\0\0\0{}" + answer
    code = f"import sys; sys.stdout.buffer.write({said!r}); sys.stdout.flush(); sys.stdin.buffer.read(12)"
    instead_of_the_child(monkeypatch, code)
    with closing(Decoder(Limits(decode_seconds=60.0))) as child:
        assert refused(child, b"RIFF") == "corrupt_audio"
        assert child.worn


def test_a_pool_replaces_what_was_killed_and_leaves_nothing(sound, replaced, monkeypatch):
    instead_of_the_child(monkeypatch, HANGS)
    before = children()
    with closing(Decoders(Limits(decoders=2, decode_seconds=2.0), lambda: replaced.append(None))) as pool:
        assert len(children() - before) == 2
        assert outcomes(pool, sound(), b"hang", b"hang", sound()) == ["heard", "too_slow", "too_slow", "heard"]
        assert outcomes(pool, sound(), sound()) == ["heard", "heard"]
        assert len(replaced) == 2
        assert len(children() - before) == 2
    assert children() == before


def test_a_pool_is_warm_when_each_of_its_processes_has_decoded():
    with closing(Decoders(Limits(decoders=3), lambda: None)) as pool:
        asyncio.run(pool.warm_up())
        decoders = [pool._idle.get() for _ in range(3)]
        assert [decoder._left for decoder in decoders] == [decoding.LIFE - 1] * 3
        for decoder in decoders:
            pool._idle.put(decoder)


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("raise SystemExit(3)", "ended with 3"),
        (HANGS.replace('body == b"hang"', "True"), r"has not decoded a second of silence in 0\.2 s"),
    ],
)
def test_a_pool_of_which_a_process_fails_does_not_come_up(monkeypatch, child, said):
    instead_of_the_child(monkeypatch, child)
    before = children()
    limits = Limits(decoders=3, decode_seconds=0.2)
    with closing(Decoders(limits, lambda: None)) as pool, pytest.raises(DecoderFailed, match=said):
        asyncio.run(pool.warm_up())
    assert children() == before


def test_a_pool_whose_second_process_cannot_be_started_leaves_none(monkeypatch):
    before, popen, started = children(), subprocess.Popen, []

    def once(*command, **how):
        if started:
            raise BlockingIOError("no processes")
        started.append(popen(*command, **how))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", once)
    with pytest.raises(DecoderFailed, match="no processes"):
        Decoders(Limits(decoders=2), lambda: None)
    assert len(started) == 1
    assert children() == before


def test_a_process_that_cannot_be_replaced_now_can_be_later(sound, replaced, monkeypatch):
    before = children()
    with closing(Decoders(LIMITS, lambda: replaced.append(None))) as pool:
        outcomes(pool, sound())
        idle = pool._idle.get()
        idle._process.kill()
        idle._process.wait()
        pool._idle.put(idle)
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", lambda *_, **__: (_ for _ in ()).throw(BlockingIOError("no processes")))
            (error,) = asyncio.run(attempts(pool, b"RIFF"))
            assert isinstance(error, DecoderFailed)
            assert str(error) == "no process that decodes can be started: no processes"
        assert outcomes(pool, sound(), sound()) == ["heard", "heard"]
        assert len(replaced) == 1
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
        for expected in (0, 0, 1, 1, 2):
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
    limits, closed = {}, []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, most: limits.update({kind: most[0]}))
    monkeypatch.setattr(os, "close", closed.append)
    body = sound()
    (tmp_path / "in").write_bytes(struct.pack("<Q", len(body)) + body)
    monkeypatch.setattr(sys, "argv", ["decoder", "60.0", "10.0", "1000000"])
    with (tmp_path / "in").open() as requests, (tmp_path / "out").open("w") as answers:
        monkeypatch.setattr(sys, "stdin", requests)
        monkeypatch.setattr(sys, "stdout", answers)
        child_side.main()
    assert (tmp_path / "out").read_bytes().startswith(b'\x0f\0\0\0{"ready": true}')
    assert limits[resource.RLIMIT_AS] == 1_000_000
    assert closed == [2]
    assert [limits[getattr(resource, f"RLIMIT_{name}")] for name in ("CORE", "FSIZE", "NOFILE", "NPROC")] == [0] * 4
