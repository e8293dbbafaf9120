import io
import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from serein.cli_look import look as commands
from serein.errors import ModelError, StoreError, UsageError
from serein.evaluate.attributes import NearestFrame
from serein.frames.audio import load_audio
from serein.frames.loudness import frame_energy_and_voicing
from serein.frames.store import FrameStore
from serein.model import build_adapter, load_config, load_model, save_model
from serein.nn.attributes import LocalAttributes
from serein.nn.distillation import SelfDistillation
from serein.recipe import Recipe
from serein.train.adapt import adapt
from serein.train.adapter_folder import adapt_store
from serein.train.inspect import _hear, assign_frames, cut_clip, load_attributes, look, save_attributes


@pytest.fixture(scope="module")
def adapter(tone_store: FrameStore, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("adapter")
    adapt_store(tone_store, folder, tiny_recipe)
    return folder


@pytest.fixture
def copied(adapter, tmp_path):
    """A copy of the adapter's folder that a test may spoil."""
    for path in adapter.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_loudness_and_voicing_are_heard_at_the_rate_of_the_frames(tone_store):
    array, (utterance, *_) = tone_store.load(), tone_store.corpus().utterances
    place = array.ids.index(utterance.id)
    alone = replace(array, lengths=array.lengths[place : place + 1])
    heard = _hear((utterance,), alone, lambda *_: None)
    expected = frame_energy_and_voicing(load_audio(utterance.path), int(array.lengths[place]), 25.0)
    assert all(np.array_equal(*pair) for pair in zip(heard, expected, strict=True))
    assert tone_store.settings["frame_rate"] == 25.0


def test_the_attributes_of_the_training_stand_beside_the_adapter(adapter, tone_store, tiny_recipe):
    assert {path.name for path in adapter.iterdir()} == {
        "config.json",
        "model.safetensors",
        "attributes.safetensors",
        "README.md",
    }
    array = tone_store.load()
    config = load_model(adapter)[1]
    trained = adapt(array, array.indices(array.ids), config, tiny_recipe)
    saved = load_attributes(adapter)
    assert saved.prototypes.equal(trained.attributes.prototypes)
    assert saved.target_norm == "none"


@pytest.mark.parametrize("target_norm", ["none", "layer"])
def test_frames_are_assigned_as_training_assigns_them(adapter, tone_store, target_norm):
    array = tone_store.load()
    network = load_model(adapter)[0]
    saved = load_attributes(adapter)._replace(target_norm=target_norm)
    attributes = LocalAttributes(*saved.prototypes.shape)
    attributes.prototypes.copy_(saved.prototypes)
    attributes.started.fill_(True)
    training = SelfDistillation(network, attributes, target_norm=target_norm)
    batch = array.batch(torch.arange(len(array.ids)))
    hidden = torch.zeros_like(batch.padding_mask)
    hidden[:, 0] = True
    output = training(batch.frames, batch.padding_mask, hidden, torch.Generator())
    told = []
    found = assign_frames(
        network, saved, array, device="cpu", budget=300, report=lambda *event: told.append(event[1:3])
    )
    assert len(told) > 3
    assert told[-1] == (len(told), len(told))
    assert len(found.assignments) == len(array.flat)
    assert (found.assignments == output.assignments.numpy()).mean() > 0.999  # batches differ in the last digit
    nearest = torch.cdist(output.teacher_frames, saved.prototypes).square().min(1).values
    np.testing.assert_allclose(found.distances, nearest.detach().numpy(), rtol=1e-3, atol=1e-4)


def test_attributes_of_other_weights_are_refused(copied, tiny_recipe):
    network, config = load_model(copied)
    with torch.no_grad():
        next(iter(network.parameters())).add_(1.0)
    path = copied / "attributes.safetensors"
    before = path.read_bytes()
    save_model(copied, network, config)
    assert not path.exists()
    path.write_bytes(before)
    with pytest.raises(ModelError, match="belongs to other weights"):
        load_attributes(copied)
    save_attributes(copied, torch.ones(3, 16), tiny_recipe.adapt)
    assert load_attributes(copied).prototypes.equal(torch.ones(3, 16))


def test_a_student_is_not_taken_for_the_teacher(copied, tiny_recipe):
    settings = tiny_recipe.adapt.model_copy(update={"hand_on": "student"})
    save_attributes(copied, torch.ones(3, 16), settings)
    with pytest.raises(ModelError, match=r"holds the student.*--set adapt.hand_on=teacher"):
        load_attributes(copied)


def test_missing_and_damaged_attributes_are_told_apart(copied):
    path = copied / "attributes.safetensors"
    save_file(load_file(path), path)  # without what the file says of itself
    with pytest.raises(ModelError, match="is damaged"):
        load_attributes(copied)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="is damaged"):
        load_attributes(copied)
    path.unlink()
    with pytest.raises(ModelError, match=r"has no attributes\.safetensors; run `serein adapt` again"):
        load_attributes(copied)


def test_attributes_without_their_weights_are_told(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors; run `serein adapt` again"):
        load_attributes(copied)


def test_without_matplotlib_nothing_is_begun(adapter, tone_store, tmp_path, monkeypatch):
    monkeypatch.setattr("serein.train.inspect.find_spec", lambda name: None)
    begun = []
    with pytest.raises(UsageError, match=r"pip install 'serein\[report\]'"):
        look(tone_store, adapter, tmp_path, report=lambda *step: begun.append(step))
    assert not begun


def test_saving_the_same_attributes_gives_the_same_bytes(copied, tiny_recipe):
    path = copied / "attributes.safetensors"
    before = path.read_bytes()
    save_attributes(copied, load_attributes(copied).prototypes, tiny_recipe.adapt)
    assert path.read_bytes() == before
    with safe_open(path, framework="pt") as file:
        assert set(file.metadata()) == {"serein"}


def test_an_encoder_that_was_moved_gives_the_same_frames(copied, tone_store, tmp_path):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    config["encoder"]["name"] = "elsewhere/encoder"
    path.write_text(json.dumps(config))
    assert look(tone_store, copied, tmp_path / "page")


@pytest.mark.parametrize("change", ["encoder", "positions"])
def test_an_adapter_of_other_frames_is_refused(copied, tone_store, tmp_path, change):
    config = load_config(copied)
    other = {
        "encoder": {"encoder": config.encoder.model_copy(update={"pool": 7})},
        "positions": {"max_frames": 4},
    }[change]
    config = config.model_copy(update=other)
    save_model(copied, build_adapter(config), config)
    with pytest.raises(ModelError, match="is not an adapter for these frames"):
        look(tone_store, copied, tmp_path / "page")


def test_frames_of_another_speed_than_the_recordings_are_refused(adapter, tone_store, tmp_path):
    slow = FrameStore(tone_store.folder)
    slow.settings = slow.settings | {"speed": 0.9}
    with pytest.raises(StoreError, match=r"holds frames at speed 0\.9.*without --speed"):
        look(slow, adapter, tmp_path / "page")


def test_a_clip_is_half_a_second_round_the_frame_and_less_at_the_ends(tones):
    utterance = next(u for u in tones if u.seconds > 0.8)
    samples = load_audio(utterance.path)
    for middle, first, last in ((0.4, 2_400, 10_400), (0.1, 0, 5_600), (utterance.seconds, len(samples) - 4_000, None)):
        clip, rate = soundfile.read(io.BytesIO(cut_clip(NearestFrame(utterance, middle, 0.0))), dtype="float32")
        assert rate == 16_000
        np.testing.assert_allclose(clip, samples[first:last], atol=2 / 32_768)


def test_the_command_looks_at_a_store_and_leaves_a_page(adapter, tone_store, tmp_path):
    app = typer.Typer()
    app.callback()(lambda: None)
    app.add_typer(commands)  # as the console script mounts it
    arguments = ["attributes", tone_store.folder, adapter, "-o", tmp_path / "page", "--clips", "2"]
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0
    page = tmp_path / "page"
    assert {path.name for path in page.iterdir()} == {
        "attributes.html",
        "attributes.md",
        "attributes.json",
        "clips",
        "figures",
    }
    numbers = json.loads((page / "attributes.json").read_text())
    array = tone_store.load()
    network, _ = load_model(adapter)
    assigned = assign_frames(network, load_attributes(adapter), array, device="cpu")
    assert numbers["counts"] == np.bincount(assigned.assignments, minlength=16).tolist()
    rows = {row["name"]: row for row in numbers["information"]}
    assert set(rows) >= {"emotion", "talker", "loudness", "position"}
    assert rows["emotion"]["nmi"] > rows["emotion"]["shuffled_high"]  # they hum at other pitches
    for near in numbers["nearest"]:
        utterance = tone_store.corpus().by_id()[near["id"]]
        assert near["talker"] == utterance.talker
        assert 0 < near["seconds"] < utterance.seconds + 0.04
    for clip in (page / "clips").iterdir():
        assert soundfile.info(clip).subtype == "PCM_16"
    assert '"stage": "loudness"' in done.stderr
    assert "The page:" in done.stderr
