import gzip
import io
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

Sound = Callable[..., bytes]


def with_samples(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV", coding: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=coding)
    return file.getvalue()


def patched(data: bytes, at: int, layout: str, value: int) -> bytes:
    return data[:at] + struct.pack(layout, value) + data[at + struct.calcsize(layout) :]


def flipped(data: bytes, start: float, end: float) -> bytes:
    first, last = int(len(data) * start), int(len(data) * end)
    return data[:first] + bytes(byte ^ 0x5A for byte in data[first:last]) + data[last:]


def spiked(value: float) -> bytes:
    samples = np.zeros(16_000, dtype=np.float32)
    samples[8_000] = value
    return with_samples(samples)


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", data)
    return file.getvalue()


def in_wav(sound: Sound, payload: bytes) -> bytes:
    header = bytearray(sound(0.1)[:44])
    struct.pack_into("<I", header, 4, len(payload) + 36)
    struct.pack_into("<I", header, 40, len(payload))
    return bytes(header) + payload


NOISE = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
MP3, OGG = {"kind": "MP3"}, {"kind": "OGG", "coding": "VORBIS"}
UNSUPPORTED, CORRUPT = (415, "unsupported_audio"), (422, "corrupt_audio")
BODIES: dict[str, tuple[Callable[[Sound], bytes], tuple[int, str]]] = {
    "nothing": (lambda sound: b"", UNSUPPORTED),
    "one byte": (lambda sound: b"R", UNSUPPORTED),
    "noise": (lambda sound: NOISE, UNSUPPORTED),
    "zeros": (lambda sound: bytes(5000), UNSUPPORTED),
    "a web page": (lambda sound: b"<!doctype html><title>hello</title>" * 20, UNSUPPORTED),
    "a picture": (lambda sound: b"\x89PNG\r\n\x1a\n" + NOISE, UNSUPPORTED),
    "M4A": (lambda sound: b"\0\0\0\x20ftypM4A \0\0\0\0" + NOISE, UNSUPPORTED),
    "WebM": (lambda sound: b"\x1aE\xdf\xa3" + NOISE, UNSUPPORTED),
    "AMR": (lambda sound: b"#!AMR\n" + NOISE, UNSUPPORTED),
    "AAC": (lambda sound: b"\xff\xf1\x50\x80" + NOISE, UNSUPPORTED),
    "MIDI": (lambda sound: b"MThd\0\0\0\6\0\1" + NOISE, UNSUPPORTED),
    "a gzipped WAV": (lambda sound: gzip.compress(sound()), UNSUPPORTED),
    "a zipped WAV": (lambda sound: zipped(sound()), UNSUPPORTED),
    "junk before a WAV": (lambda sound: b"junk" + sound(), UNSUPPORTED),
    "samples without a header": (lambda sound: sound()[44:], UNSUPPORTED),
    "RIFF that is no WAVE": (lambda sound: b"RIFF\x24\0\0\0AVI " + NOISE, UNSUPPORTED),
    "an ID3 tag alone": (lambda sound: b"ID3\4\0\0\0\0\0\x7f" + bytes(127), UNSUPPORTED),
    "WAV cut in its header": (lambda sound: sound()[:30], CORRUPT),
    "WAV cut in its sound": (lambda sound: sound()[:9000], CORRUPT),
    "a size that lies": (lambda sound: patched(sound(), 40, "<I", 2_000_000_000), CORRUPT),
    "no channels": (lambda sound: patched(sound(), 22, "<H", 0), CORRUPT),
    "a thousand channels": (lambda sound: patched(sound(), 22, "<H", 1000), CORRUPT),
    "33 channels": (lambda sound: sound(channels=33), CORRUPT),
    "a codec nobody knows": (lambda sound: patched(sound(), 20, "<H", 0x1234), CORRUPT),
    "rate 0": (lambda sound: patched(sound(), 24, "<I", 0), CORRUPT),
    "rate 1 kHz": (lambda sound: sound(2.0, rate=1000), CORRUPT),
    "rate 2^31": (lambda sound: patched(sound(), 24, "<I", 2**31 - 1), CORRUPT),
    "AIFF cut": (lambda sound: sound(kind="AIFF")[:9000], CORRUPT),
    "CAF cut": (lambda sound: sound(kind="CAF")[:9000], CORRUPT),
    "FLAC cut": (lambda sound: (data := sound(2.0, kind="FLAC"))[: len(data) // 2], CORRUPT),
    "FLAC flipped": (lambda sound: flipped(sound(2.0, kind="FLAC"), 0.4, 0.6), CORRUPT),
    "Ogg cut": (lambda sound: (data := sound(3.0, **OGG))[: len(data) // 2], CORRUPT),
    "Ogg flipped": (lambda sound: flipped(sound(3.0, **OGG), 0.4, 0.6), CORRUPT),
    "Opus flipped": (lambda sound: flipped(sound(3.0, kind="OGG", coding="OPUS"), 0.5, 0.6), CORRUPT),
    "MP3 cut": (lambda sound: (data := sound(3.0, **MP3))[: len(data) // 2], CORRUPT),
    "MP3 flipped": (lambda sound: flipped(sound(3.0, **MP3), 0.3, 0.6), CORRUPT),
    "MP3 behind a WAV header": (lambda sound: in_wav(sound, sound(2.0, **MP3)), CORRUPT),
    "FLAC behind a WAV header": (lambda sound: in_wav(sound, sound(2.0, kind="FLAC")), CORRUPT),
    "no samples": (lambda sound: sound(0.0), (422, "too_short")),
    "a sample too few": (lambda sound: sound(399 / 16_000), (422, "too_short")),
    "a number that is none": (lambda sound: spiked(np.nan), (422, "non_finite_audio")),
    "infinity": (lambda sound: spiked(np.inf), (422, "non_finite_audio")),
    "a second too long": (lambda sound: sound(61.0), (413, "too_long")),
    "an hour in a small FLAC": (
        lambda sound: with_samples(np.zeros(3600 * 8000, np.int16), 8000, "FLAC", "PCM_16"),
        (413, "too_long"),
    ),
    "too many bytes": (lambda sound: bytes(2_000_001), (413, "too_large")),
}


def told(reply) -> tuple[int, str]:
    error = reply.json()["error"]
    assert error.keys() == {"code", "message"}
    assert len(error["message"]) > 20
    assert "these bytes" not in error["message"]
    return reply.status_code, error["code"]


@pytest.mark.parametrize("route", ["/v1/predict", "/v1/timeline"])
@pytest.mark.parametrize("kind", BODIES)
def test_a_bad_body_gets_its_status_and_code(client, sound, kind, route):
    make, expected = BODIES[kind]
    assert told(client.post(route, content=make(sound))) == expected
    assert client.app.state.service.requests.taken == 0


@pytest.mark.parametrize(("value", "peak"), [(1e30, "1e+30"), (9.0, "9")])
def test_an_absurd_peak_is_mended_and_told(client, value, peak):
    reply = client.post("/v1/predict", content=spiked(value))
    assert reply.status_code == 200
    assert reply.json()["warnings"] == [f"the peak is {peak} where full scale is 1; scaled to 1"]


TYPES = ["text/html", "text/plain", "application/json", "video/mp4", "audio", "multipart/mixed"]


@pytest.mark.parametrize("kind", TYPES)
def test_what_calls_itself_something_else_is_not_looked_at(client, sound, kind):
    reply = client.post("/v1/predict", content=sound(), headers={"content-type": kind})
    assert told(reply) == (415, "unsupported_type")


def part(name: str = "file", filename: str | None = "a.wav", body: bytes = b"", headers: bytes = b"") -> bytes:
    file = f'; filename="{filename}"' if filename is not None else ""
    return (
        f'--xx\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'.encode() + headers + b"\r\n" + body + b"\r\n"
    )


END = b"--xx--\r\n"
FORMS: dict[str, tuple[Callable[[Sound], bytes], str]] = {
    "no boundary": (lambda sound: part(body=sound()) + END, "multipart/form-data"),
    "a boundary of a kilobyte": (lambda sound: part(body=sound()) + END, f"multipart/form-data; boundary={'x' * 1000}"),
    "another boundary": (lambda sound: part(body=sound()) + END, "multipart/form-data; boundary=yy"),
    "nothing": (lambda sound: b"", ""),
    "no part": (lambda sound: END, ""),
    "cut": (lambda sound: part(body=sound())[:-100], ""),
    "two files": (lambda sound: part(body=sound()) * 2 + END, ""),
    "a thousand files": (lambda sound: part(body=b"x") * 1000 + END, ""),
    "a thousand files without a file's name": (lambda sound: part(filename=None, body=b"x") * 1000 + END, ""),
    "a thousand fields": (lambda sound: part("x", None, b"x") * 1000 + END, ""),
    "a field of another name": (lambda sound: part("audio", None, sound()) + END, ""),
    "a file of another name beside the file": (lambda sound: part(body=sound()) + part("audio", body=b"x") + END, ""),
    "a thousand fields, then two files": (
        lambda sound: part("x", None, b"x") * 1000 + part(body=sound()) * 2 + END,
        "",
    ),
    "a second file without a file's name": (lambda sound: part(body=sound()) + part(filename=None) + END, ""),
    "a parameter": (lambda sound: part("top_k", None, b"1") + part(body=sound()) + END, ""),
    "a parameter after the file": (lambda sound: part(body=sound()) + part("hop", None, b"1") + END, ""),
    "a file of another name": (lambda sound: part("audio", body=sound()) + END, ""),
    "a part without a name": (lambda sound: b"--xx\r\nContent-Type: audio/wav\r\n\r\n" + sound() + b"\r\n" + END, ""),
    "a hundred headers": (lambda sound: part(body=sound(), headers=b"X: y\r\n" * 100) + END, ""),
    "a header without end": (lambda sound: part(headers=b"X: " + b"y" * 100_000 + b"\r\n") + END, ""),
}


@pytest.mark.parametrize("kind", FORMS)
def test_multipart_that_is_not_one_file_is_refused(client, sound, kind):
    make, content_type = FORMS[kind]
    headers = {"content-type": content_type or "multipart/form-data; boundary=xx"}
    assert told(client.post("/v1/predict", content=make(sound), headers=headers)) == (400, "bad_multipart")


@pytest.mark.parametrize("called", ["", "; filename*=UTF-8''J%C3%BCrgen.wav", '; filename=""'])
def test_the_part_is_the_file_whatever_the_client_says_it_is_called(client, sound, called):
    head = f'--xx\r\nContent-Disposition: form-data; name="file"{called}\r\n\r\n'.encode()
    headers = {"content-type": "multipart/form-data; boundary=xx"}
    reply = client.post("/v1/predict", content=head + sound() + b"\r\n" + END, headers=headers)
    assert reply.status_code == 200
    assert reply.json() == client.post("/v1/predict", content=sound()).json()


def test_fields_beside_the_file_are_left_out(client, sound):
    plain = client.post("/v1/predict", content=sound())
    sent = {"model": "whisper-1", "language": "en"}
    assert client.post("/v1/predict", data=sent, files={"file": ("a.wav", sound())}).json() == plain.json()


def test_a_body_may_have_sixteen_parts(client, sound):
    headers = {"content-type": "multipart/form-data; boundary=xx"}
    for fields, status in ((15, 200), (16, 400)):
        body = part("x", None, b"x") * fields + part(body=sound()) + END
        reply = client.post("/v1/predict", content=body, headers=headers)
        assert reply.status_code == status
    assert told(reply) == (400, "bad_multipart")
    assert "16 parts" in reply.json()["error"]["message"]


def test_a_parameter_among_the_fields_is_told_where_it_belongs(client, sound):
    reply = client.post("/v1/predict", data={"top_k": "1"}, files={"file": ("a.wav", sound())})
    assert reply.json()["error"]["message"] == "`top_k` goes into the address: ?top_k=..."


def test_a_file_in_multipart_is_judged_as_strictly(client, sound):
    assert told(client.post("/v1/predict", files={"file": ("a.wav", b"no audio")})) == (415, "unsupported_audio")
    assert told(client.post("/v1/predict", files={"file": ("a.wav", sound(61.0))})) == (413, "too_long")
    assert told(client.post("/v1/predict", files={"file": ("a.wav", bytes(3_000_000))})) == (413, "too_large")


QUERIES = [
    "/v1/predict?top_k=0",
    "/v1/predict?top_k=-3",
    "/v1/predict?top_k=1001",
    "/v1/predict?top_k=two",
    "/v1/predict?top_k=",
    "/v1/predict?window=4",
    "/v1/timeline?window=0.4",
    "/v1/timeline?window=31",
    "/v1/timeline?window=nan",
    "/v1/timeline?window=1e999",
    "/v1/timeline?hop=0",
    "/v1/timeline?hop=0.05",
    "/v1/timeline?hop=-inf",
    "/v1/timeline?window=2&hop=3",
    "/v1/timeline?window=30&hop=0.1",
    "/v1/timeline?format=xml",
    "/v1/timeline?url=http://169.254.169.254/",
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_out_of_bounds_is_refused(client, sound, query):
    assert told(client.post(query, content=sound())) == (422, "bad_query")


def test_wrong_methods_and_addresses_are_told_apart(client):
    reply = client.get("/v1/predict")
    assert told(reply) == (405, "wrong_method")
    assert reply.headers["allow"] == "POST"
    assert told(client.post("/healthz")) == (405, "wrong_method")
    assert told(client.post("/v1/predict/")) == (404, "not_found")
    assert told(client.get("/v2/predict")) == (404, "not_found")
