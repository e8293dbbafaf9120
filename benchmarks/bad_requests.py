"""A hundred ways to misbehave towards the server, with the answers that are right.

Bodies, forms, types and queries are those of `tests/serve/test_bad_input.py`; the rest takes a real connection.
"""

import http.client
import io
import json
import random
import runpy
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from select import select
from typing import NamedTuple

import numpy as np
import soundfile
from server_process import Reply, ServerProcess, exchange
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

TABLE = Path(__file__).resolve().parents[1] / "tests" / "serve" / "test_bad_input.py"
PREDICT = "/v1/predict"
HUNG_UP, LEFT = "hung up", "left"
LEAVE_AT_ONCE = b"\1\0\0\0\0\0\0\0"  # struct linger: the system sends a reset


class Kind(NamedTuple):
    """One way to misbehave.

    Attributes:
        name: what is wrong.
        expected: answers that are right.
        send: does it to a server, and gives the answer in words.
    """

    name: str
    expected: tuple[str, ...]
    send: Callable[[ServerProcess], str]


def words(reply: Reply) -> str:
    """For example ``413 too_long``."""
    return f"{reply.status} {reply.code}".strip()


def sound(
    seconds: float = 0.5, rate: int = 16_000, channels: int = 1, kind: str = "WAV", coding: str | None = None
) -> bytes:
    """A file with a hum in it, of which the table's kinds are made."""
    wave = 0.3 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)
    file = io.BytesIO()
    soundfile.write(file, np.repeat(wave[:, None], channels, 1), rate, format=kind, subtype=coding)
    return file.getvalue()


def kinds() -> list[Kind]:
    return [*_requests(), *_connections(), *_streams()]


def _requests() -> Iterator[Kind]:
    table = runpy.run_path(str(TABLE))
    for name, (make, (status, code)) in table["BODIES"].items():
        yield Kind(f"body: {name}", (f"{status} {code}",), partial(_post, PREDICT, make(sound), "audio/wav"))
    for name, (make, content_type) in table["FORMS"].items():
        kind = content_type or "multipart/form-data; boundary=xx"
        yield Kind(f"form: {name}", ("400 bad_multipart",), partial(_post, PREDICT, make(sound), kind))
    for kind in table["TYPES"]:
        yield Kind(f"type: {kind}", ("415 unsupported_type",), partial(_post, PREDICT, sound(), kind))
    for query in table["QUERIES"]:
        yield Kind(f"query: {query}", ("422 bad_query",), partial(_post, query, sound(), "audio/wav"))
    yield Kind("address: nowhere", ("404 not_found",), partial(_post, "/v2/predict", sound(), "audio/wav"))
    yield Kind("address: /static/../app.py", ("404 not_found",), lambda server: words(server.get("/static/../app.py")))
    yield Kind("method: GET", ("405 wrong_method",), lambda server: words(server.get(PREDICT)))


def _post(path: str, body: bytes, kind: str, server: ServerProcess) -> str:
    connection = server.connection()
    try:
        return words(exchange(connection, "POST", path, body, kind))
    finally:
        connection.close()


def _connections() -> Iterator[Kind]:
    waits, length = "Content-Length: 1000\r\n", f"Content-Length: {len(sound())}\r\n"
    noise = random.Random(0).randbytes(1000)
    chunk = b"%x\r\n" % 100_000 + bytes(100_000) + b"\r\n"
    for name, expected, data, more in (
        ("a body that does not come", ("408 slow_body",), _head(waits) + b"RIFF", _nothing),
        ("a body that drips", ("408 slow_body",), _head(waits), partial(_keep_sending, b"x", 0.05)),
        ("ten gigabytes to come", ("413 too_large",), _head("Content-Length: 10000000000\r\n"), _nothing),
        # It answers and hangs up; the system may drop the answer when more has come since.
        (
            "chunks without end",
            ("413 too_large", HUNG_UP),
            _head("Transfer-Encoding: chunked\r\n"),
            partial(_keep_sending, chunk, 0.0),
        ),
        ("chunks that are none", ("400",), _head("Transfer-Encoding: chunked\r\n") + b"x\r\n" * 100, _nothing),
        ("half closed in the body", (HUNG_UP,), _head(waits) + b"RIFF", _close_half),
        ("half closed after noise", ("415 unsupported_audio",), _head(waits) + noise, _close_half),
        ("reset in the body", (LEFT,), _head(waits) + b"RIFF", _reset),
        ("gone before the answer", (LEFT,), _head(length, "/v1/timeline") + sound(), _reset),
        ("two lengths", ("400",), _head("Content-Length: 5\r\nContent-Length: 6\r\n"), _nothing),
        ("a length below nothing", ("400",), _head("Content-Length: -1\r\n"), _nothing),
        ("a header that does not end", (HUNG_UP,), b"POST /v1/predict HTT", _nothing),
        ("a header of a megabyte", ("400", HUNG_UP), b"POST /v1/predict HTTP/1.1\r\nX: " + b"x" * 2**20, _nothing),
        ("zeros", ("400",), bytes(100), _nothing),
        ("TLS", ("400",), b"\x16\x03\x01\x02\0" * 20, _nothing),
    ):
        yield Kind(f"connection: {name}", expected, partial(_speak, data, more))


def _head(fields: str, path: str = PREDICT) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n{fields}\r\n".encode()


def _speak(data: bytes, more: Callable[[socket.socket], bool], server: ServerProcess) -> str:
    """Send bytes, then do more, which tells whether to wait for an answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        try:
            line.sendall(data)
            return _heard(line) if more(line) else LEFT
        except ConnectionError:
            return HUNG_UP


def _heard(line: socket.socket) -> str:
    with http.client.HTTPResponse(line, method="POST") as response:
        try:
            response.begin()
            return words(Reply(response.status, response.read()))
        except http.client.RemoteDisconnected:
            return HUNG_UP


def _nothing(line: socket.socket) -> bool:
    return True


def _keep_sending(piece: bytes, pause: float, line: socket.socket) -> bool:
    while not select([line], [], [], pause)[0]:
        line.sendall(piece)
    return True


def _close_half(line: socket.socket) -> bool:
    line.shutdown(socket.SHUT_WR)
    return True


def _reset(line: socket.socket) -> bool:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LEAVE_AT_ONCE)
    return False


def _streams() -> Iterator[Kind]:
    settings = '{"rate": 16000}'
    behaviours: tuple[tuple[str, str, list[str | bytes]], ...] = (
        ("settings that are no JSON", "1003 bad_settings", ["hello"]),
        ("a rate of nobody", "1003 bad_settings", ['{"rate": 1}']),
        ("samples for settings", "1003 bad_settings", [bytes(400)]),
        ("half a sample", "1003 bad_samples", [settings, bytes(3)]),
        ("no numbers", "1003 bad_samples", [settings, np.full(100, np.nan, "<f4").tobytes()]),
        ("words for samples", "1003 bad_message", [settings, "hello"]),
        ("silence of the client", "1008 idle", [settings, bytes(400)]),
        ("a message too large", "1009", [settings, bytes(100_004)]),
    )
    for name, expected, messages in behaviours:
        yield Kind(f"stream: {name}", (expected,), partial(_converse, messages))
    yield Kind("stream: from another site", ("403 foreign_origin",), _intrude)


def _converse(messages: Sequence[str | bytes], server: ServerProcess) -> str:
    """How the stream is closed, and the error that it named before."""
    code = ""
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream") as stream:
        try:
            for message in messages:
                stream.send(message)
            while True:
                code = json.loads(stream.recv()).get("code", "")
        except ConnectionClosed as closed:
            return f"{closed.rcvd.code} {code}".strip() if closed.rcvd else HUNG_UP


def _intrude(server: ServerProcess) -> str:
    try:
        with connect(f"ws://127.0.0.1:{server.port}/v1/stream", origin=Origin("https://elsewhere.example")):
            return "let in"
    except InvalidStatus as refused:
        return words(Reply(refused.response.status_code, bytes(refused.response.body or b"")))
