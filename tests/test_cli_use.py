import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from serein import cli_use
from serein.cli_use import use
from serein.corpus.corpus import Corpus
from serein.errors import AudioError, ModelError, UsageError
from serein.frames import audio
from serein.frames.store import FrameStore
from serein.model import load_model, save_model
from serein.recipe import Recipe
from serein.recognizer import EmotionRecognizer
from serein.train.ship import train_model


def serein(*arguments: object):
    done = CliRunner().invoke(use, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def model(tone_store: FrameStore, tiny_recipe: Recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), ["adapt.data=none", "finetune.epochs=2"])
    train_model(tone_store, tone_store.corpus(), folder, recipe)
    return folder


@pytest.fixture(scope="module")
def call(tones: Corpus, tmp_path_factory) -> Path:
    """Ten seconds of hums with a pause."""
    pieces = [soundfile.read(utterance.path)[0] for utterance in tones.utterances[:12]]
    samples = np.concatenate([*pieces[:6], np.zeros(32_000), *pieces[6:]])
    path = tmp_path_factory.mktemp("call") / "a call.flac"
    soundfile.write(path, samples, 16_000)
    return path


def test_predict_gives_what_the_recognizer_gives(model, tones):
    paths = [utterance.path for utterance in tones.utterances]
    recognizer = EmotionRecognizer.from_pretrained(model)
    found = json.loads(serein("predict", model, *paths, "--json").stdout)
    assert [result["path"] for result in found] == [*map(str, paths)]
    for result, path in zip(found, paths, strict=True):
        assert result["sure"] is recognizer.sure(result["scores"])
        expected = recognizer(path)
        assert [score["label"] for score in result["scores"]] == [score["label"] for score in expected]
        assert [score["score"] for score in result["scores"]] == pytest.approx(
            [score["score"] for score in expected], abs=1e-5
        )


def test_one_broken_recording_costs_no_other(model, tones, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF and nothing else")
    good = [utterance.path for utterance in tones.utterances[:3]]
    done = serein("predict", model, good[0], tmp_path / "broken.wav", *good[1:], "--json")
    assert done.exit_code == 3
    assert done.stderr.startswith("failed: ")
    found = json.loads(done.stdout)
    assert ["error" in result for result in found] == [False, True, False, False]
    assert "broken.wav" in found[1]["error"]
    (alone,) = json.loads(serein("predict", model, good[0], "--json").stdout)
    assert [score["label"] for score in found[0]["scores"]] == [score["label"] for score in alone["scores"]]
    for together, single in zip(found[0]["scores"], alone["scores"], strict=True):
        assert together["score"] == pytest.approx(single["score"], abs=1e-5)  # sums of a batch have another order


def test_recordings_are_decoded_once_and_judged_by_the_minute(model, tones, tmp_path, monkeypatch):
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    paths = [utterance.path for utterance in tones.utterances[:20]]
    paths.insert(7, tmp_path / "broken.wav")
    expected = json.loads(serein("predict", model, *paths, "--json").stdout)
    decoded, groups = [], []
    decode, judge = audio.decode, EmotionRecognizer.probabilities_of
    monkeypatch.setattr(audio, "decode", lambda path: decoded.append(path) or decode(path))

    def watched(self, recordings, **how):
        groups.append([len(recording) for recording in recordings])
        return judge(self, recordings, **how)

    monkeypatch.setattr(EmotionRecognizer, "probabilities_of", watched)
    monkeypatch.setattr(cli_use, "TOGETHER", 2)
    found = json.loads(serein("predict", model, *paths, "--json").stdout)
    assert decoded == paths
    assert sum(map(len, groups)) == 20
    assert all(sum(group) <= 32_000 for group in groups)
    assert len(groups) < 12
    assert [result["path"] for result in found] == [*map(str, paths)]
    for result, other in zip(found, expected, strict=True):
        assert ("error" in result) == ("error" in other)
        if "scores" in result:
            assert result["scores"][0]["label"] == other["scores"][0]["label"]
            assert result["scores"][0]["score"] == pytest.approx(other["scores"][0]["score"], abs=1e-5)


def test_one_that_the_model_cannot_take_costs_no_other(model, tones, tmp_path, monkeypatch):
    paths = [utterance.path for utterance in tones.utterances[:3]]
    bad = len(audio.load_audio(paths[1]))
    judge = EmotionRecognizer.probabilities_of

    def moody(self, recordings, **how):
        if any(len(recording) == bad for recording in recordings):
            raise AudioError("frames reach inf")
        return judge(self, recordings, **how)

    monkeypatch.setattr(EmotionRecognizer, "probabilities_of", moody)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    done = serein("predict", model, *paths, tmp_path / "broken.wav", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 3
    assert ["error" in result for result in found] == [False, True, False, True]
    assert found[1]["error"] == f"{paths[1]}: frames reach inf"


def test_a_model_that_is_not_sure_says_so(model, tones, tmp_path):
    module, config = load_model(model)
    save_model(tmp_path, module, config.model_copy(update={"abstain_below": 0.999}))
    path = tones.utterances[0].path
    (result,) = json.loads(serein("predict", tmp_path, path, "--json").stdout)
    assert result["sure"] is False
    assert len(result["scores"]) == 4
    assert re.match(rf"{re.escape(str(path))}  unsure  \w+ 0\.\d\d\d  ", serein("predict", tmp_path, path).stdout)
    save_model(tmp_path, module, config.model_copy(update={"abstain_below": 0.0}))
    (result,) = json.loads(serein("predict", tmp_path, path, "--json").stdout)
    assert result["sure"] is True
    assert "unsure" not in serein("predict", tmp_path, path).stdout


def test_the_timeline_is_written_in_every_format(model, call, tmp_path):
    expected = EmotionRecognizer.from_pretrained(model).timeline(call, 2.0, 0.5)
    assert "silence" in {segment.label for segment in expected.segments()}
    for layout, text in {
        "csv": expected.to_csv(),
        "json": expected.to_json(),
        "audacity": expected.to_audacity(),
        "rttm": expected.to_rttm("a call"),
    }.items():
        output = tmp_path / "new" / f"call.{layout}"
        command = ["timeline", model, call, "--window", 2, "--hop", 0.5, "--format", layout]
        done = serein(*command, "-o", output)
        assert (done.exit_code, done.stdout) == (0, "")
        assert output.read_text(encoding="utf-8") == text
        assert serein(*command).stdout == text


def test_a_recording_whose_name_is_not_utf8_has_its_lines(model, call, tmp_path):
    recording = tmp_path / os.fsdecode(b"caf\xe9.flac")
    recording.write_bytes(call.read_bytes())
    serein("timeline", model, recording, "--format", "rttm", "-o", tmp_path / "found.rttm")
    lines = (tmp_path / "found.rttm").read_text(encoding="utf-8").splitlines()
    assert lines
    assert all(line.startswith(r"SPEAKER caf\xe9 1 ") for line in lines)


def test_a_timeline_is_not_written_over_its_recording(model, call, tmp_path):
    recording = tmp_path / "call.flac"
    recording.write_bytes(call.read_bytes())
    with pytest.raises(UsageError, match="is what is read"):
        serein("timeline", model, recording, "-o", recording)
    assert recording.read_bytes() == call.read_bytes()


def test_the_timeline_tells_of_windows_that_could_not_be_judged(model, call, monkeypatch):
    judge = EmotionRecognizer.probabilities_of
    monkeypatch.setattr(EmotionRecognizer, "probabilities_of", lambda self, pieces: picky(judge(self, pieces), pieces))

    def picky(rows, pieces):
        if any(not piece.any() for piece in pieces):
            raise AudioError("frames reach inf")
        return rows

    done = serein("timeline", model, call, "--window", 1, "--hop", 1)
    assert done.stderr == "warning: 1 of 11 windows could not be judged, and count as silence (frames reach inf)\n"
    assert len(done.stdout.splitlines()) == 12
    monkeypatch.setattr(EmotionRecognizer, "probabilities_of", lambda self, pieces: picky(None, [np.zeros(1)]))
    with pytest.raises(AudioError, match="frames reach inf"):
        serein("timeline", model, call)


def test_the_timeline_says_what_is_wrong(model, call, tmp_path):
    with pytest.raises(AudioError, match=r"absent\.wav: does not exist"):
        serein("timeline", model, tmp_path / "absent.wav")
    with pytest.raises(UsageError, match="a hop is no longer"):
        serein("timeline", model, call, "--hop", 5)
    assert serein("timeline", model, call, "--format", "mp3").exit_code == 2


def test_both_take_the_encoder_from_elsewhere(model, call, tmp_path):
    module, config = load_model(model)
    lost = with_encoder(config, "/nowhere/encoder")
    save_model(tmp_path, module, lost)
    for command in (["predict", tmp_path, call], ["timeline", tmp_path, call]):
        with pytest.raises(ModelError, match="nowhere"):
            serein(*command)
        assert serein(*command, "--encoder", "logmel").exit_code == 0


def with_encoder(config, name):
    return config.model_copy(update={"encoder": config.encoder.model_copy(update={"name": name})})


def test_options_that_an_onnx_model_cannot_follow_are_refused(tmp_path):
    for options in (["--encoder", "x"], ["--device", "cuda"], ["--revision", "main"]):
        with pytest.raises(UsageError, match=r"model\.onnx: is used as it is"):
            serein("predict", tmp_path / "model.onnx", "a.wav", *options)
