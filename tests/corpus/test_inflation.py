from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.inflation import inflations
from serein.corpus.protocol import Protocol, check_talkers
from serein.corpus.splits import make_protocol
from serein.errors import CorpusError

NAMES = ["honest", "random20", "ORACLE-same-train", "ORACLE-val-is-test", "random-TALKERS-SHARED"]


@pytest.fixture
def corpus() -> Corpus:
    """Four sessions of two talkers, ten utterances of each emotion a talker."""
    return Corpus(
        "toy",
        tuple(
            Utterance(f"{gender}{session}-{emotion}-{take}", Path("a.wav"), f"{gender}{session}", emotion, str(session))
            for session in range(1, 5)
            for gender in "FM"
            for emotion in ("angry", "sad")
            for take in range(10)
        ),
    )


@pytest.fixture
def honest(corpus) -> Protocol:
    return make_protocol("sessions", corpus)


@pytest.fixture
def made(honest, corpus) -> dict[str, Protocol]:
    return inflations(honest, corpus)


def talkers(ids: tuple[str, ...]) -> set[str]:
    return {id_.split("-")[0] for id_ in ids}


def emotions(ids: tuple[str, ...]) -> Counter[str]:
    return Counter(id_.split("-")[1] for id_ in ids)


def test_all_test_the_same_utterances_each_once(made, corpus):
    assert list(made) == NAMES
    for protocol in made.values():
        tested = [id_ for fold in protocol.folds for id_ in fold.test]
        assert sorted(tested) == sorted(corpus.by_id())
        assert len(protocol.folds) == 4
    for name in NAMES[:-1]:
        assert [fold.test for fold in made[name].folds] == [fold.test for fold in made["honest"].folds]


def test_every_name_has_its_flags_and_every_protocol_its_hash(made):
    assert [(protocol.oracle, protocol.shares_talkers) for protocol in made.values()] == [
        (False, False), (False, False), (True, False), (True, False), (False, True),
    ]  # fmt: skip
    assert len({protocol.hash for protocol in made.values()}) == 5
    assert [protocol.name for protocol in made.values()] == ["sessions", *(f"sessions-{name}" for name in NAMES[1:])]


def test_only_the_last_lets_test_talkers_train(made, corpus):
    for protocol in made.values():
        check_talkers(protocol, corpus)
        for fold in protocol.folds:
            assert bool(talkers(fold.train) & talkers(fold.test)) == protocol.shares_talkers


def test_the_honest_one_is_the_protocol_itself(made, honest):
    assert made["honest"] is honest


def test_random20_validates_a_fifth_of_each_emotion_by_talkers_who_also_train(made):
    for fold, before in zip(made["random20"].folds, made["honest"].folds, strict=True):
        assert set(fold.train) | set(fold.validation) == set(before.train) | set(before.validation)
        assert emotions(fold.validation) == {"angry": 12, "sad": 12}  # of 60 each
        assert talkers(fold.validation) <= talkers(fold.train)


def test_an_oracle_chooses_on_its_test_and_trains_on_the_part_it_says(made):
    for name, trains in (("ORACLE-same-train", 80), ("ORACLE-val-is-test", 120)):
        for fold, before in zip(made[name].folds, made["honest"].folds, strict=True):
            assert fold.validation == fold.test
            assert len(fold.train) == trains
            assert set(before.train) <= set(fold.train) <= {*before.train, *before.validation}


def test_random_folds_are_as_large_and_each_emotion_is_shared_out_evenly(made):
    for fold in made["random-TALKERS-SHARED"].folds:
        assert [len(fold.part(part)) for part in ("train", "validation", "test")] == [80, 40, 40]
        assert emotions(fold.test) == {"angry": 20, "sad": 20}


def test_they_are_the_named_protocols_where_there_is_one(made, corpus):
    for name, known in (
        ("random20", "sessions-random20"),
        ("ORACLE-val-is-test", "sessions-ORACLE-val-is-test"),
        ("random-TALKERS-SHARED", "random-4-TALKERS-SHARED"),
    ):
        expected = make_protocol(known, corpus)
        assert replace(made[name], name=expected.name).hash == expected.hash


@settings(max_examples=20)
@given(st.randoms(), st.integers(0, 3))
def test_the_order_of_the_table_decides_nothing(random, seed):
    utterances = [Utterance(f"{t}-{e}-{n}", Path("a.wav"), t, e) for t in "ABCD" for e in ("x", "y") for n in range(5)]
    sorted_corpus = Corpus("toy", tuple(utterances))
    random.shuffle(utterances)
    shuffled = Corpus("toy", tuple(utterances))
    first, second = (inflations(make_protocol("talkers", c), c, seed) for c in (sorted_corpus, shuffled))
    assert first == second


def test_the_seed_draws_other_utterances(honest, corpus, made):
    other = inflations(honest, corpus, seed=1)
    changed = [name for name in NAMES if other[name].hash != made[name].hash]
    assert changed == ["random20", "random-TALKERS-SHARED"]


def test_utterances_that_are_never_tested_go_on_training(honest, corpus):
    fewer = replace(honest, folds=honest.folds[:3])
    dealt = inflations(fewer, corpus)["random-TALKERS-SHARED"]
    never = {id_ for id_ in corpus.by_id() if id_[1] == "4"}
    for fold in dealt.folds:
        assert never <= set(fold.train)
    assert {id_ for fold in dealt.folds for id_ in fold.test} == corpus.by_id().keys() - never


def test_an_emotion_of_one_utterance_trains(honest, corpus):
    lonely = replace(corpus, utterances=(*corpus, Utterance("F1-rare", Path("a.wav"), "F1", "rare", "1")))
    protocol = make_protocol("sessions", lonely)
    for fold in inflations(protocol, lonely)["random20"].folds:
        assert "F1-rare" not in fold.validation


def test_two_folds_cannot_be_dealt_anew(honest, corpus):
    fewer = replace(honest, folds=honest.folds[:2])
    assert list(inflations(fewer, corpus)) == NAMES[:-1]


@pytest.mark.parametrize("name", ["sessions-random20", "sessions-ORACLE-val-is-test", "random-4-TALKERS-SHARED"])
def test_what_is_dishonest_cannot_be_the_beginning(corpus, name):
    with pytest.raises(CorpusError, match=r"is not honest: .*such as sessions"):
        inflations(make_protocol(name, corpus), corpus)
