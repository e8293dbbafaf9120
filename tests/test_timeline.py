import csv
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serein.timeline import Segment, Timeline, Window, quieter_than

LABELS = ("angry", "sad")


def windows(scores, length=2.0, hop=1.0, seconds=None, silent=()):
    end = seconds if seconds is not None else (len(scores) - 1) * hop + length
    return tuple(
        Window(number * hop, min(number * hop + length, end), (score, 1 - score), number in silent)
        for number, score in enumerate(scores)
    )


def timeline(scores, quiet=None, **how):
    made = windows(scores, **how)
    seconds = how.get("seconds") or made[-1].end
    hop = how.get("hop", 1.0)
    cells = int(np.ceil(seconds / hop))
    return Timeline(LABELS, hop, made, tuple(quiet or [False] * cells), seconds)


def close(segments):
    return [(s.start, s.end, s.label, pytest.approx(s.score)) for s in segments]


def told(segments):
    return [(s.start, s.end, s.label, s.score) for s in segments]


def test_a_cell_has_the_mean_of_the_windows_that_cover_it():
    # cells: 0.9; (0.9 + 0.3) / 2 = 0.6; (0.3 + 0.1) / 2 = 0.2; 0.1
    found = timeline([0.9, 0.3, 0.1]).segments()
    assert told(found) == close(
        [Segment(0.0, 2.0, "angry", (0.9 + 0.6) / 2), Segment(2.0, 4.0, "sad", (0.8 + 0.9) / 2)]
    )


def test_silent_windows_do_not_count():
    found = timeline([0.9, 0.3, 0.1], silent={1}).segments()
    # cells: 0.9; 0.9; 0.1; 0.1
    assert told(found) == close([Segment(0.0, 2.0, "angry", 0.9), Segment(2.0, 4.0, "sad", 0.9)])


def test_quiet_cells_and_cells_of_silent_windows_only_are_silence():
    found = timeline([0.9, 0.9, 0.9], quiet=[False, True, False, False], silent={2}).segments()
    assert told(found) == close(
        [
            Segment(0.0, 1.0, "angry", 0.9),
            Segment(1.0, 2.0, "silence", 0.0),
            Segment(2.0, 3.0, "angry", 0.9),
            Segment(3.0, 4.0, "silence", 0.0),
        ]
    )


def test_a_last_cell_without_a_window_belongs_to_no_segment():
    found = timeline([0.9], length=1.0, hop=1.0, quiet=[False, False]).segments()
    assert told(found) == close([Segment(0.0, 1.0, "angry", 0.9)])


def test_segments_end_with_the_recording():
    assert timeline([0.9, 0.9], seconds=2.3, quiet=[False] * 3).segments() == [Segment(0.0, 2.3, "angry", 0.9)]


def test_nothing_heard_is_no_segment():
    assert Timeline(LABELS, 1.0, (), (), 0.0).segments() == []
    assert Timeline(LABELS, 1.0, (), (True, False), 1.01).segments() == []


def slow_cells(made):
    """Label of each cell, window by window."""
    for number, quiet in enumerate(made.quiet):
        start, end = number * made.hop, min((number + 1) * made.hop, made.seconds)
        over = [w for w in made.windows if w.start <= (start + end) / 2 < w.end]
        if over:
            spoken = [w.scores for w in over if not w.silent]
            mean = np.mean(spoken, axis=0) if spoken and not quiet else None
            yield start, end, "silence" if mean is None else made.labels[int(mean.argmax())], mean


@settings(deadline=None)
@given(st.data(), st.integers(1, 12), st.sampled_from([0.25, 0.3, 1.0, 1.7]), st.integers(1, 5))
def test_segments_are_the_runs_of_cells(data, count, hop, ratio):
    scores = data.draw(st.lists(st.sampled_from([0.1, 0.3, 0.6, 0.9]), min_size=count, max_size=count))
    silent = data.draw(st.sets(st.integers(0, count - 1)))
    made = windows(scores, length=hop * ratio, hop=hop, silent=silent)
    seconds = made[-1].end
    cells = round(seconds / hop)
    quiet = tuple(data.draw(st.lists(st.booleans(), min_size=cells, max_size=cells)))
    whole = Timeline(LABELS, hop, made, quiet, seconds)
    segments, cells = whole.segments(), list(slow_cells(whole))
    assert [s.start for s in segments[1:]] == [s.end for s in segments[:-1]]
    assert (segments[0].start, segments[-1].end) == (0.0, pytest.approx(seconds))
    assert all(a.label != b.label for a, b in pairwise(segments))
    for segment in segments:
        inside = [cell for cell in cells if segment.start <= (cell[0] + cell[1]) / 2 < segment.end]
        means = [mean for *_, mean in inside]
        if segment.label == "silence":
            assert segment.score == 0
            assert all(label == "silence" for _, _, label, _ in inside)
        else:
            best = LABELS.index(segment.label)
            assert segment.score == pytest.approx(np.mean([mean[best] for mean in means]))
            assert all(mean[best] >= max(mean) - 1e-9 for mean in means)


def test_an_hour_of_small_hops_loses_no_digit():
    (whole,) = timeline([0.7] * 36_000, length=4.0, hop=0.1).segments()
    assert told([whole]) == [(0.0, pytest.approx(3603.9), "angry", pytest.approx(0.7, abs=1e-11))]


def test_no_mean_leaves_what_probabilities_may_be():
    made = timeline([float(np.nextafter(1, 0)), 1.0, 1 / 3] * 400, length=1.0)
    scores = [score for cell in made._cells()[0] for score in cell]
    assert (min(scores), max(scores)) == (0.0, 1.0)
    assert all(0 <= segment.score <= 1 for segment in made.segments())


def test_csv_has_a_row_a_window():
    header, *rows = csv.reader(timeline([0.9, 0.25], silent={1}).to_csv().splitlines())
    assert header == ["start", "end", "silent", "angry", "sad"]
    assert [[float(value) for value in row] for row in rows] == [[0, 2, 0, 0.9, 0.1], [1, 3, 1, 0.25, 0.75]]


def test_json_has_windows_and_segments():
    found = json.loads(timeline([0.75, 0.75], silent={1}).to_json())
    assert (found["labels"], found["hop"], found["seconds"]) == (["angry", "sad"], 1.0, 3.0)
    scores = {"angry": 0.75, "sad": 0.25}
    assert found["windows"] == [
        {"start": 0.0, "end": 2.0, "silent": False, "scores": scores},
        {"start": 1.0, "end": 3.0, "silent": True, "scores": scores},
    ]
    assert found["segments"] == [
        {"start": 0.0, "end": 2.0, "label": "angry", "score": 0.75},
        {"start": 2.0, "end": 3.0, "label": "silence", "score": 0.0},
    ]


def test_json_has_the_warnings():
    assert timeline([0.9]).as_dict()["warnings"] == []
    made = Timeline(LABELS, 1.0, windows([0.9]), (False, False), 2.0, ("1 of 2 windows could not be judged",))
    assert json.loads(made.to_json())["warnings"] == ["1 of 2 windows could not be judged"]


def test_audacity_reads_three_columns_and_labels_cannot_break_them():
    made = Timeline(("very\tangry", "sad"), 1.0, windows([0.9, 0.1], length=1.0), (False, True), 2.0)
    assert made.to_audacity() == "0.000000\t1.000000\tvery angry\n1.000000\t2.000000\tsilence\n"


def test_rttm_has_ten_fields_a_line_and_no_silence():
    made = Timeline(("very angry", "sad"), 1.0, windows([0.9, 0.1, 0.9], length=1.0), (False, True, False), 3.0)
    first, second = made.to_rttm("a call").splitlines()
    assert first == "SPEAKER a_call 1 0.000 1.000 <NA> <NA> very_angry <NA> <NA>"
    assert second.split()[3:5] == ["2.000", "1.000"]
    assert len(second.split()) == 10


def sine(decibels, samples=16_000):
    """50 ms hold ten periods."""
    amplitude = np.sqrt(2) * 10 ** (decibels / 20)
    return (amplitude * np.sin(2 * np.pi * 200 * np.arange(samples) / 16_000)).astype(np.float32)


@pytest.mark.parametrize("samples", [800, 16_000, 12_345])
def test_quiet_means_below_the_level(samples):
    assert quieter_than(-40.0)(sine(-40.2, samples))
    assert not quieter_than(-40.0)(sine(-39.8, samples))


@pytest.mark.parametrize("place", [0, 400, 700, 8_000, 15_200])
def test_fifty_loud_milliseconds_anywhere_are_heard(place):
    samples = np.zeros(16_000, dtype=np.float32)
    samples[place : place + 800] = 0.1  # -20 dB
    assert not quieter_than(-20.1)(samples)
    assert quieter_than(-19.9)(samples)


def test_nothing_is_quiet_and_short_samples_are_measured_as_they_are():
    assert quieter_than(-50.0)(np.zeros(0, dtype=np.float32))
    assert not quieter_than(-50.0)(np.full(10, 0.1, dtype=np.float32))
    assert quieter_than(-50.0)(np.full(10, 0.001, dtype=np.float32))


def test_the_last_piece_is_heard_even_if_it_is_shorter_than_50_ms():
    samples = np.zeros(2_000, dtype=np.float32)
    assert quieter_than(-50.0)(samples)
    samples[1_700:] = 0.1
    assert not quieter_than(-50.0)(samples)


def test_a_window_that_ends_at_a_cells_middle_does_not_cover_it():
    found = timeline([0.9, 0.1], length=1.5).segments()  # the second cell's middle is 1.5 s
    assert told(found) == close([Segment(0.0, 1.0, "angry", 0.9), Segment(1.0, 2.5, "sad", 0.9)])


def test_so_it_is_at_every_hop_whose_times_are_no_whole_numbers():
    # Windows of one and a half hops end at a middle: each cell but the last has the one window that starts with it.
    samples, hop = 16_000, 11_200
    made = tuple(
        Window(n * hop / samples, (n * hop + hop * 3 // 2) / samples, (n / 100, 1 - n / 100), False) for n in range(37)
    )
    means, _ = Timeline(LABELS, hop / samples, made, (False,) * 37, made[-1].end)._cells()
    assert means[:, 0].tolist() == pytest.approx([n / 100 for n in range(37)])
