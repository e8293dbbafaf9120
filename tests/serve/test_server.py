import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from serein.serve import server as server_module

HEAD = "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n{more}\r\n"


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def head(more: str = "", path: str = "/v1/predict") -> bytes:
    return HEAD.format(path=path, more=more).encode()


def reply(line: socket.socket) -> tuple[int, dict[str, str], dict]:
    """Status, headers and body of an answer after which the connection may stay open."""
    with line.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = {}
        while (field := file.readline().strip()) != b"":
            name, _, value = field.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, json.loads(file.read(int(headers["content-length"])))


def at_rest(server) -> bool:
    return server._service.requests.taken == 0


def eventually(true) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_eight_clients_get_the_answers_of_one(live, recognizer, paths):
    _, port = live
    chosen = paths[::4]
    expected = {path: {score["label"]: score["score"] for score in recognizer(path)} for path in chosen}

    def ask(path: Path) -> dict:
        found = client.post("/v1/predict", content=path.read_bytes())
        return {score["label"]: score["score"] for score in found.json()["scores"]}

    with ThreadPoolExecutor(8) as threads, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for path, found in zip(chosen * 2, threads.map(ask, chosen * 2), strict=True):
            assert found == pytest.approx(expected[path], abs=1e-4)


def test_a_body_that_dawdles_is_not_waited_for(live):
    server, port = live
    with dial(port) as line:
        line.sendall(head("Content-Length: 1000\r\n") + b"RIFF")
        status, headers, body = reply(line)
        assert (status, body["error"]["code"], headers["connection"]) == (408, "slow_body", "close")
        assert line.recv(1) == b""
    assert at_rest(server)


def test_a_body_that_drips_is_not_waited_for_either(live):
    _, port = live
    started = time.monotonic()
    with dial(port) as line:
        line.sendall(head("Content-Length: 1000\r\n"))
        try:
            while time.monotonic() - started < 20:
                line.sendall(b"x")
                time.sleep(0.05)
        except OSError:  # it hung up
            pass
    assert time.monotonic() - started < 20


def test_ten_gigabytes_are_refused_before_they_come(live):
    _, port = live
    with dial(port) as line:
        line.sendall(head("Content-Length: 10000000000\r\nExpect: 100-continue\r\n"))
        status, headers, body = reply(line)
        assert (status, body["error"]["code"], headers["connection"]) == (413, "too_large", "close")
        assert line.recv(1) == b""


def test_who_sends_a_little_too_much_comes_to_see_the_answer(live):
    _, port = live
    with dial(port) as line:
        line.sendall(head("Content-Length: 7000000\r\n") + bytes(7_000_000))
        status, headers, body = reply(line)
        assert (status, body["error"]["code"]) == (413, "too_large")
        assert "connection" not in headers
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reply(line)[2] == {"status": "ok"}


def test_chunks_without_end_are_cut_off(live):
    server, port = live
    chunk = b"%x\r\n" % 100_000 + bytes(100_000) + b"\r\n"
    with dial(port) as line:
        line.sendall(head("Transfer-Encoding: chunked\r\n"))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            line.sendall(chunk * 1000)
    eventually(lambda: at_rest(server))


def test_who_closes_half_the_connection_after_asking_is_answered(live, sound):
    server, port = live
    body = sound()
    with dial(port) as line:
        line.sendall(head(f"Content-Length: {len(body)}\r\n") + body)
        line.shutdown(socket.SHUT_WR)
        status, _, found = reply(line)
        assert (status, found["seconds"]) == (200, 0.5)
        assert line.recv(1) == b""
    assert at_rest(server)


@pytest.mark.parametrize("goodbye", ["half", "whole", "reset"])
def test_who_leaves_in_the_middle_of_a_body_leaves_nothing(live, goodbye):
    server, port = live
    line = dial(port)
    line.sendall(head("Content-Length: 1000\r\n") + b"RIFF")
    eventually(lambda: not at_rest(server))
    if goodbye == "half":
        line.shutdown(socket.SHUT_WR)
        assert line.recv(1) == b""
    elif goodbye == "reset":
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    line.close()
    eventually(lambda: at_rest(server))
    assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200


def test_who_leaves_before_the_answer_harms_nobody(live, sound):
    server, port = live
    body = sound(50.0)
    for _ in range(5):
        with dial(port) as line:
            line.sendall(head(f"Content-Length: {len(body)}\r\n", "/v1/timeline?window=2&hop=0.5") + body)
    eventually(lambda: at_rest(server))
    assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200


@pytest.mark.parametrize("data", [b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0" * 20])
def test_what_is_no_http_is_told_so(live, data):
    _, port = live
    with dial(port) as line:
        line.sendall(data)
        assert line.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_header_that_does_not_come_is_not_waited_for(serving, monkeypatch):
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 0.2)
    with serving() as (_, port):
        with dial(port) as line:
            line.sendall(b"POST /v1/predict HTT")
            assert line.recv(1) == b""
        with dial(port) as line, connect(f"ws://127.0.0.1:{port}/v1/stream") as stream:
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reply(line)[0] == 200
            time.sleep(0.4)  # who has asked in time stays
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reply(line)[0] == 200
            stream.send('{"rate": 16000}')
            assert json.loads(stream.recv())["type"] == "ready"


def test_when_all_places_are_taken_one_may_try_again(serving, small, sound):
    with serving(replace(small, queue=2, body_seconds=30.0)) as (_, port):
        address, body = f"http://127.0.0.1:{port}", sound()
        with dial(port) as one, dial(port) as two:
            for line in (one, two):
                line.sendall(head(f"Content-Length: {len(body)}\r\n"))
            eventually(lambda: "serein_busy 2.0" in httpx.get(f"{address}/metrics").text)
            refused = httpx.post(f"{address}/v1/predict", content=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
            assert int(refused.headers["retry-after"]) >= 1
            assert httpx.get(f"{address}/readyz").status_code == 200
            for line in (one, two):
                line.sendall(body)
                assert reply(line)[0] == 200
        assert httpx.post(f"{address}/v1/predict", content=body).status_code == 200


def test_what_takes_too_long_to_decode_is_given_up(serving, small, sound):
    slow = sound(500.0, 48_000, kind="FLAC")
    with serving(replace(small, audio_seconds=600.0, body_bytes=10**8, decode_seconds=0.15)) as (_, port):
        address = f"http://127.0.0.1:{port}"
        refused = httpx.post(f"{address}/v1/predict", content=slow, timeout=60)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "too_slow")
        assert httpx.post(f"{address}/v1/predict", content=sound()).status_code == 200
        assert "serein_decoder_restarts_total 1.0" in httpx.get(f"{address}/metrics").text


def test_a_stream_over_a_real_connection(live, recognizer, paths):
    _, port = live
    samples = np.fromfile(paths[0], "<i2", offset=44)
    with connect(f"ws://127.0.0.1:{port}/v1/stream", origin=f"http://127.0.0.1:{port}") as stream:
        stream.send(json.dumps({"rate": 16_000, "window": 0.5, "hop": 0.1, "format": "s16"}))
        stream.send(samples.tobytes())
        stream.send('{"type": "finish"}')
        messages = [json.loads(message) for message in stream]
    expected = recognizer.timeline(paths[0], 0.5, 0.1).as_dict()
    assert messages[-1]["type"] == "timeline"
    assert len(messages) == len(expected["windows"]) + 2
    for found, other in zip(messages[-1]["windows"], expected["windows"], strict=True):
        assert found["scores"] == pytest.approx(other["scores"], abs=1e-4)


def test_a_message_too_large_ends_a_stream(live, small):
    _, port = live
    with connect(f"ws://127.0.0.1:{port}/v1/stream") as stream:
        stream.send('{"rate": 16000}')
        stream.recv()
        stream.send(bytes(small.message_bytes + 4))
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv()
    assert closed.value.rcvd.code == 1009


def test_open_streams_are_closed_when_the_server_stops(serving):
    with serving() as (server, port), connect(f"ws://127.0.0.1:{port}/v1/stream") as stream:
        stream.send('{"rate": 16000}')
        stream.recv()
        server.handle_exit(signal.SIGTERM, None)
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv()
        assert closed.value.rcvd.code == 1012


def test_a_second_signal_stops_at_once(serving):
    with serving() as (server, port), dial(port) as line:
        line.sendall(head("Content-Length: 10\r\n"))
        eventually(lambda: not at_rest(server))
        server.handle_exit(signal.SIGINT, None)
        assert not server.should_exit
        server.handle_exit(signal.SIGINT, None)
        assert server.should_exit
        server._captured_signals.clear()  # it would be raised again, here


def descendants(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


def test_the_command_serves_and_sigterm_ends_it_gracefully(served_model, sound, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from serein.cli_serve import serving; serving()", str(served_model)]
    command += ["--port", str(port), "--max-megabytes", "1", "--decoders", "3"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"},
    )
    address, body = f"http://127.0.0.1:{port}", sound(20.0)

    def up() -> bool:
        assert process.poll() is None, process.stdout.read()
        try:
            return httpx.get(f"{address}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    deadline = time.monotonic() + 120
    while not up():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = descendants(process.pid)
    assert len(children) == 3
    assert httpx.get(f"{address}/v1/model").json()["limits"]["body_bytes"] == 1_000_000
    assert httpx.post(f"{address}/v1/predict", content=bytes(1_000_001)).status_code == 413
    with dial(port) as line:
        line.sendall(head(f"Content-Length: {len(body)}\r\n") + body[:1000])
        eventually(lambda: "serein_busy 1.0" in httpx.get(f"{address}/metrics").text)
        process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(f"{address}/readyz").status_code == 503)
        assert httpx.post(f"{address}/v1/predict", content=body).json()["error"]["code"] == "draining"
        assert httpx.get(f"{address}/healthz").status_code == 200
        line.sendall(body[1000:])
        status, _, found = reply(line)
        assert (status, found["seconds"]) == (200, 20.0)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in output
    assert "/v1/predict" not in output
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert list(scratch.iterdir()) == []


def test_two_hundred_bad_requests_leave_nothing_behind(live, sound):
    server, port = live
    bodies = [b"", os.urandom(100_000), sound(61.0)[:500_000], sound(1.0)[:3000], sound(10.0, kind="FLAC")[:-100],
              sound(61.0), sound(1.0, kind="MP3")[:2000], bytes(1_900_000)]  # fmt: skip

    def ask(number: int) -> int:
        body = bodies[number % len(bodies)]
        return client.post("/v1/predict", content=body).status_code

    def facts() -> tuple[int, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize(), len([*Path("/proc/self/fd").iterdir()])

    base = f"http://127.0.0.1:{port}"
    with ThreadPoolExecutor(4) as threads, httpx.Client(base_url=base, timeout=60) as client:
        list(threads.map(ask, range(64)))  # allocators fill up first
        memory, files = facts()
        statuses = list(threads.map(ask, range(200)))
    assert {*statuses} == {413, 415, 422}
    eventually(lambda: at_rest(server))
    eventually(lambda: facts()[1] <= files + 4)
    assert facts()[0] - memory < 30_000_000


def test_streams_that_end_early_leave_no_error_in_the_log(live, caplog):
    _, port = live
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{port}/v1/stream", additional_headers={"Origin": "https://elsewhere.example"})
    with connect(f"ws://127.0.0.1:{port}/v1/stream") as line:
        line.send(json.dumps({"rate": 16000, "window": 0.5, "hop": 0.1, "format": "f32"}))
        line.recv(timeout=30)
        line.send(np.zeros(16_000, dtype="<f4").tobytes())
        line.send(bytes(2_000_000))  # more than a message may have: uvicorn hangs up while windows are on their way
        with pytest.raises(ConnectionClosed) as closed:
            [line.recv(timeout=30) for _ in range(100)]
        assert closed.value.rcvd.code == 1009
    eventually(lambda: httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=30).status_code == 200)
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
