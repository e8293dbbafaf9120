import io
import json
from contextlib import ExitStack

import numpy as np
import pytest
import soundfile
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from serein.errors import AudioError
from serein.frames.audio import load_audio
from serein.frames.sources import Recording

PATH = "/v1/stream"


@pytest.fixture(scope="module")
def samples(paths) -> np.ndarray:
    return np.concatenate([load_audio(path) for path in paths[:12]])


def settings(**changes) -> str:
    return json.dumps({"rate": 16_000, "window": 2.0, "hop": 0.5, "format": "f32"} | changes)


def until_the_end(socket) -> tuple[list[dict], int]:
    messages = []
    try:
        while True:
            messages.append(socket.receive_json())
    except WebSocketDisconnect as end:
        return messages, end.code


def said(client, *messages: str | bytes) -> tuple[str, int]:
    """The error that the last of the messages leads to, and how the socket was closed."""
    with client.websocket_connect(PATH) as socket:
        for message in messages:
            socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message)
        replies, closing = until_the_end(socket)
    assert replies[-1].keys() == {"type", "code", "message"}
    assert replies[-1]["type"] == "error"
    return replies[-1]["code"], closing


@pytest.mark.parametrize(
    ("rate", "layout", "tolerance"), [(16_000, "f32", 1e-4), (16_000, "s16", 0.05), (48_000, "f32", 1e-4)]
)
def test_a_stream_says_what_a_timeline_of_the_same_sound_says(client, recognizer, samples, rate, layout, tolerance):
    expected = recognizer.timeline(Recording(samples, rate), 1.0 if rate > 16_000 else 2.0, 0.5)
    window = 1.0 if rate > 16_000 else 2.0
    raw = samples.astype("<f4") if layout == "f32" else np.round(samples * 32768).astype("<i2")
    with client.websocket_connect(PATH) as socket:
        socket.send_text(settings(rate=rate, window=window, format=layout))
        assert socket.receive_json() == {
            "type": "ready",
            "labels": list(recognizer.labels),
            "window": window,
            "hop": 0.5,
        }
        for start in range(0, len(raw), 7001):
            socket.send_bytes(raw[start : start + 7001].tobytes())
        socket.send_text('{"type": "finish"}')
        replies, closing = until_the_end(socket)
    assert closing == 1000
    windows, (timeline,) = replies[:-1], replies[-1:]
    assert {reply.pop("type") for reply in windows} == {"window"}
    assert timeline.pop("type") == "timeline"
    assert timeline["windows"] == windows
    reference = expected.as_dict()
    assert timeline.keys() == reference.keys()
    for found, other in zip(windows, reference["windows"], strict=True):
        assert (found["start"], found["end"], found["silent"]) == (other["start"], other["end"], other["silent"])
        assert found["scores"] == pytest.approx(other["scores"], abs=tolerance)


def test_a_window_is_answered_before_more_is_sent(client, samples):
    with client.websocket_connect(PATH) as socket:
        socket.send_text(settings(window=1.0, hop=1.0))
        socket.receive_json()
        for second in range(3):
            socket.send_bytes(samples[second * 16_000 : (second + 1) * 16_000].tobytes())
            assert socket.receive_json()["end"] == second + 1


def test_a_stream_without_a_sound_ends_in_an_empty_timeline(client):
    with client.websocket_connect(PATH) as socket:
        socket.send_text(settings())
        socket.send_text('{"type": "finish"}')
        (_, timeline), closing = until_the_end(socket)
    assert (timeline["windows"], timeline["segments"], closing) == ([], [], 1000)


@pytest.mark.parametrize(
    "first",
    [
        "",
        "hello",
        "[]",
        "{}",
        '{"rate": 16000, "surprise": 1}',
        settings(rate=3_999),
        settings(rate=10**9),
        settings(rate="fast"),
        settings(window=0.1),
        settings(window=100.0),
        settings(hop=3.0),
        settings(hop=0.0),
        settings(window=30.0, hop=0.1),
        settings(format="mp3"),
        '{"rate": 16000, "window": NaN}',
        "[" * 99_999,
        b"\0\0\0\0",
    ],
)
def test_settings_that_are_none_are_refused(client, first):
    assert said(client, first) == ("bad_settings", 1003)


@pytest.mark.parametrize(
    ("messages", "code", "closing"),
    [
        ([b"\0\0\0"], "bad_samples", 1003),
        ([np.full(100, np.nan, "<f4").tobytes()], "bad_samples", 1003),
        ([bytes(100_004)], "too_large", 1009),
        (["x" * 100_001], "too_large", 1009),
        (["hello"], "bad_message", 1003),
        (['{"type": "start"}'], "bad_message", 1003),
        (["[]"], "bad_message", 1003),
        ([""], "bad_message", 1003),
        (["[" * 99_999], "bad_message", 1003),
        (['{"type": "finish", "more": 1}'], "bad_message", 1003),
        ([b"", b"\0"], "bad_samples", 1003),
        ([], "idle", 1008),
        ([bytes(400)], "idle", 1008),
    ],
)
def test_what_breaks_a_rule_ends_the_stream(client, messages, code, closing):
    assert said(client, settings(), *messages) == (code, closing)


def test_samples_of_another_full_scale_are_refused(client):
    integers = np.full(100, 3000.0, "<f4").tobytes()
    assert said(client, settings(), integers) == ("bad_samples", 1003)


def test_a_window_that_the_model_cannot_take_does_not_end_the_stream(client, recognizer, samples, monkeypatch):
    def refuse(windows):
        raise AudioError("frames reach inf")

    with client.websocket_connect(PATH) as socket:
        socket.send_text(settings(window=1.0, hop=1.0))
        socket.receive_json()
        with monkeypatch.context() as broken:
            broken.setattr(recognizer, "judge", refuse)
            socket.send_bytes(samples[:16_000].tobytes())
            assert socket.receive_json()["silent"]
        socket.send_bytes(samples[16_000:32_000].tobytes())
        assert not socket.receive_json()["silent"]
        socket.send_text('{"type": "finish"}')
        assert len(socket.receive_json()["windows"]) == 2


def test_a_stream_of_which_the_model_can_take_nothing_ends_with_the_reason(client, recognizer, samples, monkeypatch):
    def refuse(windows):
        raise AudioError("frames reach inf")

    monkeypatch.setattr(recognizer, "judge", refuse)
    with client.websocket_connect(PATH) as socket:
        socket.send_text(settings(window=1.0, hop=1.0))
        socket.send_bytes(samples[:20_000].tobytes())
        socket.send_text('{"type": "finish"}')
        (_, window, error), closing = until_the_end(socket)
    assert window["silent"]
    assert error == {"type": "error", "code": "bad_samples", "message": "frames reach inf"}
    assert closing == 1003


def test_the_server_counts_what_the_encoder_pads(client, recognizer, paths, monkeypatch):
    groups = []
    judge = recognizer.judge

    def watched(windows):
        groups.append(len(windows))
        return judge(windows)

    monkeypatch.setattr(recognizer, "judge", watched)
    monkeypatch.setattr(recognizer.encoder, "padded_to", 9 * 16_000)
    sound = np.concatenate([load_audio(path) for path in paths[:12]])
    file = io.BytesIO()
    soundfile.write(file, sound[:80_000], 16_000, format="WAV")
    assert client.post("/v1/timeline?window=1&hop=1", content=file.getvalue()).status_code == 200
    assert groups == [2, 2, 1]


def test_nobody_says_anything_first(client):
    assert said(client) == ("idle", 1008)


def test_a_stream_does_not_last_for_ever(client, monkeypatch):
    service = client.app.state.service
    monkeypatch.setattr(service, "limits", type(service.limits)(stream_seconds=1.0))
    half = bytes(4 * 8_000)
    assert said(client, settings(), half, half, b"\0\0\0\0") == ("too_long", 1008)


def test_a_page_of_another_site_gets_no_stream(client):
    for origin in ("https://elsewhere.example", "null", "http://testserver.elsewhere.example", "http://testserver:81"):
        stream = client.websocket_connect(PATH, headers={"origin": origin})
        with pytest.raises(WebSocketDenialResponse) as denial, stream:
            pass
        assert denial.value.status_code == 403
        assert denial.value.json()["error"]["code"] == "foreign_origin"
    with client.websocket_connect(PATH, headers={"origin": "http://testserver"}) as socket:
        socket.send_text(settings())
        assert socket.receive_json()["type"] == "ready"


def test_only_so_many_streams_are_open_at_once(client, monkeypatch):
    service = client.app.state.service
    monkeypatch.setattr(service.streams, "_places", 3)
    with ExitStack() as stack:
        for _ in range(3):
            socket = stack.enter_context(client.websocket_connect(PATH))
            socket.send_text(settings())
            assert socket.receive_json()["type"] == "ready"
        assert "serein_streams 3.0" in client.get("/metrics").text
        assert said(client) == ("busy", 1013)
    assert service.streams.taken == 0
    with client.websocket_connect(PATH) as socket:
        socket.send_text(settings())
        assert socket.receive_json()["type"] == "ready"


def test_a_stopping_server_opens_no_stream(client, monkeypatch):
    monkeypatch.setattr(client.app.state.service.streams, "draining", True)
    assert said(client) == ("draining", 1012)
