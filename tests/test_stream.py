import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from serein import streaming
from serein.errors import AudioError, NonFiniteAudio, TooShort, UsageError
from serein.frames.windows import plan_windows
from serein.streaming import EmotionStream
from serein.timeline import QUIET

SOUND = (0.1 * np.random.default_rng(0).standard_normal(60_000)).astype(np.float32)
SOUND[20_000:33_000] = 0


def judged(pieces):
    """Depends on every sample and on its place."""
    sums = [float(np.dot(piece, np.arange(len(piece)) % 7) / len(piece)) for piece in pieces]
    return [[value, 1 - value] for value in sums]


def stream(window=0.5, hop=0.25, rate=16_000, judge=judged, silent=QUIET):
    return EmotionStream(judge, ("a", "b"), window, hop, rate=rate, silent=silent)


def fed(samples, sizes, **how):
    """All windows, and the timeline, of samples fed in chunks of these sizes, over and over."""
    running = stream(**how)
    windows, start = [], 0
    while start < len(samples):
        for size in sizes:
            windows += running.feed(samples[start : start + size])
            start += size
    windows += running.finish()
    assert running.finish() == []
    return windows, running.timeline()


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 9_000), min_size=1, max_size=5),
    st.integers(0, 60_000),
    st.sampled_from([(0.5, 0.25), (0.5, 0.5), (0.3, 0.07), (4.0, 1.0)]),
    st.sampled_from([8_000, 16_000, 44_100, 48_000]),
)
def test_chunks_of_any_size_give_the_windows_of_the_whole(sizes, total, lengths, rate):
    window, hop = lengths
    windows, timeline = fed(SOUND[:total], sizes, window=window, hop=hop, rate=rate)
    whole = SOUND[:0] if total == 0 else soxr.resample(SOUND[:total], rate, 16_000, quality="HQ")
    planned = plan_windows(len(whole), round(window * 16_000), round(hop * 16_000))
    assert [(w.start, w.end) for w in windows] == [(start / 16_000, end / 16_000) for start, end in planned]
    for window_, (start, end) in zip(windows, planned, strict=True):
        assert list(window_.scores) == pytest.approx(judged([whole[start:end]])[0], abs=1e-6)
        assert window_.silent == QUIET(whole[start:end])
    assert timeline.windows == tuple(windows)
    assert timeline.seconds == len(whole) / 16_000
    cells = range(0, len(whole), round(hop * 16_000))
    assert timeline.quiet == tuple(QUIET(whole[c : c + round(hop * 16_000)]) for c in cells)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 384_000])
@pytest.mark.parametrize("chunk", [0.01, 0.033])
def test_no_window_comes_later_than_the_latency_allows(rate, chunk):
    running = stream(rate=rate)
    held_back = running.latency - 0.25
    assert held_back == (0 if rate == 16_000 else pytest.approx(0.15, abs=0.12))
    size = round(chunk * rate)
    noise = np.random.default_rng(1).standard_normal(3 * rate).astype(np.float32)
    answered = 0
    for start in range(0, len(noise), size):
        heard = min(start + size, len(noise)) / rate
        for window in running.feed(noise[start : start + size]):
            answered += 1
            assert heard - window.end < held_back + size / rate + 1e-3
    assert answered >= 9


def test_the_delays_that_the_docstring_names():
    assert [round(stream(rate=rate).latency - 0.25, 3) for rate in (16_000, 48_000, 8_000)] == [0, 0.037, 0.116]


def test_at_16_khz_a_window_is_answered_with_its_last_sample():
    running = stream()
    assert running.feed(SOUND[:7_999]) == []
    (first,) = running.feed(SOUND[7_999:8_000])
    assert (first.start, first.end) == (0.0, 0.5)
    assert running.feed(SOUND[8_000:11_999]) == []
    assert len(running.feed(SOUND[11_999:12_000])) == 1
    assert running.finish() == []


def test_the_timeline_so_far_holds_all_that_arrived():
    running = stream()
    running.feed(SOUND[:13_000])
    so_far = running.timeline()
    assert len(so_far.windows) == 2
    assert so_far.seconds == 13_000 / 16_000
    assert so_far.quiet == (False,) * 4
    assert so_far.segments()[-1].end == pytest.approx(0.75)
    assert running.timeline() == so_far


def test_channels_are_averaged_and_doubles_are_taken():
    windows, _ = fed(SOUND, [5_000])
    stereo = np.stack([2 * SOUND, np.zeros_like(SOUND)], axis=1).astype(np.float64)
    again, _ = fed(stereo, [5_000])
    for one, other in zip(windows, again, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-6)


def test_what_is_no_sound_is_refused_and_left_out():
    running = stream()
    running.feed(SOUND[:4_000])
    for chunk, error, said in (
        (np.zeros(100, dtype=np.int16), AudioError, "are int16, not floats; divide integers by full scale"),
        (np.zeros(100, dtype=np.complex64), AudioError, "are complex64, not floats"),
        (np.array([0.0, np.inf]), NonFiniteAudio, "not finite"),
        (np.array([[np.inf, -np.inf]]), NonFiniteAudio, "not finite"),
        (np.array([1e300]), NonFiniteAudio, "not finite"),
        (np.zeros((2, 2, 2)), AudioError, "shape"),
        (np.zeros((2, 0)), AudioError, "shape"),
        (np.zeros((2, 4_000)), AudioError, "transpose"),
        (np.array([0.0, -8.01]), AudioError, r"reach 8\.01; floats whose full scale is 1 are wanted"),
        (np.array([[1e30, -1e30]]), AudioError, "full scale"),
    ):
        with pytest.raises(error, match=said):
            running.feed(chunk)
    assert running.feed(np.zeros(0)) == []
    (window,) = running.feed(SOUND[4_000:8_000])
    assert list(window.scores) == pytest.approx(judged([SOUND[:8_000]])[0], abs=1e-6)


def test_after_a_detector_failed_the_same_windows_are_judged_again():
    asked = []

    def moody(samples):
        asked.append(len(samples))
        if len(asked) == 2:
            raise RuntimeError("no detector")
        return False

    running = stream(silent=moody)
    with pytest.raises(RuntimeError, match="no detector"):
        running.feed(SOUND[:9_000])
    running.feed(SOUND[9_000:])
    running.finish()
    assert running.timeline() == fed(SOUND, [9_000], silent=lambda samples: False)[1]


def test_after_a_judge_failed_the_same_windows_are_judged_again():
    broken = [True]

    def moody(pieces):
        if broken:
            raise RuntimeError("out of memory")
        return judged(pieces)

    running = stream(judge=moody)
    with pytest.raises(RuntimeError, match="out of memory"):
        running.feed(SOUND[:9_000])
    broken.clear()
    windows = running.feed(SOUND[9_000:12_000])
    assert windows == fed(SOUND[:12_000], [12_000])[0]


def test_after_an_error_neither_sound_nor_windows_are_lost():
    fine = iter([True, False])

    def moody(pieces):
        if not next(fine, True):
            raise RuntimeError("out of memory")
        return judged(pieces)

    long = np.tile(SOUND, 60)  # 225 s: four blocks, of which the second one fails
    expected, timeline = fed(long, [len(long)], window=4.0, hop=1.0)
    running = stream(window=4.0, hop=1.0, judge=moody)
    with pytest.raises(RuntimeError, match="out of memory"):
        running.feed(long)
    windows = running.feed(long[:0])
    assert windows == expected[:15]  # the first of the groups of a minute's windows
    windows += running.finish()
    assert windows == expected
    assert running.timeline() == timeline


def refusing(*refused):
    """A judge that cannot take pieces that begin with these samples of SOUND, and the sizes of its groups."""
    groups = []

    def judge(pieces):
        groups.append(len(pieces))
        if any(piece[0] in SOUND[list(refused)] for piece in pieces):
            raise TooShort("too short at this speed")
        return judged(pieces)

    return judge, groups


@pytest.mark.parametrize("sizes", [[60_000], [5_000]])
def test_a_window_that_the_model_cannot_take_is_silent_and_costs_the_others_nothing(sizes):
    expected, whole = fed(SOUND, sizes)
    judge, _ = refusing(4_000, 12_000, 52_000)  # the last one is cut at the end
    windows, timeline = fed(SOUND, sizes, judge=judge)
    assert len(windows) == len(expected) == 14
    for number, (found, other) in enumerate(zip(windows, expected, strict=True)):
        if number in (1, 3, 13):
            assert found == replace(other, scores=(0.5, 0.5), silent=True)
        else:
            assert found == other
    assert timeline.windows == tuple(windows)
    assert timeline.quiet == whole.quiet


def test_windows_are_judged_by_halves_only_where_one_is_refused():
    judge, groups = refusing(4_000)
    running = stream(judge=judge)
    running.feed(SOUND[:24_000])
    assert groups == [5, 2, 1, 1, 3]
    running.feed(SOUND[24_000:36_000])
    assert groups[5:] == [3]


def test_the_timeline_says_how_many_windows_were_refused():
    judge, _ = refusing(4_000, 12_000)
    running = stream(judge=judge)
    running.feed(SOUND[:4_000])
    assert running.timeline().warnings == ()
    running.feed(SOUND[4_000:])
    running.finish()
    said = "2 of 14 windows could not be judged, and count as silence (too short at this speed)"
    assert running.timeline().warnings == (said,)
    assert stream(judge=judge).follow([SOUND]).warnings == (said,)


def test_where_every_window_was_refused_the_end_is_an_error_and_not_silence():
    def judge(pieces):
        raise TooShort("too short at this speed")

    running = stream(judge=judge)
    assert [window.silent for window in running.feed(SOUND)] == [True] * 14
    for _ in range(2):
        with pytest.raises(TooShort, match=r"^too short at this speed$"):
            running.finish()
    with pytest.raises(TooShort):
        stream(judge=judge).follow([SOUND])


def test_a_group_that_fails_later_counts_no_refused_window_twice():
    fine = iter([False, True])

    def judge(pieces):
        if any(piece[0] == SOUND[4_000] for piece in pieces):
            raise TooShort("too short at this speed")
        if len(pieces) == 3 and not next(fine):
            raise RuntimeError("out of memory")
        return judged(pieces)

    running = stream(judge=judge)
    with pytest.raises(RuntimeError, match="out of memory"):
        running.feed(SOUND[:24_000])
    running.feed(SOUND[24_000:])
    running.finish()
    assert running.timeline().warnings[0].startswith("1 of 14 windows ")


def test_a_finish_that_failed_can_be_called_again():
    broken = [True]

    def moody(pieces):
        if broken:
            raise RuntimeError("out of memory")
        return judged(pieces)

    for rate in (16_000, 44_100):
        expected, timeline = fed(SOUND[:20_000], [20_000], window=4.0, hop=1.0, rate=rate)
        assert len(expected) == 1
        broken.append(True)
        running = stream(window=4.0, hop=1.0, rate=rate, judge=moody)
        assert running.feed(SOUND[:20_000]) == []
        for _ in range(2):
            with pytest.raises(RuntimeError, match="out of memory"):
                running.finish()
        with pytest.raises(UsageError, match="finished"):
            running.feed(SOUND)
        broken.clear()
        assert running.finish() == expected
        assert running.finish() == []
        assert running.timeline() == timeline


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_however_much_is_fed_at_once_a_minute_is_judged_at_a_time(rate):
    groups = []

    def watched(pieces):
        groups.append(len(pieces))
        return judged(pieces)

    long = np.tile(SOUND, 60)
    fed(long, [len(long)], window=4.0, hop=1.0, rate=rate, judge=watched)
    assert max(groups) == 60 / 4
    assert sum(groups) == len(long) / rate - 3
    followed = stream(window=4.0, hop=1.0, rate=rate, judge=watched).follow([long[:100_000], long[100_000:]])
    assert followed == fed(long, [len(long)], window=4.0, hop=1.0, rate=rate)[1]
    assert max(groups) == 60 / 4


def test_windows_that_overlap_much_and_long_ones_are_judged_a_minute_at_a_time():
    seconds = []

    def watched(pieces):
        seconds.append(sum(map(len, pieces)) / 16_000)
        return judged(pieces)

    long = np.tile(SOUND, 30)
    stream(window=4.0, hop=0.1, judge=watched).follow([long])
    assert (max(seconds), len(seconds)) == (60.0, 73)
    seconds.clear()
    stream(window=70.0, hop=10.0, judge=watched).follow([long])
    assert seconds == [70.0] * 5 + [62.5]


def test_a_recording_that_was_mended_may_overshoot():
    loud = np.full(8_000, 8.5, dtype=np.float32)
    assert len(stream().follow([loud]).windows) == 1
    with pytest.raises(AudioError, match=r"reach 8\.5"):
        stream().feed(loud)


def test_what_a_resampler_holds_back_is_tried_once_a_rate(monkeypatch):
    made = []
    real = streaming._resampler
    monkeypatch.setattr(streaming, "_resampler", lambda rate: made.append(rate) or real(rate))
    latencies = {stream(rate=12_345).latency for _ in range(3)}
    assert len(latencies) == 1
    assert len(made) == 4


def test_what_is_fed_is_not_copied_again_with_each_chunk(monkeypatch):
    copied, join = [], np.concatenate
    monkeypatch.setattr(np, "concatenate", lambda pieces: copied.append(sum(map(len, pieces))) or join(pieces))
    running = stream(window=3.0, hop=1.0)
    for start in range(0, 48_000, 160):
        running.feed(SOUND[start : start + 160])
    assert sum(copied) < 4 * 48_000


@pytest.mark.parametrize("rate", [16_000, 384_000])
def test_tiny_chunks_are_held_in_few_pieces(monkeypatch, rate):
    monkeypatch.setattr(streaming, "MOST_PIECES", 20)
    running = stream(window=3.0, hop=1.0, rate=rate)
    for sample in range(500):
        running.feed(SOUND[sample : sample + 1])
    assert len(running._held) <= 21
    assert sum(map(len, running._held)) == running._arrived


def test_a_whole_rate_may_be_a_float():
    running = stream(rate=44_100.0)
    assert running.latency == stream(rate=44_100).latency
    with pytest.raises(AudioError, match="give the samples' own rate, a whole number"):
        stream(rate=44_100.5)


def test_nothing_can_be_fed_after_the_end():
    running = stream()
    running.finish()
    with pytest.raises(UsageError, match="finished"):
        running.feed(SOUND)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"rate": 3_999}, AudioError),
        ({"rate": 384_001}, AudioError),
        ({"window": 0.02, "hop": 0.02}, UsageError),
        ({"window": 1.0, "hop": 1.1}, UsageError),
        ({"hop": 0.0}, UsageError),
        ({"hop": -1.0}, UsageError),
        ({"window": float("nan")}, UsageError),
        ({"window": float("inf")}, UsageError),
        ({"hop": float("nan")}, UsageError),
    ],
)
def test_what_cannot_be_is_refused(how, error):
    with pytest.raises(error):
        stream(**how)


def test_a_detector_of_ones_own_decides_what_is_silent():
    windows, timeline = fed(SOUND, [8_000], silent=lambda samples: bool(samples[0] > 0))
    assert [window.silent for window in windows] == [bool(SOUND[round(w.start * 16_000)] > 0) for w in windows]
    assert timeline.quiet == tuple(bool(SOUND[cell] > 0) for cell in range(0, 60_000, 4_000))
    assert {a != b for a, b in pairwise(timeline.quiet)} == {True, False}


def test_a_detector_may_answer_as_numpy_does():
    windows, timeline = fed(SOUND, [8_000], silent=lambda samples: samples[0] > 0)
    assert {type(window.silent) for window in windows} == {type(quiet) for quiet in timeline.quiet} == {bool}
    assert [window["silent"] for window in json.loads(timeline.to_json())["windows"]] == [w.silent for w in windows]


def test_a_cell_is_quiet_by_its_own_sound_whatever_the_rest_of_its_window_holds():
    _, timeline = fed(SOUND, [9_000])
    assert timeline.quiet == tuple(QUIET(SOUND[cell : cell + 4_000]) for cell in range(0, len(SOUND), 4_000))
    assert timeline.quiet[7]  # a window of half a second from here on ends in noise
