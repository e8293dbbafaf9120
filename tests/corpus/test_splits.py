import csv
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.protocol import Protocol, find_leaks
from serein.corpus.splits import PROTOCOL_NAMES, make_protocol
from serein.errors import CorpusError, UsageError

TALKERS_APART = (
    "sessions",
    "sessions-random20",
    "sessions-ORACLE-val-is-test",
    "talkers",
    "talkers-3",
    "talkers-5",
)
TALKERS_SHARED = ("random-3-TALKERS-SHARED", "random-5-TALKERS-SHARED")


def corpus_of(rows, name: str = "toy") -> Corpus:
    """Rows of talker, session, emotion, part; the id is the row's number."""
    return Corpus(
        name,
        tuple(
            Utterance(f"u{i:03}", Path(f"u{i:03}.wav"), talker, emotion, session=session, extra={"part": part})
            for i, (talker, session, emotion, part) in enumerate(rows)
        ),
    )


def dialogues(sessions: int, turns: int = 4) -> Corpus:
    return corpus_of(
        (f"{session}{gender}", str(session), emotion, part)
        for session, gender, emotion, part, _ in product(
            range(1, sessions + 1), "FM", ("angry", "sad"), ("improvised", "scripted"), range(turns)
        )
    )


def talkers_of(corpus: Corpus, ids) -> set[str]:
    known = corpus.by_id()
    return {known[id_].talker for id_ in ids}


def talkers_by_fold(corpus: Corpus, protocol: Protocol) -> list[tuple[set[str], set[str]]]:
    """Those of validation and of test, for each fold."""
    return [(talkers_of(corpus, fold.validation), talkers_of(corpus, fold.test)) for fold in protocol.folds]


@st.composite
def rows_of_a_corpus(draw) -> list[tuple[str, str, str, str]]:
    # No Corpus yet: beartype looks into its fields with `random`, which hypothesis forbids in strategies.
    talkers = draw(
        st.lists(st.sampled_from(["F1", "F2", "M1", "M2", "é/3", "x y", "_", "10"]), min_size=3, unique=True)
    )
    kind = draw(st.sampled_from(["none", "pairs", "crossed"]))
    by_talker = {talker: str(i // 2) for i, talker in enumerate(talkers)}
    rows = []
    for talker in talkers:
        for _ in range(draw(st.integers(1, 6))):
            session = {"none": "", "pairs": by_talker[talker], "crossed": draw(st.sampled_from("0123"))}[kind]
            part = draw(st.sampled_from(["improvised", "scripted"]))
            rows.append((talker, session, draw(st.sampled_from(["", "angry", "happy", "sad"])), part))
    return rows


names = st.builds(
    str.__add__,
    st.sampled_from(TALKERS_APART + TALKERS_SHARED),
    st.sampled_from(["", "", "/improvised", "/scripted"]),
)


@given(rows_of_a_corpus(), names, st.integers(0, 3), st.randoms())
def test_every_protocol_that_can_be_made_keeps_its_promises(rows, name, seed, random):
    corpus = corpus_of(rows)
    try:
        protocol = make_protocol(name, corpus, seed=seed)
    except CorpusError:
        assume(False)
    part = name.partition("/")[2]
    labelled = [u for u in corpus if u.emotion and part in ("", u.extra["part"])]
    pool = {u.id for u in labelled}
    tested = Counter(id_ for fold in protocol.folds for id_ in fold.test)
    assert tested == Counter(pool)
    assert protocol.labels == tuple(sorted({u.emotion for u in labelled}))
    for fold in protocol.folds:
        assert fold.train
        assert fold.validation
        assert {*fold.train, *fold.validation, *fold.test} == pool
        if protocol.oracle:
            assert fold.validation == fold.test
        if not protocol.shares_talkers:
            kept_apart = fold.train if protocol.oracle else fold.train + fold.validation
            assert not talkers_of(corpus, fold.test) & talkers_of(corpus, kept_apart)

    utterances = list(corpus.utterances)
    random.shuffle(utterances)
    again = make_protocol(name, replace(corpus, utterances=tuple(utterances)), seed=seed)
    assert again == protocol
    assert again.hash == protocol.hash


@pytest.mark.parametrize("name", TALKERS_APART + TALKERS_SHARED)
def test_a_corpus_of_five_dialogues_can_be_split_by_every_name(name):
    assert len(make_protocol(name, dialogues(5)).folds) >= 3


def test_in_sessions_the_next_session_validates_and_three_train():
    corpus = dialogues(5)
    protocol = make_protocol("sessions", corpus)
    assert [fold.name for fold in protocol.folds] == [f"session-{i}" for i in range(1, 6)]
    assert talkers_by_fold(corpus, protocol) == [
        ({f"{i % 5 + 1}F", f"{i % 5 + 1}M"}, {f"{i}F", f"{i}M"}) for i in range(1, 6)
    ]
    assert find_leaks(protocol, corpus) == []


def test_in_random20_a_fifth_of_each_emotion_validates_and_its_talkers_also_train():
    corpus = dialogues(5)
    protocol = make_protocol("sessions-random20", corpus)
    known = corpus.by_id()
    for fold in protocol.folds:
        emotions = [Counter(known[id_].emotion for id_ in part) for part in (fold.validation, fold.train)]
        # 4 sessions x 2 talkers x 2 parts x 4 turns = 64 of each emotion beside the test; a fifth is 13.
        assert emotions == [{"angry": 13, "sad": 13}, {"angry": 51, "sad": 51}]
    assert {leak.between for leak in find_leaks(protocol, corpus)} == {("train", "validation")}
    assert make_protocol("sessions-random20", corpus, seed=1).hash != protocol.hash
    assert not protocol.shares_talkers


def test_in_random20_a_rare_emotion_validates_with_one_and_trains_with_the_rest():
    corpus = corpus_of((f"t{session}", session, emotion, "") for session in "123" for emotion in ("angry", "sad"))
    folds = make_protocol("sessions-random20", corpus).folds
    assert [(len(fold.train), len(fold.validation)) for fold in folds] == [(2, 2)] * 3
    alone = corpus_of(
        [("t1", "1", "sad", ""), ("t2", "2", "sad", ""), ("t3", "3", "sad", ""), ("t3", "3", "angry", "")]
    )
    known = alone.by_id()
    assert [
        [known[id_].emotion for id_ in fold.validation] for fold in make_protocol("sessions-random20", alone).folds
    ] == [["sad"]] * 3


def test_in_random20_folds_draw_each_for_themselves():
    first, second = make_protocol("sessions-random20", dialogues(5)).folds[:2]
    common = {*first.train, *first.validation} & {*second.train, *second.validation}
    assert set(first.validation) & common != set(second.validation) & common


def test_the_oracle_says_so_in_name_flag_and_description():
    protocol = make_protocol("sessions-ORACLE-val-is-test", dialogues(2))
    assert protocol.oracle
    assert all(fold.validation == fold.test for fold in protocol.folds)
    assert protocol.description.startswith("ORACLE: ")


def test_in_a_corpus_of_dialogues_the_partner_validates():
    corpus = dialogues(3)
    protocol = make_protocol("talkers", corpus)
    assert talkers_by_fold(corpus, protocol) == [
        ({f"{session}{other}"}, {f"{session}{own}"}) for session in "123" for own, other in ("FM", "MF")
    ]
    assert "partner" in protocol.description


@pytest.mark.parametrize(
    "sessions",
    [
        pytest.param(("", "", "", ""), id="no sessions"),
        pytest.param(("1", "1", "1", "2"), id="three in one session"),
        pytest.param(("1", "2", "3", "4"), id="alone"),
        pytest.param(("1", "1", "2", ""), id="one without a session"),
    ],
)
def test_where_not_all_talkers_have_one_partner_the_next_talker_validates(sessions):
    corpus = corpus_of((talker, session, "sad", "") for talker, session in zip("ABCD", sessions, strict=True))
    protocol = make_protocol("talkers", corpus)
    assert talkers_by_fold(corpus, protocol) == [
        ({"B"}, {"A"}),
        ({"C"}, {"B"}),
        ({"D"}, {"C"}),
        ({"A"}, {"D"}),
    ]
    assert "next" in protocol.description


def test_a_talker_with_two_partners_has_none():
    corpus = corpus_of(
        (talker, session, "sad", "") for session, pair in zip("123", ("AB", "BC", "CA"), strict=True) for talker in pair
    )
    assert "next" in make_protocol("talkers", corpus).description


def test_dealt_talkers_have_both_genders_in_every_group_of_a_corpus_that_alternates_them():
    corpus = corpus_of((f"{i:02}", "", "sad", "") for i in range(1, 25) for _ in range(3))
    for count in (3, 4, 6, 12):
        for _, tested in talkers_by_fold(corpus, make_protocol(f"talkers-{count}", corpus)):
            assert sum(int(talker) % 2 for talker in tested) == 24 / count / 2


@given(st.lists(st.integers(1, 20), min_size=3, max_size=9), st.integers(3, 5), st.integers(0, 2))
def test_dealt_groups_differ_by_no_more_than_the_longest_talker(counts, groups, seed):
    assume(groups <= len(counts))
    corpus = corpus_of((f"t{i}", "", "sad", "") for i, count in enumerate(counts) for _ in range(count))
    sizes = [len(fold.test) for fold in make_protocol(f"talkers-{groups}", corpus, seed=seed).folds]
    assert max(sizes) - min(sizes) <= max(counts)


def test_a_seed_deals_talkers_anew():
    corpus = corpus_of((f"t{i:02}", "", "sad", "") for i in range(12))
    first, second = (talkers_by_fold(corpus, make_protocol("talkers-4", corpus, seed=seed)) for seed in (0, 1))
    assert first[0][1] == {"t00", "t07", "t08"}
    assert first != second


@pytest.mark.parametrize(
    ("name", "hash_"),
    [
        ("sessions", "f2da6f1f7719"),
        ("sessions-random20", "a14fcd13681d"),
        ("talkers-3", "f752f6a94a19"),
        ("random-3-TALKERS-SHARED", "0124758ee719"),
    ],
)
def test_hashes_are_the_same_on_every_machine_and_with_every_version(name, hash_):
    assert make_protocol(name, dialogues(3), seed=7).hash == hash_


def test_a_long_name_in_other_letters_makes_a_fold():
    names = ["Александра Смирнова", "Ольга Иванова", "Bo"]
    protocol = make_protocol("talkers", corpus_of((name, "", label, "") for name in names for label in ("sad", "glad")))
    assert [fold.name for fold in protocol.folds] == [
        "talker-Bo",
        "talker-cdd068377ede",
        "talker-%D0%9E%D0%BB%D1%8C%D0%B3%D0%B0%20%D0%98%D0%B2%D0%B0%D0%BD%D0%BE%D0%B2%D0%B0",
    ]


def test_random_groups_hold_even_shares_of_each_emotion():
    corpus = corpus_of((f"t{i % 4}", "", "sad" if i % 3 else "angry", "") for i in range(60))
    protocol = make_protocol("random-5-TALKERS-SHARED", corpus)
    known = corpus.by_id()
    assert all(Counter(known[id_].emotion for id_ in fold.test) == {"sad": 8, "angry": 4} for fold in protocol.folds)
    assert any(leak.kind == "talker" and "test" in leak.between for leak in find_leaks(protocol, corpus))
    assert protocol.description.startswith("TALKERS SHARED: ")
    assert protocol.shares_talkers


def official(*splits: str, talkers: str = "ABCDEFGH") -> Corpus:
    return Corpus(
        "toy",
        tuple(
            Utterance(f"u{i}", Path("a.wav"), talker, "sad", extra={"split": split})
            for i, (split, talker) in enumerate(zip(splits, talkers, strict=False))
        ),
    )


@pytest.mark.parametrize("word", ["validation", "valid", "dev"])
def test_official_takes_the_parts_of_the_column_split(word):
    (fold,) = make_protocol("official", official("train", word, "test", "train")).folds
    assert (fold.name, fold.train, fold.validation, fold.test) == ("official", ("u0", "u3"), ("u1",), ("u2",))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("train", "train", "test"), "puts no labelled utterance into validation"),
        (("validation",), "puts no labelled utterance into train or test"),
        (("train", "validation", "tset"), "column 'split' of 'u2' says 'tset'; it must say one of train,"),
        (("train", "", "test"), "column 'split' of 'u1' says ''"),
    ],
)
def test_official_says_what_the_column_split_lacks(splits, message):
    with pytest.raises(CorpusError, match=message):
        make_protocol("official", official(*splits))


def test_official_parts_with_common_talkers_need_a_name_that_says_so():
    corpus = official("train", "validation", "test", talkers="ABA")
    with pytest.raises(CorpusError, match=r"fold official: 1 talker is in both train and test: A"):
        make_protocol("official", corpus)
    protocol = make_protocol("official-TALKERS-SHARED", corpus)
    assert protocol.shares_talkers
    assert protocol.description.startswith("TALKERS SHARED: ")


def test_improvised_and_scripted_part_the_corpus():
    corpus = dialogues(5)
    tested = [
        {id_ for fold in make_protocol(f"sessions{part}", corpus).folds for id_ in fold.test}
        for part in ("", "/improvised", "/scripted")
    ]
    assert tested[0] == tested[1] | tested[2]
    assert not tested[1] & tested[2]
    assert make_protocol("sessions/improvised", corpus).description == (
        "One session is tested, the next validates, the others train. Only improvised speech. "
        "Over 5 fold(s), 80 of 80 labelled utterances are tested, each once."
    )


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("talkers", [("A", "", "", "")], "no utterance has an emotion, so there is nothing"),
        ("talkers/scripted", [("A", "", "sad", "improvised")], "says 'scripted' in column 'part'"),
        (
            "sessions",
            [("A", "1", "sad", ""), ("B", "", "sad", "")],
            r"1 of 2 utterances have no session \('u001'",
        ),
        ("sessions", [("A", "1", "sad", ""), ("B", "2", "sad", "")], "there is only session-1, session-2"),
        ("talkers", [("A", "", "sad", ""), ("B", "", "sad", "")], "there is only talker-A, talker-B"),
        ("talkers", [("A", "1", "sad", ""), ("B", "1", "sad", "")], "train is empty"),
        (
            "talkers-5",
            [("A", "", "sad", ""), ("B", "", "sad", "")],
            "5 groups cannot be made of 2 talkers: K must be 3",
        ),
        ("talkers-2", [("A", "", "sad", ""), ("B", "", "sad", "")], "2 groups cannot be made of 2 talkers"),
        ("random-3-TALKERS-SHARED", [("A", "", "sad", "")], "3 groups cannot be made of 1 utterances"),
        (
            "sessions-random20",
            [("A", "1", "sad", ""), ("B", "2", "sad", "")],
            "too few to train on and to draw",
        ),
        ("sessions-ORACLE-val-is-test", [("A", "1", "sad", "")], "train is empty"),
        ("sessions", [("A", s, "sad", "") for s in "123"], "1 talker is in both train and test: A"),
    ],
)
def test_what_cannot_be_split_says_why(name, rows, message):
    with pytest.raises(CorpusError, match=message) as caught:
        make_protocol(name, corpus_of(rows))
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "session",
        "talkers-x",
        "talkers-",
        "sessions/",
        "sessions/read",
        "random-5",
        "sessions-random30",
        "official-x",
    ],
)
def test_an_unknown_name_is_answered_with_all_names(name):
    with pytest.raises(UsageError) as caught:
        make_protocol(name, dialogues(3))
    assert all(known in str(caught.value) for known in PROTOCOL_NAMES)
    assert repr(name) in str(caught.value)


def test_the_folds_file_is_asked_for_and_never_ignored(tmp_path):
    with pytest.raises(
        UsageError, match=r"protocol emobox: needs EmoBox's folds: .*--folds-file, see docs/protocols\.md"
    ):
        make_protocol("emobox", dialogues(3))
    with pytest.raises(UsageError, match="protocol sessions: reads no folds file"):
        make_protocol("sessions", dialogues(3), folds_file=tmp_path)


@pytest.fixture(scope="module")
def iemocap(shared) -> Corpus:
    with (shared / "data" / "iemocap_5531.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Corpus(
        "iemocap",
        tuple(
            Utterance(
                row["utterance"],
                Path(row["utterance"]),
                talker=row["utterance"][3:5] + row["utterance"].split("_")[-1][0],
                emotion={"exc": "hap"}.get(row["emotion"], row["emotion"]),
                session=row["utterance"][4],
                extra={"part": "improvised" if "impro" in row["utterance"] else "scripted"},
            )
            for row in rows
        ),
    )


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("sessions", [1085, 1023, 1151, 1031, 1241]),
        ("sessions-random20", [1085, 1023, 1151, 1031, 1241]),
        ("sessions-ORACLE-val-is-test", [1085, 1023, 1151, 1031, 1241]),
        ("sessions/improvised", [521, 530, 627, 534, 731]),
        ("sessions/scripted", [564, 493, 524, 497, 510]),
        ("talkers", [528, 557, 481, 542, 522, 629, 528, 503, 590, 651]),
    ],
)
def test_iemocap_has_the_published_fold_sizes(iemocap, name, sizes):
    protocol = make_protocol(name, iemocap)
    assert [len(fold.test) for fold in protocol.folds] == sizes
    assert protocol.labels == ("ang", "hap", "neu", "sad")


def test_iemocap_sessions_leave_three_sessions_to_train_on(iemocap):
    first = make_protocol("sessions", iemocap).folds[0]
    assert (len(first.train), len(first.validation)) == (1151 + 1031 + 1241, 1023)
