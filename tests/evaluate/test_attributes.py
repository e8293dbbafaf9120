import json
import re
import subprocess
import sys
from dataclasses import replace
from math import isnan, log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from serein.corpus.corpus import Utterance
from serein.evaluate.attributes import (
    KnownFrames,
    NearestFrame,
    displaced,
    information,
    most_used,
    nearest,
    normalised_mutual_information,
    shuffled,
    usage,
)
from serein.evaluate.attributes_page import write_page

RANDOM = np.random.default_rng(0)
EMOTIONS = ("angry", "happy", "sad")


def known_frames(seed: int = 0, length: int = 40, **changes: object) -> KnownFrames:
    """Sixty utterances of six talkers; nothing has to do with anything."""
    random = np.random.default_rng(seed)
    utterances = tuple(
        Utterance(
            f"u{i:02}", Path(f"u{i:02}.wav"), f"t{i % 6}", EMOTIONS[i % 3], text=f"s{i % 4}",
            extra={"gender": "female" if i % 2 else "male"},
        )
        for i in range(60)
    )  # fmt: skip
    lengths = random.integers(length // 2, length, 60)
    total = int(lengths.sum())
    facts = {
        "utterances": utterances,
        "lengths": lengths,
        "frame_rate": 25.0,
        "attributes": 8,
        "assignments": random.integers(0, 8, total),
        "distances": random.random(total),
        "decibels": -20 + 5 * random.standard_normal(total),
        "voiced": random.random(total) < 0.5,
    }
    return KnownFrames(**{**facts, **changes})


def test_usage_and_perplexity_of_a_hand_computed_case():
    found = usage(np.array([70, 29, 1, 0]))  # the even share is 25, a tenth of it 2.5
    assert found.usage == 0.5
    entropy = -(0.7 * log(0.7) + 0.29 * log(0.29) + 0.01 * log(0.01))
    assert found.perplexity == pytest.approx(np.exp(entropy) / 4)
    assert usage(np.array([3, 3, 3])) == pytest.approx((1.0, 1.0))


def test_an_attribute_with_less_than_a_tenth_of_its_even_share_is_not_in_use():
    assert usage(np.array([94, 3, 2, 1])).usage == 0.5  # a tenth of the even share is 2.5


def test_nmi_of_a_hand_computed_case():
    # joint counts [[2, 0], [1, 1]]: H(a) = ln 2, H(b) = ln 4 - 3/4 ln 3, H(a, b) = 3/2 ln 2
    h_a, h_b, h_ab = log(2), log(4) - 0.75 * log(3), 1.5 * log(2)
    found = normalised_mutual_information(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    assert found == pytest.approx((h_a + h_b - h_ab) / ((h_a + h_b) / 2))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=2, max_size=60))
def test_nmi_is_that_of_scikit_learn_and_symmetric(pairs):
    first, second = np.array(pairs).T
    found = normalised_mutual_information(first, second)
    if len(set(first)) == len(set(second)) == 1:
        assert isnan(found)
    else:
        assert found == pytest.approx(normalized_mutual_info_score(first, second), abs=1e-9)
        assert found == pytest.approx(normalised_mutual_information(second, first), abs=1e-12)


def test_shuffling_over_utterances_keeps_the_frames_of_one_together():
    lengths = np.array([3, 1, 4, 2])
    found = shuffled(np.array([10, 11, 12, 13]), lengths, np.random.default_rng(5))
    parts = np.split(found, np.cumsum(lengths)[:-1])
    assert all(len(set(part.tolist())) == 1 for part in parts)
    assert sorted(part[0] for part in parts) == [10, 11, 12, 13]


def test_displacing_keeps_every_code_and_nearly_every_neighbour():
    lengths = np.array([30, 20, 50])
    codes = np.concatenate([np.arange(length) + 100 * place for place, length in enumerate(lengths)])
    found = displaced(codes, lengths, np.random.default_rng(1))
    assert sorted(found.tolist()) == sorted(codes.tolist())
    assert not np.array_equal(found, codes)
    assert (np.diff(found) != 1).sum() <= 2 * len(lengths)  # a seam and a wrap for each utterance


def test_random_labels_carry_no_more_than_their_baseline():
    for row in information(known_frames(length=200)):
        assert 0 < row.shuffled_mean < row.shuffled_high < 0.02, row
        assert row.nmi < 1.5 * row.shuffled_high, row


def test_all_properties_are_looked_at_and_no_other():
    rows = information(known_frames(), shuffles=2)
    assert {row.name: row.values for row in rows} == {
        "emotion": 3, "talker": 6, "gender": 2, "text": 4, "loudness": 5, "voicing": 2, "position": 5,
    }  # fmt: skip


def coded(frames: KnownFrames, codes: list[int]) -> np.ndarray:
    return np.repeat(codes, frames.lengths)


def test_what_attributes_carry_is_found_at_its_ceiling():
    frames = known_frames()
    position = np.concatenate([np.arange(length) * 5 // length for length in frames.lengths])
    quintile = np.argsort(np.argsort(frames.decibels)) * 5 // len(frames.decibels)
    for name, assignments in (
        ("talker", coded(frames, [i % 6 for i in range(60)])),
        ("emotion", coded(frames, [i % 3 for i in range(60)])),
        ("position", position),
        ("loudness", quintile),
        ("voicing", frames.voiced.astype(int)),
    ):
        (row,) = (row for row in information(replace(frames, assignments=assignments)) if row.name == name)
        assert row.nmi == pytest.approx(1.0, abs=0.02), name
        assert row.nmi <= row.ceiling + 1e-9, name
        if name != "emotion":  # which is a talker's here, and six talkers leave few ways to shuffle
            assert row.shuffled_high < 0.5, name


def test_a_property_of_few_values_has_a_low_ceiling():
    frames = known_frames()
    gender = coded(frames, [i % 2 for i in range(60)])
    finer = 4 * gender + RANDOM.integers(0, 4, len(gender))  # eight attributes, from which the gender follows
    (row,) = (row for row in information(replace(frames, assignments=finer)) if row.name == "gender")
    assert row.nmi == pytest.approx(row.ceiling)
    assert row.ceiling == pytest.approx(2 * log(2) / (log(8) + log(2)), abs=0.01)


def test_attributes_that_know_voices_do_not_carry_groups_of_talkers_drawn_by_coin():
    above = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        gender = random.permutation([0] * 6 + [1] * 6)
        utterances = tuple(
            Utterance(f"u{i:03}", Path(f"u{i:03}.wav"), f"t{i % 12}", extra={"gender": "fm"[gender[i % 12]]})
            for i in range(120)
        )
        voices = random.dirichlet(np.full(8, 0.5), size=12)
        said = np.concatenate([random.choice(8, size=10, p=voices[i % 12]) for i in range(120)])
        frames = known_frames(
            utterances=utterances, lengths=np.full(120, 10), assignments=said, distances=np.zeros(1200),
            decibels=np.zeros(1200), voiced=np.zeros(1200, dtype=bool),
        )  # fmt: skip
        (row,) = (row for row in information(frames) if row.name == "gender")
        above += row.nmi > row.shuffled_high
    assert above <= 4  # one of twenty by chance; shuffled over utterances, all twenty


def test_what_utterances_sound_like_as_a_whole_is_no_news_under_the_shuffle():
    # every utterance has attributes of its own: then any label of utterances is known, and shuffled ones are too
    frames = known_frames(attributes=60)
    own = replace(frames, assignments=coded(frames, list(range(60))))
    for row in information(own):
        if row.name in ("emotion", "talker", "gender", "text"):
            assert row.nmi == pytest.approx(row.shuffled_mean, rel=0.05)


def test_unknown_labels_are_left_out_and_so_is_what_says_nothing():
    frames = known_frames()
    utterances = tuple(
        replace(u, emotion=u.emotion if i < 30 else "", text=u.id, extra={}, talker="one")
        for i, u in enumerate(frames.utterances)
    )
    rows = {row.name: row for row in information(replace(frames, utterances=utterances), shuffles=2)}
    assert set(rows) == {"emotion", "loudness", "voicing", "position"}
    assert rows["emotion"].frames == frames.lengths[:30].sum()


def test_frames_far_below_the_loudest_of_their_utterance_are_silent():
    frames = known_frames()
    quiet = np.zeros(len(frames.decibels), dtype=bool)
    quiet[::3] = True
    decibels = np.where(quiet, -60.0, -20.0) - coded(frames, [40 * (i % 2) for i in range(60)])  # half speak softly
    assignments = np.where(quiet, 0, 1 + frames.voiced)
    rows = information(replace(frames, decibels=decibels, assignments=assignments), shuffles=2)
    (row,) = (row for row in rows if row.name == "voicing")
    assert row.values == 3
    assert row.nmi == pytest.approx(1.0)


def test_nearest_frames_are_the_closest_of_each_talker():
    frames = known_frames()
    found = nearest(frames, 3, 4)
    assert len(found) == 4
    assert len({frame.utterance.talker for frame in found}) == 4
    assert [frame.distance for frame in found] == sorted(frame.distance for frame in found)
    owner = np.repeat(np.arange(60), frames.lengths)
    best = {}
    for row in np.flatnonzero(frames.assignments == 3):
        talker = frames.utterances[owner[row]].talker
        best[talker] = min(best.get(talker, np.inf), frames.distances[row])
    assert [frame.distance for frame in found] == sorted(best.values())[:4]
    for frame in found:
        (row,) = np.flatnonzero(frames.distances == frame.distance)
        start = int(frames.lengths[: owner[row]].sum())
        assert frame.utterance is frames.utterances[owner[row]]
        assert frame.seconds == pytest.approx((row - start + 0.5) / 25.0)


def test_the_first_frame_of_an_utterance_is_its_own_not_that_of_the_one_before():
    said = tuple(Utterance(name, Path(f"{name}.wav"), name, "sad") for name in "ab")
    frames = KnownFrames(
        said, np.array([2, 3]), 50.0, 2, np.array([1, 1, 0, 1, 1]), np.zeros(5), np.zeros(5), np.zeros(5, dtype=bool)
    )
    assert nearest(frames, 0, 3) == [NearestFrame(said[1], 0.01, 0.0)]


def test_the_most_used_attributes_come_first_and_unused_ones_never():
    assert most_used(np.array([1, 5, 0, 5, 2]), 3) == [1, 3, 4]
    assert most_used(np.array([1, 5, 0]), 9) == [1, 0]


def test_the_page_says_and_draws_what_was_found_and_holds_the_clips(tmp_path):
    frames = known_frames()
    folder = tmp_path / "deep" / "page"
    asked = []
    page = write_page(folder, "toys <&>", frames, 2, lambda frame: asked.append(frame) or b"RIFF sound")
    numbers = json.loads((folder / "attributes.json").read_text())
    assert numbers["counts"] == frames.counts.tolist()
    assert numbers["usage"] == 1.0
    assert [near["id"] for near in numbers["nearest"]] == [frame.utterance.id for frame in asked]
    assert len(asked) == 2 * 5
    clips = sorted(path.name for path in (folder / "clips").iterdir())
    assert len(clips) == 10
    html, markdown = page.read_text(), (folder / "attributes.md").read_text()
    assert html.count("<audio") == html.count("data:audio/wav;base64,UklGRiBzb3VuZA==") == 10
    assert "toys &lt;&amp;&gt;" in html
    for row in numbers["information"]:
        assert f"{row['nmi']:.4f}" in html
        assert f"| {row['name']} | {row['values']} |" in markdown
    for target in re.findall(r"\((figures/\S+|clips/\S+)\)", markdown):
        assert (folder / target).is_file()
    assert markdown.count("(clips/") == 10
    assert {path.name for path in (folder / "figures").iterdir()} == {"information.svg", "usage.svg"}
    again = write_page(tmp_path / "again", "toys <&>", frames, 2, lambda frame: b"RIFF sound")
    assert again.read_bytes() == page.read_bytes()


def test_a_page_without_clips(tmp_path):
    page = write_page(tmp_path, "toys", known_frames(), 0, lambda frame: b"never")
    assert "<audio" not in page.read_text()
    assert not (tmp_path / "clips").exists()


def test_neither_counting_nor_drawing_needs_scikit_learn():
    code = "import sys, serein.evaluate.plots, serein.evaluate.attributes_page; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
