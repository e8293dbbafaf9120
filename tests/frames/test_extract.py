import copy
import json
import math
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save

from serein.corpus.corpus import Corpus, Utterance
from serein.errors import AudioError, StoreError, TooShort, UsageError
from serein.frames import extract as module
from serein.frames.audio import SAMPLE_RATE, change_speed, load_audio
from serein.frames.encoder import load_encoder
from serein.frames.extract import as_stored, extract, plan_shards, pool_frames
from serein.frames.store import FrameStore, read_header, shard_path

LOGMEL = load_encoder("logmel")


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*"))}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_UTTERANCES", 10)


def test_the_store_holds_what_the_encoder_gives(tones, tone_store):
    array = tone_store.load()
    assert array.ids == tuple(utterance.id for utterance in tones)
    for index in (0, 17, 95):
        (frames,) = LOGMEL.encode([load_audio(tones.utterances[index].path)])
        stored = array.batch(torch.tensor([index])).frames[0]
        assert torch.allclose(stored, pool_frames(frames, 2), rtol=1e-3, atol=1e-3)
    assert array.frame_rate == 25.0


def test_a_store_that_stopped_continues_to_the_same_bytes(tones, tmp_path, small_shards):
    whole = extract(tones, LOGMEL, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for number in (0, 4, 9):
        shard_path(tmp_path / "part", number).unlink()
    (tmp_path / "part" / ".shard-00000.safetensors.partial").write_bytes(b"half a shard")
    with pytest.raises(StoreError, match=r"3 of 10 shards are missing.*continues"):
        FrameStore(tmp_path / "part")
    told: list[int] = []
    extract(tones, LOGMEL, tmp_path / "part", report=lambda stage, done, total, facts: told.append(done))
    assert shards(tmp_path / "part") == shards(tmp_path / "whole")
    assert told == list(range(1, 11))
    assert len(whole.ids) == 96


def test_one_broken_file_is_named_and_the_rest_is_done_and_a_mended_one_is_taken_up(tones, tmp_path, small_shards):
    folder = tmp_path / "audio"
    folder.mkdir()
    moved = []
    for utterance in tones.utterances[:20]:
        shutil.copy(utterance.path, folder)
        moved.append(replace(utterance, path=folder / utterance.path.name))
    moved[14] = replace(moved[14], path=folder / f"{'a' * 300}.wav")  # which no file system takes
    broken, gone, nowhere = moved[3], moved[12], moved[14]
    broken.path.write_bytes(b"this is no sound")
    gone.path.unlink()
    corpus = Corpus("part", tuple(moved))
    store = extract(corpus, LOGMEL, tmp_path / "store")
    assert set(store.failed) == {broken.id, gone.id, nowhere.id}
    assert len(store.ids) == 17
    assert broken.path.name in store.failed[broken.id]
    assert len(store.corpus()) == 17

    kept = shard_path(tmp_path / "store", 1).read_bytes()
    shutil.copy(tones.utterances[3].path, broken.path)
    store = extract(corpus, LOGMEL, tmp_path / "store")
    assert set(store.failed) == {gone.id, nowhere.id}
    assert shard_path(tmp_path / "store", 1).read_bytes() == kept


def test_a_recording_that_is_gone_keeps_its_frames_when_another_of_its_shard_is_mended(tones, tmp_path):
    moved = tuple(replace(u, path=tmp_path / u.path.name, audio_hash="") for u in tones.utterances[:3])
    broken, _, goes = moved
    for utterance, original in zip(moved, tones.utterances, strict=False):
        shutil.copy(original.path, utterance.path)
    broken.path.write_bytes(b"this is no sound")
    before = extract(Corpus("part", moved), LOGMEL, tmp_path / "store")
    assert set(before.failed) == {broken.id}
    goes.path.unlink()
    shutil.copy(tones.utterances[0].path, broken.path)
    after = extract(Corpus("part", moved), LOGMEL, tmp_path / "store")
    assert (after.ids, after.failed) == (tuple(u.id for u in moved), {})
    expected = extract(Corpus("whole", tones.utterances[:3]), LOGMEL, tmp_path / "expected").load()
    assert after.load().flat.equal(expected.flat)


@pytest.mark.parametrize("speed", [1.0, 0.5])
def test_a_recording_too_long_to_be_encoded_as_a_whole_costs_nothing_else(tones, tmp_path, monkeypatch, speed):
    part = Corpus("part", tones.utterances[:4])
    seconds = {utterance.id: len(load_audio(utterance.path)) / SAMPLE_RATE for utterance in part}
    longest = sorted(seconds.values())[1]
    monkeypatch.setattr(type(LOGMEL), "longest_seconds", longest)
    store = extract(part, LOGMEL, tmp_path, speed=speed)  # what counts is the recording, not what is made of it
    assert set(store.failed) == {name for name, length in seconds.items() if length > longest}
    assert len(store.failed) == 2
    assert all("cut it" in reason for reason in store.failed.values())


@pytest.mark.parametrize("settings", [{"pool": 0}, {"speed": 0.0}, {"speed": float("nan")}, {"speed": 2.5}])
def test_settings_out_of_range_are_refused_before_any_work(tones, tmp_path, settings):
    with pytest.raises(UsageError, match=r"pool is 1 or more, speed from 0\.5 to 2"):
        extract(tones, LOGMEL, tmp_path / "store", **settings)
    assert not (tmp_path / "store").exists()


def test_frames_that_do_not_fit_float16_are_refused_by_name(tones, tmp_path):
    class Loud:
        name, revision, fingerprint, layers, width, frame_rate, settings = "loud", "", "x", (0,), 80, 50.0, {}
        padded_to = 0
        longest_seconds = math.inf

        def num_frames(self, samples: int) -> int:
            return LOGMEL.num_frames(samples)

        def encode(self, waveforms):
            frames = LOGMEL.encode(waveforms)
            return [
                frame * (1e6 if len(wave) == longest else 1.0) for frame, wave in zip(frames, waveforms, strict=True)
            ]

    part = Corpus("part", tones.utterances[:5])
    longest = max(len(load_audio(utterance.path)) for utterance in part)
    store = extract(part, Loud(), tmp_path)
    assert len(store.ids) == 4
    assert all("float16 ends at 65504" in reason for reason in store.failed.values())


def test_frames_made_otherwise_are_never_mixed(tones, tmp_path):
    extract(Corpus("part", tones.utterances[:5]), LOGMEL, tmp_path)
    with pytest.raises(StoreError, match=r"pool: there 1, asked 2.*another folder"):
        extract(Corpus("part", tones.utterances[:5]), LOGMEL, tmp_path, pool=2)
    with pytest.raises(StoreError, match="corpus"):
        extract(Corpus("part", tones.utterances[:6]), LOGMEL, tmp_path)


def test_a_store_without_frames_may_be_deleted_for_other_settings(tones, tmp_path, monkeypatch):
    few = Corpus("part", tones.utterances[:5])

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(LOGMEL, "encode", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        extract(few, LOGMEL, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.csv", "store.json"]
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"pool: there 1, asked 2.*or delete this one: no frames are in it yet"):
        extract(few, LOGMEL, tmp_path, pool=2)
    assert len(extract(few, LOGMEL, tmp_path).ids) == 5
    with pytest.raises(StoreError, match=r"pool: there 1, asked 2\); give another folder with -o$"):
        extract(few, LOGMEL, tmp_path, pool=2)


def test_only_what_differs_is_told_and_briefly(tones, tmp_path):
    def other(**changed):
        encoder = copy.copy(LOGMEL)
        for name, value in changed.items():
            setattr(encoder, name, value)
        return encoder

    part = Corpus("part", tones.utterances[:2])
    extract(part, LOGMEL, tmp_path)
    for encoder, pool, said in (
        (other(name="tiny", fingerprint="f" * 64, width=8), 1, "encoder: there logmel, asked tiny"),
        (
            other(name="tiny", layers=(3,), settings={"dtype": "float32"}),
            1,
            "encoder: there logmel, asked tiny; encoder layers: there [0], asked [3]",
        ),
        (
            other(fingerprint="f" * 64),
            1,
            f"encoder fingerprint: there {LOGMEL.fingerprint[:12]}, asked ffffffffffff",
        ),
        (
            other(settings=LOGMEL.settings | {"dither": 1}),
            1,
            "encoder settings dither: there None, asked 1",
        ),
        (LOGMEL, 2, "pool: there 1, asked 2"),
    ):
        with pytest.raises(StoreError) as caught:
            extract(part, encoder, tmp_path, pool=pool)
        told = f"{tmp_path}: holds frames made with other settings ({said}); give another folder with -o"
        assert str(caught.value) == told


def test_a_store_at_another_speed_holds_the_frames_of_the_changed_waveforms(tones, tmp_path):
    part = Corpus("part", tones.utterances[:5])
    store = extract(part, LOGMEL, tmp_path, pool=2, speed=1.1)
    assert json.loads((tmp_path / "store.json").read_text())["speed"] == 1.1
    array = store.load()
    assert array.ids == tuple(utterance.id for utterance in part)
    for index, utterance in enumerate(part):
        (frames,) = LOGMEL.encode([change_speed(load_audio(utterance.path), 1.1)])
        assert array.batch(torch.tensor([index])).frames[0].equal(pool_frames(frames, 2).half().float())


def test_stores_of_two_speeds_are_never_mixed_in_either_direction(tones, tmp_path):
    part = Corpus("part", tones.utterances[:2])
    extract(part, LOGMEL, tmp_path / "as it is")
    assert "speed" not in json.loads((tmp_path / "as it is" / "store.json").read_text())
    extract(part, LOGMEL, tmp_path / "slow", speed=0.9)
    for folder, speed, said in (
        ("as it is", 0.9, "speed: there None, asked 0.9"),
        ("slow", 1.0, "speed: there 0.9, asked None"),
        ("slow", 1.1, "speed: there 0.9, asked 1.1"),
    ):
        before = shards(tmp_path / folder)
        with pytest.raises(StoreError, match=f"{said}.*another folder"):
            extract(part, LOGMEL, tmp_path / folder, speed=speed)
        assert shards(tmp_path / folder) == before


def test_a_recording_that_a_higher_speed_makes_too_short_costs_nothing_else(tones, tmp_path):
    soundfile.write(tmp_path / "click.wav", np.full(450, 0.1), 16_000)
    click = Utterance("click", tmp_path / "click.wav", "t", "angry")
    corpus = Corpus("part", (tones.utterances[0], click))
    assert extract(corpus, LOGMEL, tmp_path / "as it is").failed == {}
    for _ in range(2):  # the second time there is nothing to mend
        store = extract(corpus, LOGMEL, tmp_path / "fast", speed=2.0)
        assert store.ids == (tones.utterances[0].id,)
        assert "shorter than one frame at speed 2" in store.failed["click"]


def test_a_recording_too_short_for_the_encoder_costs_nothing_else(tones, tmp_path, monkeypatch):
    class Patient:
        name, revision, fingerprint, layers, width, frame_rate, settings = "patient", "", "x", (0,), 80, 50.0, {}
        padded_to = 0
        longest_seconds = math.inf

        def num_frames(self, samples: int) -> int:
            return LOGMEL.num_frames(samples) if samples >= 800 else 0

        def encode(self, waveforms):
            if min(map(len, waveforms)) < 800:
                raise TooShort("fewer than one frame needs")
            encoded.extend(waveforms)
            return LOGMEL.encode(waveforms)

    encoded: list[np.ndarray] = []
    soundfile.write(tmp_path / "click.wav", np.full(500, 0.1), 16_000)
    click = Utterance("click", tmp_path / "click.wav", "t", "angry")
    corpus = Corpus("part", (tones.utterances[0], click, tones.utterances[1]))
    for _ in range(2):  # the second time there is nothing to mend
        store = extract(corpus, Patient(), tmp_path / "store")
        assert store.ids == (tones.utterances[0].id, tones.utterances[1].id)
        assert "click.wav: is shorter than one frame at speed 1" in store.failed["click"]
        assert len(encoded) == 2


@pytest.fixture
def own(tmp_path, tones) -> Corpus:
    """Three recordings in a folder, and a table without lengths and hashes."""
    return copied_to(tmp_path / "one", Corpus("own", tones.utterances[:3]))


def copied_to(folder: Path, corpus: Corpus) -> Corpus:
    folder.mkdir()
    return replace(
        corpus,
        utterances=tuple(
            replace(u, seconds=None, path=Path(shutil.copy(u.path, folder / f"{number}.wav")))
            for number, u in enumerate(corpus)
        ),
    )


def test_other_recordings_under_the_same_ids_are_refused(own, tones, tmp_path):
    extract(own, LOGMEL, tmp_path / "frames")
    before = {path.name: path.read_bytes() for path in (tmp_path / "frames").iterdir()}
    moved = copied_to(tmp_path / "two", own)
    shutil.copy(tones.utterances[9].path, moved.utterances[1].path)
    with pytest.raises(
        StoreError, match=rf"frames of {own.utterances[1].id} are of .*1\.wav, not of .*two.1\.wav; give"
    ):
        extract(moved, LOGMEL, tmp_path / "frames")
    assert {path.name: path.read_bytes() for path in (tmp_path / "frames").iterdir()} == before


def test_a_copy_of_the_recordings_is_the_same_corpus(own, tmp_path):
    store = extract(own, LOGMEL, tmp_path / "frames")
    moved = copied_to(tmp_path / "two", own)
    again = extract(moved, LOGMEL, tmp_path / "frames")
    assert again.digest == store.digest
    assert [u.path.resolve() for u in again.corpus()] == [u.path for u in moved]


def test_recordings_that_moved_need_hashes(own, tmp_path):
    hashed = replace(own, utterances=tuple(replace(u, audio_hash=f"{n}") for n, u in enumerate(own)))
    for corpus in (own, hashed):
        extract(corpus, LOGMEL, tmp_path / f"frames {corpus is hashed}")
    (tmp_path / "one").rename(tmp_path / "three")

    def moved(corpus: Corpus) -> Corpus:
        return replace(corpus, utterances=tuple(replace(u, path=tmp_path / "three" / u.path.name) for u in corpus))

    assert len(extract(moved(hashed), LOGMEL, tmp_path / "frames True").ids) == 3
    with pytest.raises(
        StoreError, match=rf"frames of {own.utterances[0].id} .*if recordings only moved, .*corpus\.csv"
    ):
        extract(moved(own), LOGMEL, tmp_path / "frames False")
    moved(own).to_csv(tmp_path / "frames False" / "corpus.csv")
    assert len(extract(moved(own), LOGMEL, tmp_path / "frames False").ids) == 3


def test_a_recording_without_frames_may_be_another(own, tmp_path):
    lost, *others = own
    failing = replace(own, utterances=(replace(lost, path=tmp_path / "nowhere.wav"), *others))
    assert set(extract(failing, LOGMEL, tmp_path / "frames").failed) == {lost.id}
    store = extract(own, LOGMEL, tmp_path / "frames")
    assert len(store.ids) == 3
    assert store.load().flat.equal(extract(own, LOGMEL, tmp_path / "afresh").load().flat)


@pytest.mark.parametrize("lost", ["store.json", "corpus.csv"])
def test_frames_that_nothing_tells_of_are_not_taken(own, tmp_path, lost):
    extract(own, LOGMEL, tmp_path / "frames")
    (tmp_path / "frames" / lost).unlink()
    before = shards(tmp_path / "frames")
    with pytest.raises(StoreError, match=f"has frames but no {lost}.*give another one with -o"):
        extract(own, LOGMEL, tmp_path / "frames", pool=2)
    assert shards(tmp_path / "frames") == before
    shard_path(tmp_path / "frames", 0).unlink()
    (tmp_path / "frames" / "store.json").unlink(missing_ok=True)
    assert extract(own, LOGMEL, tmp_path / "frames", pool=2).frame_rate == 25.0


def test_a_shard_of_another_store_is_not_taken(own, tmp_path):
    extract(own, LOGMEL, tmp_path / "frames")
    extract(own, LOGMEL, tmp_path / "fast", speed=1.1)
    shutil.copy(shard_path(tmp_path / "fast", 0), shard_path(tmp_path / "frames", 0))
    with pytest.raises(StoreError, match=r"made with other settings than store\.json says"):
        extract(own, LOGMEL, tmp_path / "frames")


def test_a_changed_byte_is_found(tones, tmp_path):
    extract(Corpus("part", tones.utterances[:5]), LOGMEL, tmp_path)
    path = shard_path(tmp_path, 0)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="bytes have changed"):
        FrameStore(tmp_path).load()
    path.write_bytes(content[:100])
    with pytest.raises(StoreError, match="damaged"):
        FrameStore(tmp_path)
    for header in ({}, [], {"ids": 1, "lengths": [], "failed": {}, "checksum": ""}):
        path.write_bytes(save({"frames": torch.zeros(1)}, metadata={"serein": json.dumps(header)}))
        with pytest.raises(StoreError, match=r"shard.*is damaged .*delete it and extract again"):
            FrameStore(tmp_path)


def test_what_is_no_store_is_said(tmp_path):
    with pytest.raises(StoreError, match="not a frame store"):
        FrameStore(tmp_path)
    for damaged in ("{", "[" * 100_000):
        (tmp_path / "store.json").write_text(damaged)
        with pytest.raises(StoreError, match="cannot be read"):
            FrameStore(tmp_path)
    (tmp_path / "store.json").write_text("[]")
    with pytest.raises(StoreError, match="has format None"):
        FrameStore(tmp_path)
    (tmp_path / "store.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="format 99"):
        FrameStore(tmp_path)


def test_shards_end_at_64_utterances_or_900_seconds(tones):
    many = [replace(tones.utterances[0], id=str(n), seconds=None) for n in range(130)]
    assert [len(shard) for shard in plan_shards(many)] == [64, 64, 2]
    long = [replace(tones.utterances[0], id=str(n), seconds=400.0) for n in range(5)]
    assert [len(shard) for shard in plan_shards(long)] == [2, 2, 1]
    assert list(plan_shards([])) == []


def test_pooling_averages_groups_and_a_smaller_last_one():
    frames = torch.arange(14.0).view(7, 2, 1)
    pooled = pool_frames(frames, 3)
    assert pooled[:, 0, 0].tolist() == [2.0, 8.0, 12.0]
    assert pooled.shape == (3, 2, 1)
    assert pool_frames(frames, 1) is frames


def test_a_shard_of_nothing_but_broken_files_is_a_shard(tmp_path, tones):
    lost = replace(tones.utterances[0], path=tmp_path / "nowhere.wav")
    store = extract(Corpus("lost", (lost,)), LOGMEL, tmp_path / "store")
    assert store.ids == ()
    assert read_header(shard_path(tmp_path / "store", 0)).failed.keys() == {lost.id}
    assert store.load().flat.shape == (0, 1, 80)


def test_a_shard_that_cannot_be_written_ends_the_call(tones, tmp_path, small_shards, monkeypatch):
    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(module, "write_shard", full)
    with pytest.raises(OSError, match="no space left"):
        extract(Corpus("part", tones.utterances[:5]), LOGMEL, tmp_path)
    with pytest.raises(OSError, match="no space left"):
        extract(Corpus("part", tones.utterances[:35]), LOGMEL, tmp_path / "more")
    assert shards(tmp_path / "more") == {}


def test_the_next_shard_is_decoded_before_one_is_encoded(tones, tmp_path, small_shards, monkeypatch):
    class Waiting:
        name, revision, fingerprint, layers, width, frame_rate, settings = "waiting", "", "x", (0,), 80, 50.0, {}
        padded_to = 0
        longest_seconds = math.inf

        def num_frames(self, samples: int) -> int:
            return LOGMEL.num_frames(samples)

        def encode(self, waveforms):
            assert second_decoded.wait(30)
            return LOGMEL.encode(waveforms)

    second_decoded = threading.Event()
    decode = module._decode

    def notice(utterance, encoder, speed):
        if utterance is tones.utterances[10]:
            second_decoded.set()
        return decode(utterance, encoder, speed)

    monkeypatch.setattr(module, "_decode", notice)
    store = extract(Corpus("part", tones.utterances[:20]), Waiting(), tmp_path)
    assert store.ids == tuple(utterance.id for utterance in tones.utterances[:20])


def test_killed_extraction_continues_to_the_same_bytes(tones):
    table = tones.utterances[0].path.parent / "tones.csv"
    script = Path(__file__).parents[1] / "kill_loop.py"
    done = subprocess.run(
        [sys.executable, script, "extract", str(table), "4"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "4 kills, 4 continued to the same bytes" in done.stdout


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 7e4, -7e4])
def test_what_float16_cannot_hold_is_refused(value):
    frames = torch.full((4, 2, 3), 6e4)
    assert as_stored(frames, 2).isfinite().all()
    frames[1, 0, 2] = value
    with pytest.raises(AudioError, match="float16 ends at 65504"):
        as_stored(frames, 2)


def test_the_same_ids_with_other_hashes_are_another_corpus(tones, tmp_path):
    first, second = tones.utterances[:2]
    extract(Corpus("part", (first, second)), LOGMEL, tmp_path)
    with pytest.raises(StoreError, match="corpus hash: there"):
        extract(Corpus("part", (replace(first, audio_hash="a" * 64), second)), LOGMEL, tmp_path)


def test_no_more_is_encoded_at_once_than_allowed_with_what_the_encoder_pads(tones, tmp_path):
    together = []
    padding = copy.copy(LOGMEL)
    padding.padded_to = 10 * 16_000
    padding.encode = lambda waveforms: together.append(len(waveforms)) or LOGMEL.encode(waveforms)
    extract(Corpus("part", tones.utterances[:5]), padding, tmp_path, batch_seconds=20.0)
    assert together == [2, 2, 1]
