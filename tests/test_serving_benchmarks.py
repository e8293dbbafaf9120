import json
import sys
from pathlib import Path

import bad_requests
import long_recording
import numpy as np
import pytest
import render
import server_process
import serving
import soak
import soundfile

from serein.train.ship import train_model

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of other processes"),
    pytest.mark.usefixtures("settings_kept"),
]


@pytest.fixture(scope="module")
def model(tone_store, tiny_recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tones"
    train_model(tone_store, tone_store.corpus(), folder, tiny_recipe)
    return folder


@pytest.fixture(scope="module")
def recordings(tones) -> Path:
    return tones.utterances[0].path.parent


def result(folder: Path, name: str) -> dict:
    document = json.loads((folder / "quick" / f"{name}.json").read_text(encoding="utf-8"))
    assert render.render([document])
    return document


def test_serving_holds_every_answer_against_predict(model, recordings, tmp_path):
    serving.main([str(model), str(recordings / "tones.csv"), "--quick", "--threads", "1", "--results", str(tmp_path)])
    found = result(tmp_path, "serving")
    assert found["answers compared"] == 16 * 2 * 2
    difference = found["goals"]["largest difference from `serein predict`"]
    assert 0 <= difference["is"] < 1e-4
    assert difference["met"]
    assert found["serving"]["one by one"]["recordings a batch"]["median"] == 1
    assert 1 < found["serving"]["8 clients at once"]["recordings a batch"]["median"] <= 8
    for way in ("one by one", "8 clients at once"):
        parts = found[f"where a request's time goes, {way}"]
        assert sum(part["share"]["median"] for part in parts.values()) == pytest.approx(1)


def test_an_answer_that_differs_is_found():
    same = [{"a": 0.25, "b": 0.75}, {"a": 0.5, "b": 0.5}]
    assert serving.largest_difference(same, same) == 0
    assert serving.largest_difference(same, [same[0], {"a": 0.5625, "b": 0.4375}]) == 0.0625
    assert serving.largest_difference(same, [same[0], {"a": 0.5, "c": 0.5}]) == float("inf")


def test_a_server_that_says_something_else_fails_the_benchmark(model, recordings, tmp_path, monkeypatch):
    goal = {"is": 0.01, "at most": 1e-4, "met": False}
    facts = {"goals": {"largest difference from `serein predict`": goal}}
    monkeypatch.setattr(serving, "compare", lambda args: facts)
    with pytest.raises(SystemExit, match="does not say"):
        serving.main([str(model), str(recordings), "--quick", "--results", str(tmp_path)])
    assert result(tmp_path, "serving")["goals"]


def test_a_server_that_does_not_start_says_why():
    started = server_process.started
    with pytest.raises(SystemExit, match="no model in here"), started(["sh", "-c", "echo no model in here"], 1):
        pass


def test_bad_requests_of_every_kind_get_the_right_answers_and_leave_nothing(model, tmp_path):
    soak.main([str(model), "--quick", "--threads", "1", "--results", str(tmp_path)])
    found = result(tmp_path, "soak")
    assert found["kinds"] >= 100
    assert found["requests"] == 2 * found["kinds"] == sum(row["requests"] for row in found["answers"])
    assert len({row["kind"] for row in found["answers"]}) == found["kinds"]
    assert all(goal["met"] for goal in found["goals"].values())


def test_an_answer_in_words():
    assert (
        bad_requests.words(server_process.Reply(413, b'{"error": {"code": "too_long", "message": ""}}'))
        == "413 too_long"
    )
    for body in (b"", b"Invalid HTTP", b"[1]", b'{"error": 1}'):
        assert bad_requests.words(server_process.Reply(400, body)) == "400"


def test_a_long_recording_is_the_recordings_one_after_another(recordings, tmp_path):
    paths = long_recording.recordings_of(recordings)[:3]
    assert sorted(paths) == sorted(set(paths) & set(long_recording.recordings_of(recordings / "tones.csv")))
    once = np.concatenate([soundfile.read(path, dtype="int16")[0] for path in paths])
    seconds = 2.5 * len(once) / 16_000
    long_recording.concatenate(paths, seconds, tmp_path / "long.wav")
    long, rate = soundfile.read(tmp_path / "long.wav", dtype="int16")
    assert rate == 16_000
    assert np.array_equal(long, np.resize(once, round(seconds * 16_000)))


def test_a_short_and_a_long_recording_are_followed_in_processes_of_their_own(model, recordings, tmp_path):
    lengths = ["--minutes", "0.1", "--hours", "0.01"]
    words = [str(model), str(recordings), *lengths, "--quick", "--threads", "1", "--results", str(tmp_path)]
    long_recording.main(words)
    found = result(tmp_path, "long_recording")
    short, long = found["timeline"]["0.1 minutes"], found["timeline"]["0.01 hours"]
    assert (short["windows"], long["windows"]) == (3, 33)  # of 6 and 36 seconds
    assert short["times real time"] == pytest.approx(6 / short["seconds"])
    grown = found["goals"]["peak memory"]["grows by"]
    assert grown == pytest.approx(long["peak memory, MiB"] / short["peak memory, MiB"])
    assert 0.5 < grown < 1.2
