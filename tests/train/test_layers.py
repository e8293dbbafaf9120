import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serein.baselines.linear_probe import fit_linear_probes
from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Fold, Protocol
from serein.corpus.splits import make_protocol
from serein.errors import CorpusError, UsageError
from serein.evaluate.layers import score_layers
from serein.frames.store import STORE_FILE, FrameStore, write_shard
from serein.train import layers
from serein.train.crossval import classes_of
from serein.train.layers import look_at_layers, probe_layers
from serein.train.systems import PROBE_C


@pytest.fixture(scope="module")
def corpus(tone_store: FrameStore) -> Corpus:
    return tone_store.corpus()


@pytest.fixture(scope="module")
def protocol(corpus: Corpus) -> Protocol:
    return make_protocol("sessions", corpus)


def layered(tone_store: FrameStore, folder: Path, *, noise_for: tuple[str, ...] = ()) -> FrameStore:
    """Layers 2 and 9 of a made-up encoder: noise, and log-mel frames, which are noise too for some utterances."""
    shutil.copytree(tone_store.folder, folder)
    path = folder / STORE_FILE
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["encoder"]["layers"] = [2, 9]
    path.write_text(json.dumps(settings), encoding="utf-8")
    random = torch.Generator().manual_seed(0)
    for shard, header in tone_store.headers.items():
        array = tone_store.load().select(header.ids)
        noise = torch.randn(array.flat.shape, generator=random).half()
        for frames, of_noise, name in zip(
            array.flat.split(list(header.lengths)), noise.split(list(header.lengths)), header.ids, strict=True
        ):
            if name in noise_for:
                frames.copy_(of_noise)
        both = torch.cat([noise, array.flat], dim=1)
        write_shard(folder / shard.name, header.ids, both.split(list(header.lengths)), header.failed)
    return FrameStore(folder)


@pytest.fixture(scope="module")
def store(tone_store: FrameStore, tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return layered(tone_store, tmp_path_factory.mktemp("layered") / "frames")


def test_the_layer_that_carries_the_emotion_is_found_and_noise_is_read_as_by_chance(store, corpus, protocol):
    noise, tones = score_layers(probe_layers(store, corpus, protocol), protocol.labels)
    assert (noise.layer, tones.layer) == (2, 9)
    assert tones.scores.ua > 0.9
    assert noise.scores.ua < 0.5  # four emotions
    assert tones.folds == tuple(fold.name for fold in protocol.folds)


def test_every_fold_is_read_on_its_validation_utterances_alone(store, corpus, protocol):
    told = []
    found = probe_layers(store, corpus, protocol, report=lambda *step: told.append(step))
    utterances = corpus.by_id()
    for rows in found.values():
        assert [(row.fold, row.id) for row in rows] == [(f.name, name) for f in protocol.folds for name in f.validation]
        assert all((row.talker, row.truth) == (utterances[row.id].talker, utterances[row.id].emotion) for row in rows)
    steps = 2 * len(protocol.folds)
    assert [(stage, done, total) for stage, done, total, _ in told] == [("layers", n + 1, steps) for n in range(steps)]
    assert [facts["layer"] for *_, facts in told[:2]] == [2, 9]


def test_test_utterances_are_not_looked_at(store, tone_store, corpus, protocol, tmp_path):
    fold = replace(protocol, folds=protocol.folds[:1])
    spoilt = layered(tone_store, tmp_path / "spoilt", noise_for=fold.folds[0].test)
    assert spoilt.digest != store.digest
    assert probe_layers(spoilt, corpus, fold)[9] == probe_layers(store, corpus, fold)[9]
    spoilt = layered(tone_store, tmp_path / "more", noise_for=fold.folds[0].validation)
    assert probe_layers(spoilt, corpus, fold)[9] != probe_layers(store, corpus, fold)[9]


def test_of_a_probes_strengths_the_best_on_the_validation_utterances_speaks(store, corpus, protocol):
    fold = protocol.folds[0]
    statistics, labels = store.pooled(), classes_of(store.ids, corpus, protocol.labels)
    train, validation = (
        torch.tensor([store.ids.index(name) for name in part]) for part in (fold.train, fold.validation)
    )
    noise = statistics[:, :, 0].flatten(1)
    probes = fit_linear_probes(noise[train], labels[train], len(protocol.labels), *PROBE_C)
    said = [probe.read(noise[validation]).argmax(1) for probe in probes]
    right = [int((each == labels[validation]).sum()) for each in said]  # here each emotion is said equally often
    assert min(right) < max(right)
    rows = probe_layers(store, corpus, replace(protocol, folds=(fold,)))[2]
    assert sum(row.prediction == row.truth for row in rows) == max(right)


@pytest.mark.parametrize("name", ["sessions-ORACLE-val-is-test", "sessions-random20", "random-3-TALKERS-SHARED"])
def test_talkers_who_train_or_are_tested_choose_no_layer(store, corpus, name):
    with pytest.raises(
        UsageError, match=r"talker \w+ validates and (trains|is tested); layers are chosen on talkers who"
    ):
        probe_layers(store, corpus, make_protocol(name, corpus))


def test_what_cannot_be_probed_is_refused(store, corpus, protocol):
    first = protocol.folds[0]
    with pytest.raises(CorpusError, match="nobody validates"):
        probe_layers(store, corpus, replace(protocol, folds=(Fold("f", first.train, (), first.test),)))
    stranger = replace(first, train=(*first.train, "nobody"))
    with pytest.raises(CorpusError, match="nobody"):
        probe_layers(store, corpus, replace(protocol, folds=(stranger,)))


def test_nothing_is_extracted_for_folds_or_a_page_that_cannot_be(corpus, tmp_path, monkeypatch):
    def never():
        raise AssertionError("the encoder was loaded")

    for fold, said in (
        (lambda _: make_protocol("talker-5", corpus), "talker-5"),
        (lambda _: make_protocol("sessions-ORACLE-val-is-test", corpus), "is tested"),
    ):
        with pytest.raises((CorpusError, UsageError), match=said):
            look_at_layers(corpus, never, tmp_path / "out", fold)
    monkeypatch.setattr(layers, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"serein\[report\]"):
        look_at_layers(corpus, never, tmp_path / "out", lambda _: make_protocol("sessions", corpus))
    assert not (tmp_path / "out").exists()
