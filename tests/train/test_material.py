import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from serein.corpus.corpus import Corpus
from serein.errors import CorpusError, StoreError, UsageError
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.frames.store import FrameStore
from serein.train.crossval import classes_of
from serein.train.material import gather

LOGMEL = load_encoder("logmel")


@pytest.fixture(scope="module")
def stores(tones: Corpus, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Twelve utterances of three talkers, two views of them in other orders, and four of a stranger's."""
    folder = tmp_path_factory.mktemp("stores")
    few = Corpus("few", tuple(u for u in tones if u.talker in ("1F", "2F", "3M") and u.id.endswith("_0")))
    backwards = replace(few, utterances=few.utterances[::-1])
    others = tuple(u for u in tones if u.talker == "1M" and u.id.endswith("_1"))
    stranger = Corpus("others", tuple(replace(u, id=few.utterances[n].id) for n, u in enumerate(others)))

    def store(corpus: Corpus, name: str, **how) -> FrameStore:
        return extract(corpus, LOGMEL, folder / name, **{"pool": 2} | how)

    return SimpleNamespace(
        own=store(few, "own"),
        slow=store(backwards, "slow", speed=0.9),
        fast=store(few, "fast", speed=1.1),
        other=store(stranger, "other"),
        finer=store(stranger, "finer", pool=1),
        mel=store(backwards, "mel", pool=1),
        slow_mel=store(few, "slow-mel", pool=1, speed=0.9),
        corpus=few,
    )


def test_a_store_alone_is_its_own_frames(stores):
    material = gather(stores.own, stores.own.ids)
    alone = stores.own.load()
    assert material.array.ids == alone.ids
    assert material.array.flat.equal(alone.flat)
    assert (material.views, material.elsewhere) == (1, ())
    assert material.said == {"frames": [stores.own.digest], "views": [], "unlabelled": []}


def test_a_run_says_which_frames_it_heard_and_in_which_order(stores):
    for given in (
        {"views": [stores.slow], "unlabelled": [stores.other]},
        {"views": [stores.slow], "beside": [stores.mel, stores.slow_mel]},
    ):
        heard = [stores.own, *(store for stores_of_a_kind in given.values() for store in stores_of_a_kind)]
        said = gather(stores.own, (), **given).said["frames"]
        assert said == [store.digest for store in heard]
        assert len(set(said)) == len(heard)


def test_views_carry_their_speed_in_their_ids_and_stand_in_the_corpuss_order(stores):
    ids = stores.own.ids
    material = gather(stores.own, ids, views=[stores.slow, stores.fast])
    assert material.array.ids == (*ids, *(f"{name}@0.9" for name in ids), *(f"{name}@1.1" for name in ids))
    assert material.views == 3
    slow_hash, fast_hash = (view.settings["corpus"]["hash"] for view in (stores.slow, stores.fast))
    assert material.said["views"] == [f"speed 0.9, corpus {slow_hash}", f"speed 1.1, corpus {fast_hash}"]
    slow = stores.slow.load()
    assert slow.ids == ids[::-1]
    for place in (0, 5, 11):
        expected = slow.batch(slow.indices([ids[place]])).frames
        assert material.array.batch(torch.tensor([12 + place])).frames.equal(expected)


def test_a_view_has_its_utterances_label_and_another_talker(stores):
    material = gather(stores.own, stores.own.ids, views=[stores.slow], unlabelled=[stores.other])
    labels = classes_of(material.array.ids, stores.corpus, stores.corpus.labels)
    assert labels[:12].min() >= 0
    assert labels[:12].equal(labels[12:24])
    who = [utterance.talker for utterance in stores.corpus]
    own, view = material.talkers[:12].tolist(), material.talkers[12:24].tolist()
    for first in range(12):
        for second in range(12):
            assert (own[first] == own[second]) == (view[first] == view[second]) == (who[first] == who[second])
    assert not set(own) & set(view)
    assert set(material.talkers[24:].tolist()).isdisjoint(own + view)
    assert sorted(material.talkers.unique().tolist()) == list(range(3 + 3 + 1))


def test_labels_of_unlabelled_stores_are_never_looked_at_even_under_the_same_ids(stores):
    assert set(stores.other.ids) <= set(stores.own.ids)
    assert all(utterance.emotion for utterance in stores.other.corpus())
    material = gather(stores.own, stores.own.ids, unlabelled=[stores.other, stores.other])
    assert [others.tolist() for others in material.elsewhere] == [[12, 13, 14, 15], [16, 17, 18, 19]]
    assert material.array.ids[12] == f"other/0/{stores.other.ids[0]}"
    assert material.array.ids[16] == f"other/1/{stores.other.ids[0]}"
    assert len(set(material.array.ids)) == 20
    assert classes_of(material.array.ids, stores.corpus, stores.corpus.labels)[12:].tolist() == [-1] * 8
    assert material.said["unlabelled"] == ["others", "others"]
    assert material.array.batch(torch.tensor([12])).frames.equal(stores.other.load().batch(torch.tensor([0])).frames)


def test_required_utterances_without_frames_are_named(stores):
    with pytest.raises(CorpusError, match="own: 1 utterances have no frames; first nobody: it was not in the table"):
        gather(stores.own, [*stores.own.ids, "nobody"])
    gather(stores.own, stores.own.ids[:3])


def test_a_view_must_have_every_utterance_and_says_why_one_is_missing(stores, tmp_path):
    first, *others = stores.corpus.utterances
    fewer = extract(Corpus("few", tuple(others)), LOGMEL, tmp_path / "fewer", pool=2, speed=0.9)
    with pytest.raises(CorpusError, match=f"fewer: 1 utterances .* first {first.id}: it was not in the table"):
        gather(stores.own, (), views=[fewer])
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    holed = Corpus("few", (replace(first, path=broken), *others))
    with pytest.raises(CorpusError, match=f"first {first.id}: .*broken.wav"):
        gather(stores.own, (), views=[extract(holed, LOGMEL, tmp_path / "holed", pool=2, speed=0.9)])


def test_frames_made_otherwise_are_refused_by_name(stores):
    for given in ({"views": [stores.finer]}, {"unlabelled": [stores.finer]}):
        with pytest.raises(StoreError, match=r"finer: its frames have another pool than those of .*own"):
            gather(stores.own, (), **given)
    foreign = FrameStore(stores.slow.folder)
    foreign.settings["encoder"] = foreign.settings["encoder"] | {"fingerprint": "another"}
    with pytest.raises(StoreError, match="slow: its frames have another encoder"):
        gather(stores.own, (), views=[foreign])


def test_an_encoder_is_known_by_its_weights_wherever_they_lie(stores):
    moved = FrameStore(stores.slow.folder)
    moved.settings["encoder"] = moved.settings["encoder"] | {"name": "elsewhere/encoder", "revision": "abc"}
    assert gather(stores.own, (), views=[moved]).views == 2


def test_a_corpus_at_another_speed_is_no_corpus_to_judge_on(stores):
    with pytest.raises(StoreError, match=r"slow: was extracted at another speed: it is a view of a corpus \(--view\)"):
        gather(stores.slow, ())


def test_a_view_at_the_corpuss_own_speed_is_none(stores, tmp_path):
    again = extract(stores.corpus, LOGMEL, tmp_path / "again", pool=2)
    with pytest.raises(StoreError, match=r"again: was not extracted at another speed .*: it is no view"):
        gather(stores.own, (), views=[again])


def with_hashes(corpus: Corpus, prefix: str = "") -> Corpus:
    return replace(
        corpus, utterances=tuple(replace(u, audio_hash=f"{prefix}{number}") for number, u in enumerate(corpus))
    )


def copied(corpus: Corpus, folder: Path) -> Corpus:
    folder.mkdir()
    return replace(
        corpus, utterances=tuple(replace(u, path=Path(shutil.copy(u.path, folder))) for u in corpus.utterances)
    )


def test_a_view_of_other_talkers_or_recordings_is_refused(stores, tmp_path):
    first, second, *others = stores.corpus.utterances
    renamed = (replace(first, talker="3M"), second, *others)
    swapped = (replace(first, path=second.path), replace(second, path=first.path), *others)
    for name, utterances in (("renamed", renamed), ("swapped", swapped)):
        view = extract(Corpus("few", utterances), LOGMEL, tmp_path / name, pool=2, speed=0.9)
        with pytest.raises(StoreError, match=f"{name}: {first.id} is another recording or talker there than in .*own"):
            gather(stores.own, (), views=[view])


def test_recordings_are_known_by_their_hash_wherever_they_lie(stores, tmp_path):
    hashed = with_hashes(stores.corpus)
    moved = copied(hashed, tmp_path / "moved")
    own = extract(hashed, LOGMEL, tmp_path / "own", pool=2)
    slow = extract(moved, LOGMEL, tmp_path / "slow", pool=2, speed=0.9)
    assert gather(own, (), views=[slow]).views == 2
    assert gather(stores.own, (), views=[extract(hashed, LOGMEL, tmp_path / "h", pool=2, speed=0.9)]).views == 2
    changed = extract(with_hashes(moved, "x"), LOGMEL, tmp_path / "changed", pool=2, speed=0.9)
    with pytest.raises(StoreError, match=r"changed: .* is another recording"):
        gather(own, (), views=[changed])
    other = extract(moved, LOGMEL, tmp_path / "other", pool=2)
    with pytest.raises(CorpusError, match="other: 12 of its recordings"):
        gather(own, (), unlabelled=[other])


@pytest.mark.parametrize("given", ["own", "slow", "one"])
def test_the_corpuss_own_recordings_are_no_other_corpus(stores, tmp_path, given):
    one = Corpus("one", (replace(stores.corpus.utterances[4], id="x", talker="x"),))
    store = extract(one, LOGMEL, tmp_path / "one", pool=2) if given == "one" else getattr(stores, given)
    with pytest.raises(CorpusError, match=rf"{given}: {len(store.ids)} of its .*hear test talkers; .*\"transductive\""):
        gather(stores.own, (), unlabelled=[stores.other, store])


def test_talker_statistics_standardise_each_talker_at_each_speed(stores):
    plain = gather(stores.own, (), views=[stores.slow], unlabelled=[stores.other])
    normed = gather(stores.own, (), views=[stores.slow], unlabelled=[stores.other], talker_statistics=True)
    assert normed.talkers.equal(plain.talkers)
    for talker in plain.talkers.unique():
        indices = torch.nonzero(plain.talkers == talker).flatten()
        mean, deviation = normed.array.moments(indices)
        assert torch.allclose(mean, torch.zeros(1, 80), atol=2e-3)
        assert torch.allclose(deviation, torch.ones(1, 80), atol=2e-3)
    assert not torch.allclose(plain.array.moments(torch.tensor([0]))[0], torch.zeros(1, 80), atol=0.5)


def test_one_name_in_two_other_corpora_is_two_talkers(stores, tones, tmp_path):
    again = Corpus("again", tuple(u for u in tones if u.talker == "1M" and u.id.endswith("_2")))
    more = extract(again, LOGMEL, tmp_path, pool=2)
    material = gather(stores.own, (), unlabelled=[stores.other, more])
    first, second = (material.talkers[others] for others in material.elsewhere)
    assert (len(first), len(second)) == (len(stores.other.ids), len(more.ids))
    assert not set(first.tolist()) & set(second.tolist())
    assert len(material.talkers.unique()) == 3 + 2


def test_talker_statistics_need_no_label(stores):
    """All frames of a talker count, also those of emotions that the run leaves out."""
    normed = gather(stores.own, stores.own.ids[:3], talker_statistics=True)
    assert torch.allclose(normed.array.moments(torch.arange(12))[0], torch.zeros(1, 80), atol=2e-3)


def test_a_view_that_is_given_twice_is_refused(stores):
    with pytest.raises(StoreError, match=r"@0\.9 stand in two stores: give each store once"):
        gather(stores.own, (), views=[stores.slow, stores.slow])


def test_log_mel_frames_stand_beside_the_corpus_and_each_view(stores):
    plain = gather(stores.own, (), views=[stores.slow])
    packed = gather(stores.own, (), views=[stores.slow], beside=[stores.mel, stores.slow_mel])
    assert (packed.array.ids, packed.views) == (plain.array.ids, 2)
    assert packed.talkers.equal(plain.talkers)
    assert packed.array.flat[:, :1].equal(plain.array.flat)
    ids = stores.own.ids
    for place, mel, name in ((3, stores.mel, ids[3]), (12 + 7, stores.slow_mel, ids[7])):
        beside = packed.array.select(packed.array.ids[place : place + 1]).flat[:, 1:].reshape(-1, 80)
        expected = mel.load().select([name]).flat[:, 0]
        assert beside[: len(expected)].equal(expected)
        assert len(beside) - len(expected) in (0, 1)


def test_a_run_says_what_stands_beside_and_nothing_where_nothing_does(stores):
    said = gather(stores.own, (), views=[stores.slow], beside=[stores.mel, stores.slow_mel]).said["beside"]
    hashes = [mel.settings["corpus"]["hash"] for mel in (stores.mel, stores.slow_mel)]
    made = LOGMEL.fingerprint[:12]
    assert said == [f"logmel {made}, speed {speed}, corpus {h}" for speed, h in zip((1, 0.9), hashes, strict=True)]
    assert "beside" not in gather(stores.own, ()).said


def test_talker_statistics_reach_what_stands_beside(stores):
    normed = gather(stores.own, (), beside=[stores.mel], talker_statistics=True)
    for talker in normed.talkers.unique():
        mean, deviation = normed.array.moments(torch.nonzero(normed.talkers == talker).flatten())
        assert torch.allclose(mean, torch.zeros(3, 80), atol=2e-3)
        assert torch.allclose(deviation, torch.ones(3, 80), atol=2e-3)


def test_only_log_mel_frames_at_their_full_rate_stand_beside(stores):
    said = "has no log-mel frames at their full rate to stand beside others: .* --encoder logmel`, without --pool"
    with pytest.raises(StoreError, match=f"own: {said}"):
        gather(stores.own, (), beside=[stores.own])
    foreign = FrameStore(stores.mel.folder)
    foreign.settings["encoder"] = foreign.settings["encoder"] | {"name": "another"}
    with pytest.raises(StoreError, match=f"mel: {said}"):
        gather(stores.own, (), beside=[foreign])


def test_what_stands_beside_has_the_speed_of_its_neighbour(stores):
    with pytest.raises(StoreError, match=r"slow-mel: .* at speed 0\.9, and .*own, .* at 1: give --beside for"):
        gather(stores.own, (), views=[stores.slow], beside=[stores.slow_mel, stores.mel])


def test_what_stands_beside_is_of_the_same_recordings(stores, tmp_path):
    four = replace(stores.corpus, utterances=stores.corpus.utterances[:4])
    own = extract(four, LOGMEL, tmp_path / "four", pool=2)
    with pytest.raises(StoreError, match=r"finer: .* is another recording or talker there than in .*four"):
        gather(own, (), beside=[stores.finer])
    with pytest.raises(CorpusError, match="finer: 8 utterances have no frames"):
        gather(stores.own, (), beside=[stores.finer])


def test_an_encoder_whose_frames_last_no_whole_number_of_log_mel_frames_is_refused(stores):
    odd = FrameStore(stores.own.folder)
    odd.settings["frame_rate"] = 30.0
    with pytest.raises(StoreError, match="50 log-mel frames a second cannot stand beside 30 encoder frames a second"):
        gather(odd, (), beside=[stores.mel])


def test_mapped_frames_are_a_corpus_alone(stores):
    mapped = gather(stores.own, stores.own.ids, mapped=True).array
    assert mapped.flat.equal(stores.own.load().flat)
    with pytest.raises(UsageError, match="put together in memory"):
        gather(stores.own, stores.own.ids, views=[stores.slow], mapped=True)
