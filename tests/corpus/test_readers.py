import importlib.util
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from serein.corpus.corpus import Corpus
from serein.corpus.readers import READERS, release_gaps
from serein.corpus.readers.emodb import read_emodb
from serein.corpus.readers.ravdess import read_ravdess
from serein.corpus.readers.urdu import read_urdu
from serein.errors import CorpusError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "corpora.md"

ONE_OF_EACH = {
    "emodb": "wav/03a01Fa.wav",
    "ravdess": "Actor_01/03-01-01-01-01-01-01.wav",
    "urdu": "Angry/SM1_F1_A01.wav",
}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def labels(corpus: Corpus) -> Counter[str]:
    return Counter(utterance.emotion for utterance in corpus)


def test_a_ravdess_name_says_all(tmp_path: Path) -> None:
    (utterance,) = read_ravdess(touch(tmp_path, "Actor_12/03-01-06-02-02-01-12.wav"))
    assert utterance.id == "03-01-06-02-02-01-12"
    assert utterance.path == tmp_path / "Actor_12" / "03-01-06-02-02-01-12.wav"
    assert (utterance.talker, utterance.emotion, utterance.text) == ("12", "fearful", "dogs")
    assert (utterance.session, utterance.seconds, utterance.audio_hash) == ("", None, "")
    assert utterance.extra == {"intensity": "strong", "repetition": "1", "gender": "female", "actor": "12"}


def test_every_reader_says_of_which_release_its_utterances_are(tmp_path: Path) -> None:
    names = {"ravdess": "03-01-06-02-02-01-12.wav", "emodb": "wav/03a01Wa.wav", "urdu": "Angry/SM1_F01_A12.wav"}
    for reader, name in names.items():
        corpus = READERS[reader](touch(tmp_path / reader, name))
        assert (len(corpus), corpus.releases) == (1, (reader,))
        corpus.to_csv(tmp_path / "any name.csv")
        assert Corpus.from_csv(tmp_path / "any name.csv").releases == (reader,)
    assert names.keys() | {"iemocap"} == READERS.keys()


def test_ravdess_song_video_and_strangers_are_passed_over(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Actor_01/03-01-03-01-01-02-01.wav",
        "Actor_01/03-02-03-01-01-02-01.wav",
        "Actor_01/01-01-03-01-01-02-01.mp4",
        "Actor_01/02-01-03-01-01-02-01.wav",
        "Actor_01/03-01-03-01-01-02-01 copy.wav",
        "Actor_25/03-01-03-01-01-02-25.wav",
        "Actor_01/03-01-03-01-01-02-01.txt",
    )
    (utterance,) = read_ravdess(tmp_path)
    assert (utterance.emotion, utterance.text, utterance.extra["repetition"]) == ("happy", "kids", "2")
    assert utterance.extra["gender"] == "male"


def test_links_to_folders_are_followed_each_folder_once(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "one/03-01-03-01-01-02-01.wav", "two/03-01-03-01-01-02-02.wav")
    root = tmp_path / "corpus"
    root.mkdir()
    (root / "Actor_01").symlink_to(tmp_path / "disk" / "one")
    (root / "again").symlink_to(tmp_path / "disk" / "one")
    (root / "Actor_02").symlink_to(tmp_path / "disk" / "two")
    (tmp_path / "disk" / "one" / "round").symlink_to(root)
    found = read_ravdess(root)
    assert [utterance.talker for utterance in found] == ["01", "02"]
    assert [utterance.path.parent for utterance in found] == [root / "Actor_01", root / "Actor_02"]


def test_an_emodb_name_says_all(tmp_path: Path) -> None:
    angry, bored = read_emodb(touch(tmp_path, "wav/16b10Lb.wav", "wav/03a01Wa.wav"))
    assert (angry.id, angry.talker, angry.emotion, angry.text) == ("03a01Wa", "03", "angry", "a01")
    assert angry.extra == {"gender": "male", "version": "a"}
    assert (bored.id, bored.talker, bored.emotion, bored.text) == ("16b10Lb", "16", "bored", "b10")
    assert bored.extra == {"gender": "female", "version": "b"}


def test_an_urdu_name_says_all(tmp_path: Path) -> None:
    female, male = read_urdu(touch(tmp_path, "Angry/SM24_F10_A022.wav", "Sad/SF3_F1_S012.wav"))
    assert (female.id, female.talker, female.emotion) == ("SF3_F1_S012", "SF3", "sad")
    assert (male.id, male.talker, male.emotion) == ("SM24_F10_A022", "SM24", "angry")
    assert [utterance.extra for utterance in (female, male)] == [{"gender": "female"}, {"gender": "male"}]


@pytest.mark.parametrize(("name", "file"), ONE_OF_EACH.items())
def test_recordings_are_found_at_any_depth_and_paths_begin_with_the_root_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    touch(tmp_path, f"corpora/deeper/{file}")
    monkeypatch.chdir(tmp_path)
    (utterance,) = READERS[name](Path("corpora"))
    assert utterance.path == Path("corpora") / "deeper" / file


@pytest.mark.parametrize("suffix", [".flac", ".WAV"])
@pytest.mark.parametrize(("name", "file"), ONE_OF_EACH.items())
def test_flac_and_upper_case_suffixes_are_read(tmp_path: Path, name: str, file: str, suffix: str) -> None:
    touch(tmp_path, str(Path(file).with_suffix(suffix)))
    assert [utterance.id for utterance in READERS[name](tmp_path)] == [Path(file).stem]


@pytest.mark.parametrize(("name", "file"), ONE_OF_EACH.items())
def test_hidden_files_and_folders_are_passed_over_below_the_root_alone(tmp_path: Path, name: str, file: str) -> None:
    root = tmp_path / ".data"
    shadow = Path(file).with_name(f"._{Path(file).name}")
    touch(root, file, str(shadow), f"__MACOSX/{shadow}", f".Trash/{Path(file).name}")
    assert [utterance.path for utterance in READERS[name](root)] == [root / file]


@pytest.mark.parametrize(("name", "file"), ONE_OF_EACH.items())
def test_a_recording_that_is_there_twice_is_named_with_both_places(tmp_path: Path, name: str, file: str) -> None:
    touch(tmp_path, file, f"copy/{file}")
    with pytest.raises(CorpusError, match=f"{Path(file).stem} is there twice") as error:
        READERS[name](tmp_path)
    assert str(tmp_path / file) in str(error.value)
    assert str(tmp_path / "copy" / file) in str(error.value)


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_wrong_folder_is_told_what_was_looked_for_and_what_is_there(tmp_path: Path, name: str) -> None:
    touch(tmp_path, ".hidden", *(f"song{number}.wav" for number in range(7)))
    with pytest.raises(CorpusError, match="nothing of this corpus found; looked for ") as error:
        READERS[name](tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: ")
    assert str(error.value).endswith(
        "the folder holds song0.wav, song1.wav, song2.wav, song3.wav, song4.wav and 2 more"
    )


@pytest.mark.parametrize("name", sorted(READERS))
def test_an_empty_folder_and_no_folder_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError, match="the folder holds nothing"):
        READERS[name](tmp_path)
    with pytest.raises(CorpusError, match="nowhere: is not a folder; give the folder that holds "):
        READERS[name](tmp_path / "nowhere")


def test_gaps_name_labels_and_talkers(tmp_path: Path) -> None:
    names = [
        f"Actor_{actor:02}/03-01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor:02}.wav"
        for actor in range(1, 25)
        for emotion in range(1, 9)
        for intensity in ((1,) if emotion == 1 else (1, 2))
        for statement in (1, 2)
        for repetition in (1, 2)
    ]
    corpus = read_ravdess(touch(tmp_path, *names))
    assert len(corpus) == 1440
    assert release_gaps("ravdess", corpus) == []
    lost = {"03-01-05-01-01-01-07", "03-01-05-02-01-01-07", "03-01-01-01-02-02-24"}
    assert release_gaps("ravdess", corpus.select(lambda utterance: utterance.id not in lost)) == [
        "neutral: 95 of 96 utterances",
        "angry: 190 of 192 utterances",
        "talker 07: 58 of 60 utterances",
        "talker 24: 59 of 60 utterances",
    ]


def test_a_corpus_without_published_counts_has_no_gaps(tmp_path: Path) -> None:
    assert release_gaps("mine", read_emodb(touch(tmp_path, "03a01Wa.wav"))) == []


def test_the_real_ravdess_is_complete(shared: Path) -> None:
    corpus = READERS["ravdess"](shared / "data" / "ravdess")
    assert release_gaps("ravdess", corpus) == []
    assert (len(corpus), len(corpus.talkers)) == (1440, 24)
    assert labels(corpus) == {
        "neutral": 96,
        **dict.fromkeys(("calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"), 192),
    }
    assert Counter(utterance.text for utterance in corpus) == {"kids": 720, "dogs": 720}
    assert {utterance.talker for utterance in corpus if utterance.extra["gender"] == "female"} == {
        f"{actor:02}" for actor in range(2, 25, 2)
    }
    assert all(utterance.path.parent.name == f"Actor_{utterance.talker}" for utterance in corpus)


def test_the_real_emodb_is_complete(shared: Path) -> None:
    corpus = READERS["emodb"](shared / "data" / "emodb_2s")
    assert release_gaps("emodb", corpus) == []
    assert corpus.talkers == ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
    assert labels(corpus) == {
        "angry": 127,
        "bored": 81,
        "neutral": 79,
        "happy": 71,
        "fearful": 69,
        "sad": 62,
        "disgusted": 46,
    }
    assert len({utterance.text for utterance in corpus}) == 10
    assert Counter(utterance.extra["gender"] for utterance in corpus) == {"male": 233, "female": 302}


def test_the_real_urdu_is_complete_and_its_folders_agree_with_its_names(shared: Path) -> None:
    corpus = READERS["urdu"](shared / "data" / "urdu")
    assert release_gaps("urdu", corpus) == []
    assert labels(corpus) == {"angry": 100, "happy": 100, "neutral": 100, "sad": 100}
    assert all(utterance.path.parent.name.lower() == utterance.emotion for utterance in corpus)


def test_urdu_names_carry_29_talkers_of_whom_three_speak_in_more_than_one_emotion(shared: Path) -> None:
    emotions: dict[str, set[str]] = defaultdict(set)
    corpus = READERS["urdu"](shared / "data" / "urdu")
    for utterance in corpus:
        emotions[utterance.talker].add(utterance.emotion)
    assert Counter(talker[1] for talker in emotions) == {"M": 18, "F": 11}
    assert {talker for talker, heard in emotions.items() if len(heard) > 1} == {"SM3", "SM5", "SM6"}
    assert not emotions.keys() & {f"SM{number}" for number in range(8, 17)}
    assert sum(utterance.talker in ("SM3", "SM5", "SM6") for utterance in corpus) == 106


def test_readers_are_listed_in_the_docs_with_their_commands() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert all(f"serein corpus {name} " in text for name in READERS)


def test_the_table_in_the_docs_is_read(tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text(fenced("csv"), encoding="utf-8")
    corpus = Corpus.from_csv(tmp_path / "calls.csv")
    assert len(corpus) == 3
    assert corpus.labels == ("angry", "neutral")
    assert corpus.utterances[0].extra == {"channel": "phone"}


def test_the_reader_in_the_docs_reads(tmp_path: Path) -> None:
    source = tmp_path / "cremad.py"
    source.write_text(fenced("python"), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("cremad", source)
    assert spec is not None
    assert spec.loader is not None
    cremad = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cremad)
    names = ("1002_IEO_SAD_HI", "1001_DFA_ANG_XX", "1001_DFA_JOY_XX")
    corpus = cremad.read_cremad(touch(tmp_path, *(f"AudioWAV/{name}.wav" for name in names)))
    assert [(u.id, u.talker, u.emotion, u.text) for u in corpus] == [
        ("1001_DFA_ANG_XX", "1001", "angry", "DFA"),
        ("1002_IEO_SAD_HI", "1002", "sad", "IEO"),
    ]
    assert sum(cremad.PUBLISHED.values()) == 7442


def fenced(language: str) -> str:
    block = re.search(rf"^```{language}\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1]
