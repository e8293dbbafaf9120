"""Whole runs of the system that hears log-mel frames beside the encoder's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Protocol
from serein.corpus.splits import make_protocol
from serein.errors import StoreError, UsageError
from serein.evaluate.runs import load_run
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.frames.store import FrameStore
from serein.recipe import Recipe
from serein.train.crossval import cross_validate
from serein.train.study import benchmark_variants, run_study

LOGMEL = load_encoder("logmel")


@pytest.fixture(scope="module")
def mel(tones: Corpus, tmp_path_factory) -> FrameStore:
    return extract(tones, LOGMEL, tmp_path_factory.mktemp("mel") / "frames")


@pytest.fixture(scope="module")
def slow(tones: Corpus, tmp_path_factory) -> FrameStore:
    return extract(tones, LOGMEL, tmp_path_factory.mktemp("slow") / "frames", pool=2, speed=0.9)


@pytest.fixture(scope="module")
def one_fold(tone_store: FrameStore) -> Protocol:
    protocol = make_protocol("sessions", tone_store.corpus())
    return replace(protocol, folds=protocol.folds[:1])


@pytest.fixture(scope="module")
def brief(tiny_recipe: Recipe) -> Recipe:
    return Recipe.from_toml(
        tiny_recipe.to_toml(),
        ["finetune.epochs=9", "finetune.head_learning_rate=2e-3", "finetune.frame_masking=0.1", "adapt.data=none"],
    )


@pytest.fixture(scope="module")
def study(tone_store, mel, one_fold, brief, tmp_path_factory) -> Path:
    variants = benchmark_variants(["superb", "co-att"], brief, one_fold)
    return run_study(
        tone_store, tone_store.corpus(), variants, tmp_path_factory.mktemp("studies") / "study",
        kind="benchmark", title="Two", beside=[mel],
    )  # fmt: skip


def test_co_att_learns_and_its_run_says_what_stands_beside(study, mel, one_fold):
    run = load_run(study / "co-att")
    assert (run.system, run.name) == ("co-att", "Co-att")
    right = [row.truth == row.prediction for row in run.predictions]
    assert sum(right) / len(right) > 0.5  # chance: 0.25
    said = json.loads((study / "co-att" / "run.json").read_text())
    made, corpus = mel.settings["encoder"]["fingerprint"][:12], mel.settings["corpus"]["hash"]
    assert said["beside"] == [f"logmel {made}, speed 1, corpus {corpus}"]
    with safe_open(study / "co-att/folds" / one_fold.folds[0].name / "seed-0/embeddings.safetensors", "pt") as file:
        assert file.get_tensor("system").shape == (len(one_fold.folds[0].test), 128)


def test_other_systems_of_the_benchmark_leave_it_aside(study, tone_store, one_fold, brief, tmp_path):
    alone = cross_validate(tone_store, tone_store.corpus(), one_fold, tmp_path / "run", brief, system="superb")
    assert "beside" not in json.loads((study / "superb" / "run.json").read_text())
    assert (study / "superb/predictions.csv").read_bytes() == (alone / "predictions.csv").read_bytes()


def test_a_run_killed_inside_a_fold_continues_to_the_same_bytes(study, tone_store, mel, one_fold, brief, tmp_path):
    def kill(stage, done, total, facts):
        if (stage, done) == ("refit", 2):
            raise KeyboardInterrupt

    given = (tone_store, tone_store.corpus(), one_fold, tmp_path / "run")
    saving = Recipe.from_toml(brief.to_toml(), ["speed.checkpoint_seconds=0"])
    with pytest.raises(KeyboardInterrupt):
        cross_validate(*given, saving, system="co-att", beside=[mel], report=kill)
    first = []
    cross_validate(*given, brief, system="co-att", beside=[mel], report=lambda *step: first.append(step[:2]))
    assert first[0] == ("refit", 3)
    for name in ("predictions.csv", f"folds/{one_fold.folds[0].name}/seed-0/history.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (study / "co-att" / name).read_bytes()


def test_a_run_is_not_continued_beside_other_frames(study, tone_store, tones, one_fold, brief, tmp_path):
    longer = replace(tones, utterances=tuple(replace(u, seconds=9.0) for u in tones))
    other = extract(longer, LOGMEL, tmp_path / "mel")
    with pytest.raises(StoreError, match="holds a run with another beside;"):
        cross_validate(
            tone_store, tone_store.corpus(), one_fold, study / "co-att", brief, system="co-att", beside=[other]
        )


@pytest.mark.parametrize(("views", "given"), [(0, 0), (0, 2), (1, 1), (1, 0)])
def test_co_att_needs_log_mel_frames_for_the_corpus_and_each_view(
    tone_store, mel, slow, one_fold, brief, tmp_path, views, given
):
    with pytest.raises(UsageError, match=rf"give --beside for the corpus, .*\({1 + views} in all, here are {given}\)"):
        cross_validate(
            tone_store, tone_store.corpus(), one_fold, tmp_path / "run", brief, system="co-att",
            views=[slow] * views, beside=[mel] * given,
        )  # fmt: skip
    variants = benchmark_variants(["superb", "co-att"], brief, one_fold)
    with pytest.raises(UsageError, match="--beside"):
        run_study(
            tone_store, tone_store.corpus(), variants, tmp_path / "study", kind="benchmark", title="t",
            views=[slow] * views, beside=[mel] * given,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
