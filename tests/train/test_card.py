import ast
import re
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import serein
from serein.corpus.about import KNOWN
from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.protocol import Fold, Protocol
from serein.corpus.readers import READERS
from serein.corpus.splits import make_protocol
from serein.evaluate.calibration import Calibration
from serein.evaluate.comparison import ends
from serein.evaluate.predictions import Prediction
from serein.evaluate.runs import FoldRun, Run, load_run
from serein.evaluate.summary import summarise
from serein.model import EncoderDescription, ModelConfig
from serein.recipe import Recipe
from serein.train.card import Made, adapter_card, model_card
from serein.train.crossval import cross_validate
from serein.train.ship import ORIGINS

COMMIT = "e37978b90ca9030d5170a5c07aadb050351a65bb"
ENCODER = EncoderDescription(
    name="openai/whisper-base", revision=COMMIT, fingerprint="abcdef012345" + "0" * 52, layers=(2, 3), width=512,
    settings={}, pool=4, frame_rate=12.5,
)  # fmt: skip
RECIPE = Recipe.from_toml("", ["model.members=5", "adapt.data=none"])
CONFIG = ModelConfig(
    architecture="classifier", model=RECIPE.model, encoder=ENCODER, max_frames=375, labels=("angry", "sad"),
    speeds=(1.0, 0.9), temperature=1.25, abstain_below=0.5,
)  # fmt: skip
CALIBRATION = Calibration(1.25, 0.1234, 0.0567, 0.9, 0.8, 0.75, 0.875, 0.9, talkers=2, utterances=240)
CORPUS = Corpus(
    "ravdess",
    tuple(
        Utterance(f"{talker}-{emotion}-{take}", Path("/home/ann/a.wav"), talker, emotion, release="ravdess")
        for talker in ("01", "02", "03")
        for emotion, takes in (("angry", 2), ("sad", 1))
        for take in range(takes)
        if (talker, emotion) != ("03", "sad")
    ),
)
MADE = Made(
    CORPUS, CONFIG, RECIPE, "The adapter was not trained without labels.",
    {"epochs": 4, "validation_ua": 0.6251, "validation_wa": 0.7}, CALIBRATION, None,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tone_store, tiny_recipe, tmp_path_factory) -> Run:
    corpus = tone_store.corpus()
    folder = tmp_path_factory.mktemp("run")
    protocol = make_protocol("sessions", corpus, seed=0)
    return load_run(cross_validate(tone_store, corpus, protocol, folder, tiny_recipe, system="linear", seeds=[0, 1]))


def text(**changes) -> str:
    return " ".join(model_card(replace(MADE, **changes)).split())


def test_the_hubs_own_parser_reads_the_front_matter():
    data = ModelCard(model_card(MADE)).data
    assert data.library_name == "serein"
    assert data.pipeline_tag == "audio-classification"
    assert data.base_model == "openai/whisper-base"
    assert data.language == "en"
    assert "speech-emotion-recognition" in data.tags
    assert data.eval_results is None
    assert data.license is None  # a model's licence is its owner's to choose


def test_scores_of_a_run_are_a_model_index_and_a_table_with_intervals(run):
    card = ModelCard(model_card(replace(MADE, run=run)))
    summary = summarise(run)
    pooled = summary.pooled
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    expected = {"recall": pooled.ua, "accuracy": pooled.wa, "f1": pooled.macro_f1}
    assert found == {name: pytest.approx(value, abs=1e-4) for name, value in expected.items()}
    for result in card.data.eval_results:
        assert result.dataset_name == f"RAVDESS, protocol {run.protocol.name} ({run.protocol.hash})"
        assert "cross-validated" in result.task_name
    interval = summary.intervals.ua
    row = f"| UA, mean of the labels' recalls | {100 * pooled.ua:.1f} % |"
    assert f"{row} {ends(interval)} |" in card.text
    assert f"hash `{run.protocol.hash}`" in card.text
    assert "2 seeds" in card.text
    assert "Remarks:" not in card.text
    assert str(run.folder) not in card.content


def test_what_makes_scores_less_than_they_seem_is_said(run):
    doubtful = replace(
        run,
        synthetic=True,
        leaks=("fold fold_1: a text is in both", "fold fold_2: a text is in both", "fold fold_2: b", "text of fold 1"),
        adapter_training="transductive",
    )
    said = text(run=doubtful)
    assert "Remarks: transductive: intervals too narrow, synthetic voices." in said
    assert "Shared between the parts of fold_1, fold_2: a text is in both." in said
    assert "Shared between the parts of fold_2: b." in said
    assert "Shared between the parts of a fold: text of fold 1." in said
    assert {result.task_name for result in ModelCard(model_card(replace(MADE, run=doubtful))).data.eval_results} == {
        "speech emotion recognition, cross-validated with the same settings; transductive: intervals too narrow; "
        "synthetic voices"
    }


def test_scores_without_an_interval_are_called_unknown():
    fold = Fold("only", train=("a",), validation=("b",), test=("c", "d"))
    protocol = Protocol("one", "One fold.", "toy", ("angry", "sad"), (fold,))
    rows = tuple(Prediction(id_, "01", "only", 0, label, label) for id_, label in (("c", "angry"), ("d", "sad")))
    alone = Run(
        folder=Path("run"), system="adapter", name="adapter", adapter_training="none", talker_statistics="none",
        seeds=(0,), command="", corpus="toy", encoder={}, synthetic=False, leaks=(), without_frames={},
        protocol=protocol, recipe="", environment={}, predictions=rows,
        fold_runs=(FoldRun("only", 0, {}, 0, {}, {}, False, {}, Path("e")),),
    )  # fmt: skip
    assert "| 100.0 % | unknown |" in text(run=alone)


def test_the_corpus_is_counted_by_class():
    said = model_card(MADE)
    assert "| angry | 6 | 3 |\n| sad | 2 | 2 |\n| all | 8 | 3 |" in said
    assert "RAVDESS (English, two acted sentences). Terms: CC BY-NC-SA 4.0." in said


def test_of_an_unknown_corpus_nothing_is_invented():
    own = replace(CORPUS, utterances=tuple(replace(one, release="") for one in CORPUS))
    for unknown in (replace(own, name="calls of 2024: yes|no"), own):  # a table of calls may be named ravdess too
        card = ModelCard(model_card(replace(MADE, corpus=unknown)))
        assert card.data.language is None
        assert "its terms are not known to serein" in card.text


def test_of_two_known_corpora_both_are_told_and_of_a_part_that_is_unknown_that_it_is():
    first, *others = CORPUS.utterances
    two = replace(CORPUS, name="both", utterances=(replace(first, release="iemocap"), *others))
    card = ModelCard(model_card(replace(MADE, corpus=two)))
    assert card.data.language == "en"
    assert "not to be passed on. RAVDESS (English, two acted sentences). Terms: CC BY-NC-SA 4.0." in card.text
    german = replace(CORPUS, utterances=(replace(first, release="emodb"), *others))
    assert ModelCard(model_card(replace(MADE, corpus=german))).data.language == ["de", "en"]
    partly = replace(CORPUS, name="partly", utterances=(replace(first, release=""), *others))
    card = ModelCard(model_card(replace(MADE, corpus=partly)))
    assert card.data.language is None
    assert "Terms: CC BY-NC-SA 4.0. The rest of corpus partly; its terms are not known to serein." in card.text
    assert "It learned from English, two acted sentences; the talkers and the speech of partly." in card.text


def test_what_is_known_of_corpora_is_what_the_documents_say():
    assert KNOWN.keys() == READERS.keys() | {"espeak-demo"}
    documents = (Path(__file__).resolve().parents[2] / "docs" / "corpora.md").read_text(encoding="utf-8")
    for name in READERS:
        about = KNOWN[name]
        assert re.search(rf"\[{about.title}\].*serein corpus {name} .*\| {about.language} \|", documents)
    assert KNOWN["ravdess"].terms in documents


def test_calibration_and_abstention_are_reported():
    said = text()
    assert "divided by the temperature 1.250" in said
    assert "240 utterances of the 2 talkers" in said
    assert "5 averaged networks" in said
    assert "| 0.123 | 0.057 |" in said
    assert "| 0.900 | 0.800 |" in said
    assert "Below a best probability of 0.5 it is not sure. It was sure of 75.0 %" in said
    assert "UA was 87.5 % and WA 90.0 %" in said
    assert "not sure" not in text(config=CONFIG.model_copy(update={"abstain_below": 0.0}))
    of_one = text(calibration=replace(CALIBRATION, error_after=nan, talkers=1))
    assert of_one.count("Below a best probability of 0.5 it is not sure.") == 1
    nothing_kept = replace(CALIBRATION, coverage=0.0, ua=nan, wa=nan)
    assert "on them UA was unknown" in text(calibration=nothing_kept)


def test_who_chose_the_epochs_is_counted():
    said = text()
    assert "2 of the 3 talkers chose the number of epochs (4), then all of them trained the model" in said
    assert "On the 240 utterances of those who chose, UA was 62.5 % and WA 70.0 %: a validation score" in said
    one = replace(CALIBRATION, talkers=1, utterances=1)
    assert "1 of the 3 talkers chose the number of epochs" in text(calibration=one)
    assert "fifth" not in said + " ".join(ORIGINS.values())


def test_limits_are_said():
    said = text()
    for limit in ("perceive them, not as talkers feel them", "Not for decisions about people", "English, two acted"):
        assert limit in said
    assert "No licence is stated" in said


@pytest.mark.parametrize("make", [lambda made: model_card(made), lambda m: adapter_card(m.corpus, m.config, m.recipe)])
def test_a_card_names_no_folder_of_this_machine(make):
    local = CONFIG.encoder.model_copy(update={"name": "/home/ann/encoders/hubert-mine", "revision": ""})
    card = make(replace(MADE, config=CONFIG.model_copy(update={"encoder": local})))
    assert "/home" not in card
    assert "a folder named `hubert-mine`" in card
    assert "abcdef012345" in card
    assert ModelCard(card).data.base_model is None


def test_the_encoder_is_named_with_its_commit():
    assert f"`openai/whisper-base` at commit `{COMMIT}` (layers 2, 3, 12.5 frames a second)" in text()
    mel = CONFIG.encoder.model_copy(update={"name": "logmel", "revision": ""})
    assert "log-mel frames (12.5 frames a second)" in text(config=CONFIG.model_copy(update={"encoder": mel}))


def test_how_to_load_it_is_three_lines_of_python_that_parse():
    code = model_card(MADE).partition("```python\n")[2].partition("```")[0]
    (imported, assigned, _) = ast.parse(code).body
    assert [alias.name for alias in imported.names] == ["EmotionRecognizer"]
    assert hasattr(getattr(serein, "EmotionRecognizer"), assigned.value.func.attr)  # noqa: B009


def test_the_recipe_is_there_whole():
    code = model_card(MADE).partition("```toml\n")[2].partition("```")[0]
    assert Recipe.from_toml(code) == RECIPE


def test_an_adapters_card_says_that_it_names_no_emotion():
    card = ModelCard(adapter_card(CORPUS, CONFIG, RECIPE))
    assert card.data.pipeline_tag is None
    assert card.data.base_model == "openai/whisper-base"
    assert "It names no emotion yet" in card.text
    assert "serein train frames/ --adapter" in card.text
    assert "8 utterances, 3 talkers" in card.text
