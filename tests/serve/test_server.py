import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.uri import parse_uri

from serein.serve import server as server_module
from serein.serve.app import make_app
from serein.serve.decoding import Decoder, DecoderFailed
from serein.serve.limits import Limits

HEAD = "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{more}\r\n"


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def head(more: str = "", path: str = "/v1/predict", kind: str = "audio/wav", method: str = "POST") -> bytes:
    return HEAD.format(method=method, path=path, kind=kind, more=more).encode()


def reply(line: socket.socket) -> tuple[int, dict[str, str], dict]:
    """Status, headers and body of an answer after which the connection may stay open."""
    with line.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = {}
        while (field := file.readline().strip()) != b"":
            name, _, value = field.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, json.loads(file.read(int(headers["content-length"])))


def cut_off(line: socket.socket, piece: bytes, most: int, pause: float = 0.0) -> bool:
    """Whether the server hangs up on somebody who would send so many pieces."""
    try:
        for _ in range(most):
            line.sendall(piece)
            time.sleep(pause)
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def descendants(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


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
    with dial(port) as line:
        line.sendall(head("Content-Length: 1000\r\n"))
        assert cut_off(line, b"x", 900, pause=0.02)


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


@pytest.mark.parametrize("kind", ["audio/wav", "text/html"])
def test_chunks_without_end_are_cut_off(live, kind):
    server, port = live
    chunk = b"%x\r\n" % 100_000 + bytes(100_000) + b"\r\n"
    with dial(port) as line:
        line.sendall(head("Transfer-Encoding: chunked\r\n", kind=kind))
        assert cut_off(line, chunk, 500)  # two megabytes are taken, and the system keeps a few
    eventually(lambda: at_rest(server))


@pytest.mark.parametrize(
    ("method", "path", "kind", "status"),
    [
        ("POST", "/v1/predict", "text/html", 415),
        ("POST", "/nowhere", "audio/wav", 404),
        ("GET", "/v1/predict", "audio/wav", 405),
        ("GET", "/healthz", "audio/wav", 200),
    ],
)
def test_a_long_body_that_nobody_wants_is_not_read(live, method, path, kind, status):
    _, port = live
    announced = "Content-Length: {}\r\n"
    with dial(port) as line:
        line.sendall(head(announced.format(10**10), path, kind, method))
        found, headers, _ = reply(line)
        assert (found, headers["connection"]) == (status, "close")
        assert line.recv(1) == b""
    with dial(port) as line:  # a short one is, so that its sender comes to see the answer
        line.sendall(head(announced.format(7_000_000), path, kind, method) + bytes(7_000_000))
        found, headers, _ = reply(line)
        assert (found, headers.get("connection")) == (status, None)
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reply(line)[0] == 200


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


@contextmanager
def held(recognizer, monkeypatch) -> Iterator[list[int]]:
    """The encoder holds still in the block; gives the number of windows of each group that it was asked for."""
    go, groups, encode = threading.Event(), [], recognizer.encoder.encode

    def wait(waveforms):
        groups.append(len(waveforms))
        go.wait()
        return encode(waveforms)

    monkeypatch.setattr(recognizer.encoder, "encode", wait)
    try:
        yield groups
    finally:
        go.set()


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/timeline?window=2&hop=0.5"])
def test_nobody_works_for_who_left_before_the_answer(serving, recognizer, sound, monkeypatch, path):
    monkeypatch.setattr(server_module, "HALF_CLOSED_SECONDS", 0.1)
    body = sound(50.0)
    with serving() as (server, port):
        with held(recognizer, monkeypatch) as groups:
            with ExitStack() as lines:
                for _ in range(5):
                    line = lines.enter_context(dial(port))
                    line.sendall(head(f"Content-Length: {len(body)}\r\n", path) + body)
                eventually(lambda: groups)
            eventually(lambda: at_rest(server))
        address = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{address}/v1/predict", content=sound(), timeout=60).status_code == 200
        assert sum(groups) < 97  # windows of one of the timelines
        path = path.partition("?")[0]
        assert f'serein_requests_total{{route="{path}",status="499"}} 5.0' in httpx.get(f"{address}/metrics").text


def test_nobody_decodes_for_who_left_while_waiting_for_it(serving, small, sound, monkeypatch):
    go, begun, decode = threading.Event(), [], Decoder.decode

    def wait(decoder, body):
        begun.append(len(body))
        go.wait()
        return decode(decoder, body)

    monkeypatch.setattr(server_module, "HALF_CLOSED_SECONDS", 0.1)
    body = sound()
    with serving(replace(small, decoders=1)) as (server, port):
        monkeypatch.setattr(Decoder, "decode", wait)
        try:
            lines = [dial(port) for _ in range(3)]
            for line in lines:
                line.sendall(head(f"Content-Length: {len(body)}\r\n") + body)
            eventually(lambda: begun and server._service.requests.taken == 3)
            for line in lines:
                line.close()
            eventually(lambda: at_rest(server))  # while the one that is decoded still is
        finally:
            go.set()
        assert httpx.post(f"http://127.0.0.1:{port}/v1/predict", content=body, timeout=60).status_code == 200
    assert len(begun) == 2


def test_who_closes_half_the_connection_is_not_waited_for_for_long(serving, recognizer, sound, monkeypatch):
    monkeypatch.setattr(server_module, "HALF_CLOSED_SECONDS", 0.1)
    body = sound()
    with serving() as (server, port), held(recognizer, monkeypatch), dial(port) as line:
        line.sendall(head(f"Content-Length: {len(body)}\r\n") + body)
        line.shutdown(socket.SHUT_WR)
        assert line.recv(1) == b""
        eventually(lambda: at_rest(server))


def test_nobody_works_for_a_stream_whose_client_left(serving, recognizer, monkeypatch):
    with serving() as (server, port):
        with held(recognizer, monkeypatch) as groups:
            with connect(f"ws://127.0.0.1:{port}/v1/stream") as stream:
                stream.send('{"rate": 4000, "window": 1.0, "hop": 0.1, "format": "s16"}')
                stream.recv(timeout=30)
                stream.send(bytes(80_000))
                eventually(lambda: groups)
            eventually(lambda: server._service.streams.taken == 0)
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    assert sum(groups) < 91


def test_nor_for_one_that_had_sent_ahead(serving, recognizer, monkeypatch):
    with serving() as (server, port), held(recognizer, monkeypatch) as groups:
        with connect(f"ws://127.0.0.1:{port}/v1/stream") as stream:
            stream.send('{"rate": 4000, "window": 1.0, "hop": 0.1, "format": "s16"}')
            stream.recv(timeout=30)
            for _ in range(4):
                stream.send(bytes(80_000))
            eventually(lambda: groups)
        eventually(lambda: server._service.streams.taken == 0)
        assert sum(groups) < 91  # windows of the first message alone


def test_a_busy_stream_at_the_end_of_a_server_leaves_no_traceback(serving, recognizer, monkeypatch, capsys):
    monkeypatch.setattr(server_module, "STOP_SECONDS", 0)
    with (
        serving() as (server, port),
        held(recognizer, monkeypatch) as groups,
        connect(f"ws://127.0.0.1:{port}/v1/stream", close_timeout=0) as stream,
    ):
        stream.send('{"rate": 4000, "window": 1.0, "hop": 0.1, "format": "s16"}')
        stream.recv(timeout=30)
        for _ in range(6):  # more than are taken in ahead: nobody hears that the server hangs up
            stream.send(bytes(80_000))
        eventually(lambda: groups)
        server.should_exit = True
        eventually(lambda: server._service.streams.taken == 0)
    said = capsys.readouterr().err
    assert "Cancel 1 running task(s)" in said
    assert "Traceback" not in said


def test_a_server_that_does_not_come_up_raises_the_reason_and_logs_no_traceback(recognizer, monkeypatch, capsys):
    def refuse(*_, **__):
        raise BlockingIOError("no processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    server = server_module.make_server(make_app(recognizer, Limits()), "127.0.0.1", 0)
    with pytest.raises(DecoderFailed, match="no processes"):
        server.run()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux gives up a client that does not read")
def test_a_stream_whose_client_does_not_read_is_given_up(serving, small, monkeypatch):
    monkeypatch.setattr(server_module, "UNREAD_SECONDS", 0.5)
    with serving(replace(small, idle_seconds=60.0)) as (server, port), socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(30)
        line.connect(("127.0.0.1", port))
        client = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/v1/stream"))
        client.send_request(client.connect())
        line.sendall(b"".join(client.data_to_send()))
        client.receive_data(line.recv(1000))
        client.send_text(b'{"rate": 4000, "window": 0.5, "hop": 0.1, "format": "s16"}')
        client.send_binary(bytes(80_000))
        line.sendall(b"".join(client.data_to_send()))
        eventually(lambda: server._service.streams.taken == 1)
        eventually(lambda: server._service.streams.taken == 0)
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200


@pytest.mark.parametrize(
    ("message", "code"),
    [(b"", "idle"), (bytes(4), "too_long")],  # nothing, and next to nothing
)
def test_a_stream_is_not_held_open_with_next_to_nothing(serving, small, message, code):
    limits = replace(small, stream_seconds=0.5, idle_seconds=0.5)
    with serving(limits) as (_, port), connect(f"ws://127.0.0.1:{port}/v1/stream") as stream:
        stream.send('{"rate": 16000}')
        stream.recv(timeout=30)
        deadline, found = time.monotonic() + 20, None
        while not found:
            assert time.monotonic() < deadline, "it was held open"
            with suppress(ConnectionClosed):  # the server may have closed, and its last words still be unread
                stream.send(message)
            with suppress(TimeoutError):
                found = json.loads(stream.recv(timeout=0.05))
        assert (found["type"], found["code"]) == ("error", code)
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(timeout=30)
        assert closed.value.rcvd.code == 1008


def test_a_client_without_pongs_keeps_its_stream(live):
    server, _ = live
    assert server.config.ws_ping_timeout is None


def test_there_are_only_so_many_connections(serving, monkeypatch):
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 2)
    with serving() as (server, port), dial(port) as one:
        with dial(port), dial(port) as third, suppress(ConnectionResetError):
            assert third.recv(1) == b""
        eventually(lambda: len(server.server_state.connections) == 1)
        with dial(port) as other:
            for line in (one, other):
                line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert reply(line)[0] == 200


@pytest.mark.parametrize("data", [b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0" * 20])
def test_what_is_no_http_is_told_so(live, data):
    _, port = live
    with dial(port) as line:
        line.sendall(data)
        assert line.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_header_that_does_not_come_is_not_waited_for(serving, sound, monkeypatch):
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 0.2)
    body = sound()
    with serving() as (_, port):
        with dial(port) as line:
            line.sendall(b"POST /v1/predict HTT")
            assert line.recv(1) == b""
        with dial(port) as line, connect(f"ws://127.0.0.1:{port}/v1/stream") as stream:
            line.sendall(head(f"Content-Length: {len(body)}\r\n"))
            time.sleep(0.4)  # who has asked in time stays
            line.sendall(body)
            assert reply(line)[0] == 200
            stream.send('{"rate": 16000}')
            assert json.loads(stream.recv())["type"] == "ready"
            line.sendall(b"GET /healthz HTT")  # nor is the next one's
            assert line.recv(1) == b""


def test_what_drips_after_the_answer_is_not_taken_for_long(serving, monkeypatch):
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 0.2)
    with serving() as (_, port), dial(port) as line:
        line.sendall(head("Content-Length: 100000\r\n", kind="text/html"))
        assert reply(line)[0] == 415
        assert cut_off(line, b"x", 1000, pause=0.02)


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
    others = descendants(os.getpid())
    with serving(replace(small, decoders=1, decode_seconds=2.0)) as (_, port):
        address = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{address}/v1/predict", content=sound(), timeout=60).status_code == 200
        (decoder,) = descendants(os.getpid()) - others
        os.kill(decoder, signal.SIGSTOP)
        refused = httpx.post(f"{address}/v1/predict", content=sound(), timeout=60)
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
        assert reply(line)[2]["error"]["code"] == "draining"


@pytest.mark.parametrize("impatient", ["somebody", "nobody"])
def test_work_without_end_does_not_keep_it_from_stopping(serving, recognizer, sound, monkeypatch, impatient):
    if impatient == "nobody":
        monkeypatch.setattr(server_module, "DRAIN_SECONDS", 0.1)
        monkeypatch.setattr(server_module, "STOP_SECONDS", 0)
    body = sound(50.0)
    with serving() as (server, port), dial(port) as line, held(recognizer, monkeypatch) as groups:
        line.sendall(head(f"Content-Length: {len(body)}\r\n", "/v1/timeline?window=2&hop=0.5") + body)
        eventually(lambda: groups)
        server.handle_exit(signal.SIGTERM, None)
        if impatient == "somebody":
            server.handle_exit(signal.SIGTERM, None)
            server._captured_signals.clear()
        status, _, found = reply(line)
        assert (status, found["error"]["code"]) == (503, "draining")
    assert sum(groups) < 97  # the server has ended, with its thread, and most windows were never judged


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


def test_streams_that_end_early_leave_no_error_in_the_log(live, recognizer, monkeypatch, caplog):
    server, port = live
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{port}/v1/stream", additional_headers={"Origin": "https://elsewhere.example"})
    with held(recognizer, monkeypatch) as groups, connect(f"ws://127.0.0.1:{port}/v1/stream") as line:
        line.send(json.dumps({"rate": 16000, "window": 0.5, "hop": 0.1, "format": "f32"}))
        line.recv(timeout=30)
        for _ in range(2):
            line.send(np.zeros(16_000, dtype="<f4").tobytes())
            eventually(lambda: groups)
        assert line.ping().wait(30)  # both were taken
        with suppress(ConnectionClosed):  # before the last byte has gone
            line.send(bytes(2_000_000))  # more than a message may have: uvicorn hangs up while windows are on their way
        with pytest.raises(ConnectionClosed) as closed:
            [line.recv(timeout=30) for _ in range(100)]
        # a server that hangs up on bytes it has not read resets the connection, which may overtake its last words
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    eventually(lambda: server._service.streams.taken == 0)
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=30).status_code == 200
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
