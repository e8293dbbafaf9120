from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serein.corpus.protocol import Fold
from serein.frames.batches import FrameArray
from serein.frames.beside import pack_beside
from serein.model import EncoderDescription, ModelConfig
from serein.recipe import Model, Recipe
from serein.train.heads import HEADS
from serein.train.names import NAMES
from serein.train.objectives import against_talkers, hardest_half, plain, with_quantization
from serein.train.systems import SYSTEMS
from serein.train.task import Task

ENCODER = EncoderDescription(
    name="e", revision="", fingerprint="", layers=(0, 1), width=5, settings={}, pool=1, frame_rate=50.0
)
CONFIG = ModelConfig(
    architecture="classifier", model=Model(), encoder=ENCODER, max_frames=9, labels=("angry", "neutral", "sad")
)
ARRAY = FrameArray(tuple("abcde"), torch.zeros(10, 2, 5).half(), torch.full((5,), 2), 50.0)
TASK = Task(
    ARRAY, torch.zeros(5, dtype=torch.long), torch.tensor([0, 3, 1, 2, 0]), Fold("f", ("a",), ("b",), ("c",)),
    CONFIG, Recipe(), 0, Path("nowhere"),
)  # fmt: skip
LOG_MEL = FrameArray(ARRAY.ids, torch.zeros(10, 1, 80).half(), ARRAY.lengths, 50.0)


def task_of(name: str) -> Task:
    return replace(TASK, array=pack_beside(ARRAY, LOG_MEL)) if name == "co-att" else TASK


@pytest.mark.parametrize("name", HEADS)
def test_every_head_fits_the_tasks_frames_and_labels(name):
    torch.manual_seed(0)
    task = task_of(name)
    model = HEADS[name].build(task).eval()
    layers = task.array.layers
    assert model.front_end.mean.shape == model.front_end.deviation.shape == (layers, 5)
    frames, padding = torch.randn(3, 7, layers, 5), torch.zeros(3, 7, dtype=torch.bool)
    assert model(frames, padding).shape == (3, 3)
    assert model.embed(frames, padding).shape[0] == 3


@pytest.mark.parametrize("name", HEADS)
def test_mixed_precision_leaves_the_logits_apart(name):
    torch.manual_seed(0)
    task = task_of(name)
    model = HEADS[name].build(task).eval()
    frames, padding = torch.randn(64, 7, task.array.layers, 5), torch.zeros(64, 7, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(frames, padding)
    assert logits.dtype is torch.float32
    assert not logits.equal(logits.bfloat16().float())


def test_each_head_minimises_what_its_source_does():
    assert {name: head.objective for name, head in HEADS.items()} == {
        "superb": plain,
        "emobox": plain,
        "emotion2vec": plain,
        "w2v2-pt": plain,
        "snp": against_talkers,
        "head-k": hardest_half,
        "co-att": plain,
        "lpmn": with_quantization,
    }


def test_snp_has_an_output_for_every_talker_that_is_trained_on_and_for_nobody_else():
    assert HEADS["snp"].build(TASK).talker_output.out_features == 2
    oracle = replace(TASK, fold=Fold("f", ("a", "c", "d"), ("e",), ("e",)))
    assert HEADS["snp"].build(oracle).talker_output.out_features == 3


@pytest.mark.parametrize(("rate", "steps"), [(50.0, 1), (25.0, 2), (50.0 / 3, 3), (12.5, 4)])
def test_co_att_knows_how_many_log_mel_frames_an_encoder_frame_lasts(rate, steps):
    model = HEADS["co-att"].build(replace(TASK, array=replace(ARRAY, frame_rate=rate)))
    assert (model.layers, model.steps, model.bands) == (2, steps, 80)


def test_emotion2vecs_head_is_emoboxs():
    shapes = [[tuple(p.shape) for p in HEADS[name].build(TASK).parameters()] for name in ("emotion2vec", "emobox")]
    assert shapes[0] == shapes[1]


def test_names_in_tables_tell_the_systems_apart_and_every_system_has_one():
    assert set(NAMES) == SYSTEMS.keys() - {"adapter"}
    assert len(set(NAMES.values())) == len(NAMES)
