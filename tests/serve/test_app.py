import csv
import io
import json
import threading

import numpy as np
import pytest
import soundfile
import torch
from starlette.testclient import TestClient

from serein.errors import AudioError
from serein.frames.sources import Recording
from serein.recognizer import EmotionRecognizer
from serein.serve.app import PAGE, make_app
from serein.serve.limits import Limits
from serein.timeline import Timeline

OCTETS = {"content-type": "application/octet-stream"}


def scores(found: dict) -> dict[str, float]:
    return {score["label"]: score["score"] for score in found["scores"]}


def test_an_answer_is_that_of_the_recognizer(client, recognizer, paths):
    for path in paths[::12]:
        reply = client.post("/v1/predict", content=path.read_bytes(), headers=OCTETS)
        assert reply.status_code == 200
        found, expected = reply.json(), recognizer(path)
        assert [score["label"] for score in found["scores"]] == [score["label"] for score in expected]
        assert scores(found) == pytest.approx(scores({"scores": expected}), abs=1e-4)
        assert found["label"] == expected[0]["label"]
        assert found["seconds"] == pytest.approx(soundfile.info(path).duration, abs=1e-4)
        assert found["warnings"] == []
        assert found["model"] == {"name": "tones", "labels": list(recognizer.labels)}


def test_what_the_encoder_cannot_take_is_no_fault_of_the_server(client, recognizer, paths, monkeypatch):
    def overflow(waveforms):
        return [torch.full((50, 1, 80), 1e9) for _ in waveforms]

    monkeypatch.setattr(recognizer.encoder, "encode", overflow)
    reply = client.post("/v1/predict", content=paths[0].read_bytes(), headers=OCTETS)
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "corrupt_audio")
    assert "float16" in reply.json()["error"]["message"]
    again = client.post("/v1/timeline", content=paths[0].read_bytes(), headers=OCTETS)
    assert (again.status_code, again.json()) == (422, reply.json())


def test_windows_that_could_not_be_judged_are_counted_in_the_warnings(client, recognizer, sound, monkeypatch):
    judge = recognizer.judge

    def picky(windows):
        if any(len(window) < 16_000 for window in windows):
            raise AudioError("frames reach inf")
        return judge(windows)

    monkeypatch.setattr(recognizer, "judge", picky)
    found = client.post("/v1/timeline?window=1&hop=1", content=sound(2.5, channels=2)).json()
    assert [window["silent"] for window in found["windows"]] == [False, False, True]
    assert found["warnings"][-1] == "1 of 3 windows could not be judged, and count as silence (frames reach inf)"


@pytest.mark.parametrize(
    "kind",
    [
        "audio/wav",
        "Audio/X-Unheard-Of; codecs=1",
        "application/ogg",
        "application/x-www-form-urlencoded",  # `curl --data-binary @a.wav` says so
        "multipart",
    ],
)
def test_a_recording_may_come_in_several_ways(client, paths, kind):
    body = paths[0].read_bytes()
    if kind == "multipart":
        reply = client.post("/v1/predict", files={"file": ("../../etc/passwd", body, "text/html")})
    else:
        reply = client.post("/v1/predict", content=body, headers={"content-type": kind})
    plain = client.post("/v1/predict", content=body)  # of no type at all
    assert reply.status_code == plain.status_code == 200
    assert scores(reply.json()) == pytest.approx(scores(plain.json()), abs=1e-5)
    assert "passwd" not in reply.text


def test_a_large_multipart_file_stays_in_memory(recognizer, sound, monkeypatch):
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", lambda _: pytest.fail("something went to the disk"))
    body = sound(200, 8_000)
    assert len(body) > 2**20
    with TestClient(make_app(recognizer, Limits())) as client:
        assert client.post("/v1/predict", files={"file": ("a.wav", body)}).status_code == 200


def test_as_many_labels_as_asked_for(client, sound):
    def ask(count: int) -> list:
        return client.post(f"/v1/predict?top_k={count}", content=sound()).json()["scores"]

    assert [len(ask(count)) for count in (1, 3, 1000)] == [1, 3, 4]
    assert ask(1)[0] == ask(4)[0]


def test_a_model_that_is_not_sure_names_no_label(recognizer, sound):
    config = recognizer.config.model_copy(update={"abstain_below": 1.0})
    unsure = EmotionRecognizer(recognizer.classifier, config, recognizer.encoder)
    with TestClient(make_app(unsure, Limits(decoders=1))) as client:
        found = client.post("/v1/predict", content=sound()).json()
        assert found["label"] is None
        assert len(found["scores"]) == 4
        assert client.get("/v1/model").json()["abstain_below"] == 1.0


def test_what_was_mended_is_told(client):
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(16_000) / 10)[:, None] * [0.6, -0.5], 16_000, format="WAV")
    for route in ("/v1/predict", "/v1/timeline"):
        warnings = client.post(route, content=file.getvalue()).json()["warnings"]
        assert warnings == ["the channels cancel each other; only channel 1 was taken"]


@pytest.fixture(scope="module")
def long_recording(paths) -> bytes:
    samples = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in paths[:16]])
    samples[40_000:70_000] = 0
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize(("window", "hop"), [(4.0, 1.0), (1.5, 0.5)])
def test_a_timeline_is_that_of_the_recognizer(client, recognizer, long_recording, window, hop):
    reply = client.post(f"/v1/timeline?window={window}&hop={hop}", content=long_recording)
    assert reply.status_code == 200
    found, expected = reply.json(), recognizer.timeline(long_recording, window, hop).as_dict()
    assert found["warnings"] == []
    assert found.keys() == expected.keys()
    assert [(w["start"], w["end"], w["silent"]) for w in found["windows"]] == [
        (w["start"], w["end"], w["silent"]) for w in expected["windows"]
    ]
    for one, other in zip(found["windows"], expected["windows"], strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-4)
    assert [segment["label"] for segment in found["segments"]] == [s["label"] for s in expected["segments"]]


def test_a_timeline_comes_in_four_forms(client, recognizer, long_recording):
    expected = recognizer.timeline(long_recording)
    replies = {
        form: client.post(f"/v1/timeline?format={form}", content=long_recording)
        for form in ("json", "csv", "audacity", "rttm")
    }
    kinds = {form: reply.headers["content-type"].partition(";")[0] for form, reply in replies.items()}
    assert kinds == {
        "json": "application/json",
        "csv": "text/csv",
        "audacity": "text/plain",
        "rttm": "text/plain",
    }
    rows = list(csv.DictReader(io.StringIO(replies["csv"].text)))
    assert [float(row["start"]) for row in rows] == [window.start for window in expected.windows]
    assert replies["audacity"].text == expected.to_audacity()
    assert replies["rttm"].text == expected.to_rttm("recording")


def test_the_model_says_what_it_is_and_what_it_takes(client, recognizer, small):
    found = client.get("/v1/model").json()
    assert found["name"] == "tones"
    assert found["labels"] == list(recognizer.labels)
    assert found["encoder"] == "logmel"
    assert (found["temperature"], found["abstain_below"]) == (
        recognizer.config.temperature,
        recognizer.config.abstain_below,
    )
    assert found["limits"]["body_bytes"] == small.body_bytes
    assert found["limits"]["audio_seconds"] == small.audio_seconds
    bounds = ("shortest_window", "longest_window", "shortest_hop", "most_overlap")
    assert [found["limits"][bound] for bound in bounds] == [0.5, 30.0, 0.1, 40.0]


def test_where_the_encoder_lies_is_not_told(recognizer):
    encoder = recognizer.config.encoder.model_copy(update={"name": "/home/somebody/hubert"})
    elsewhere = recognizer.config.model_copy(update={"encoder": encoder})
    moved = EmotionRecognizer(recognizer.classifier, elsewhere, recognizer.encoder)
    with TestClient(make_app(moved, Limits(decoders=1))) as client:
        assert client.get("/v1/model").json()["encoder"] == "hubert"


def test_it_counts_what_it_does(recognizer, sound):
    with TestClient(make_app(recognizer, Limits(decoders=1))) as client:
        client.post("/v1/predict", content=sound(0.5))
        client.post("/v1/timeline?window=1&hop=1", content=sound(3.0))
        client.post("/v1/predict", content=b"no audio")
        client.get("/whatever/strangers/think/up")
        reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = dict(line.rsplit(" ", 1) for line in reply.text.splitlines() if not line.startswith("#"))
    assert lines['serein_requests_total{route="/v1/predict",status="200"}'] == "1.0"
    assert lines['serein_requests_total{route="/v1/predict",status="415"}'] == "1.0"
    assert lines['serein_requests_total{route="other",status="404"}'] == "1.0"
    assert lines['serein_request_seconds_count{route="/v1/timeline"}'] == "1.0"
    assert float(lines["serein_audio_seconds_total"]) == 1 + 0.5 + 3  # the first second was for warming up
    assert lines["serein_batch_recordings_sum"] == "5.0"
    assert (lines["serein_queue"], lines["serein_busy"], lines["serein_streams"]) == ("0.0", "0.0", "0.0")
    assert lines["serein_decoder_restarts_total"] == "0.0"
    assert "strangers" not in reply.text


def test_two_servers_in_one_process_count_apart(recognizer):
    one, other = (make_app(recognizer, Limits(decoders=1)) for _ in range(2))
    with TestClient(one) as asked, TestClient(other) as idle:
        asked.get("/healthz")
        assert "/healthz" in asked.get("/metrics").text
        assert "/healthz" not in idle.get("/metrics").text


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/healthz", "/v1/predict", "/nowhere"])
def test_every_answer_is_sealed(client, path):
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/static/app.js"])
def test_a_head_is_that_of_the_whole(client, path):
    reply = client.head(path)
    assert (reply.status_code, reply.content) == (200, b"")
    assert reply.headers["content-type"] == client.get(path).headers["content-type"]


@pytest.mark.parametrize("route", ["/v1/predict", "/v1/timeline", "/nowhere"])
def test_a_page_of_another_site_gets_no_answer(client, sound, route):
    for origin in ("https://elsewhere.example", "null", "http://testserver.elsewhere.example", "http://testserver:81",
                   "http://[", "testserver", ""):  # fmt: skip
        reply = client.post(route, content=sound(), headers={"origin": origin})
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "foreign_origin")
        assert "content-security-policy" in reply.headers


def test_the_page_of_this_server_gets_answers(client, sound):
    assert client.post("/v1/predict", content=sound(), headers={"origin": "http://testserver"}).status_code == 200


def test_other_sites_get_no_permission(client):
    asked = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    reply = client.options("/v1/predict", headers=asked)
    assert reply.status_code == 405
    assert "access-control-allow-origin" not in reply.headers


def test_the_page_is_served_and_nothing_beside_it(client):
    reply = client.get("/")
    assert reply.status_code == 200
    assert reply.text == (PAGE / "index.html").read_text(encoding="utf-8")
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd", "/docs"):
        reply = client.get(path)
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "not_found"


def test_a_draining_server_lives_but_takes_nothing_new(recognizer, sound):
    app = make_app(recognizer, Limits(decoders=1))
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
        app.state.service.drain()
        assert client.get("/healthz").json() == {"status": "ok"}
        for reply in (client.get("/readyz"), client.post("/v1/predict", content=sound())):
            assert reply.status_code == 503
            assert reply.json()["error"]["code"] == "draining"
            assert "retry-after" in reply.headers


def test_an_error_of_ours_is_said_without_its_details(recognizer, sound, monkeypatch):
    app = make_app(recognizer, Limits(decoders=1))
    with TestClient(app, raise_server_exceptions=False) as client:

        async def fail(_: np.ndarray) -> None:
            raise RuntimeError("out of memory at 0xSECRET")

        monkeypatch.setattr(app.state.service, "predict", fail)
        reply = client.post("/v1/predict", content=sound())
        assert (reply.status_code, reply.json()["error"]["code"]) == (500, "failed")
        assert "SECRET" not in reply.text
        assert (reply.headers["x-content-type-options"], reply.headers["cache-control"]) == ("nosniff", "no-store")
        assert 'serein_requests_total{route="/v1/predict",status="500"} 1.0' in client.get("/metrics").text
        monkeypatch.undo()
        assert client.post("/v1/predict", content=sound()).status_code == 200
        assert app.state.service.requests.taken == 0


def test_each_route_declares_its_answers_with_examples(client):
    document = client.get("/openapi.json").json()
    assert document["paths"].keys() == {"/v1/predict", "/v1/timeline", "/v1/model", "/healthz", "/readyz", "/metrics"}
    for path in ("/v1/predict", "/v1/timeline"):
        operation = document["paths"][path]["post"]
        assert operation["responses"].keys() >= {"200", "400", "408", "413", "415", "422", "429", "503"}
        assert operation["requestBody"]["content"].keys() >= {"application/octet-stream", "multipart/form-data"}
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    for name in ("Prediction", "TimelineReply", "ModelReply", "Health", "ErrorBody"):
        assert schemas[name]["example"]
    window = {p["name"]: p["schema"] for p in document["paths"]["/v1/timeline"]["post"]["parameters"]}
    assert (window["window"]["minimum"], window["window"]["maximum"], window["hop"]["minimum"]) == (0.5, 30.0, 0.1)
    assert json.dumps(document)


def test_samples_may_be_fetched_as_a_timeline_of_any_hop_that_is_bounded(client, sound):
    for query, status in (("window=4&hop=0.1", 200), ("window=4.5&hop=0.1", 422), ("window=1&hop=1.1", 422)):
        assert client.post(f"/v1/timeline?{query}", content=sound(2.0)).status_code == status


def test_a_long_recording_is_not_heard_too_often(recognizer, sound):
    with TestClient(make_app(recognizer, Limits(decoders=1, timeline_seconds=20.0))) as client:
        body = sound(6.0)
        reply = client.post("/v1/timeline?window=2&hop=0.5", content=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_query")
        assert reply.json()["error"]["message"] == "hop: for 6 s in windows of 2 s at least 0.6 s"
        for query, seconds in (("window=2&hop=0.6", 6.0), ("window=2&hop=0.5", 4.0)):
            assert client.post(f"/v1/timeline?{query}", content=sound(seconds)).status_code == 200


def test_a_window_longer_than_the_recording_costs_no_more_than_the_recording(recognizer, sound):
    with TestClient(make_app(recognizer, Limits(decoders=1, timeline_seconds=20.0))) as client:
        assert client.post("/v1/timeline?window=30&hop=1", content=sound(4.0)).status_code == 200
        reply = client.post("/v1/timeline?window=30&hop=1", content=sound(6.0))
        assert reply.json()["error"]["message"] == "hop: for 6 s in windows of 6 s at least 1.8 s"


@pytest.mark.parametrize("form", ["json", "csv", "audacity", "rttm"])
def test_a_long_answer_is_written_beside_the_event_loop(client, sound, monkeypatch, form):
    writers = []
    for name in ("as_dict", "to_csv", "to_audacity", "to_rttm"):
        write = getattr(Timeline, name)

        def watched(self, *given, write=write):
            writers.append(threading.current_thread().name)
            return write(self, *given)

        monkeypatch.setattr(Timeline, name, watched)
    assert client.post(f"/v1/timeline?format={form}", content=sound()).status_code == 200
    (writer,) = writers
    assert writer.startswith("aside")


def test_a_recording_is_judged_as_its_samples_are(client, recognizer, sound):
    body = sound(1.0, 48_000, 2, "FLAC")
    samples, rate = soundfile.read(io.BytesIO(body), dtype="float32")
    expected = recognizer(Recording(samples, rate))
    found = client.post("/v1/predict", content=body).json()
    assert scores(found) == pytest.approx(scores({"scores": expected}), abs=1e-4)
