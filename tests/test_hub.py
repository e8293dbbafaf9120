import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from serein.errors import ModelError, UsageError
from serein.hub import find_model, push_model
from serein.model import (
    EncoderDescription,
    ModelConfig,
    build_adapter,
    build_classifier,
    load_config,
    load_model,
    save_model,
)
from serein.recipe import Model, Recipe
from serein.recognizer import EmotionRecognizer
from serein.train.adapter_folder import adapt_store
from serein.train.ship import train_model

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the Hub client's own

SPEC = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
hub_server = importlib.util.module_from_spec(SPEC)
sys.modules["hub_server"] = hub_server  # dataclasses look their module up
SPEC.loader.exec_module(hub_server)
TOKEN = hub_server.TOKEN

ENCODER = EncoderDescription(
    name="somebody/encoder", revision="c" * 40, fingerprint="f" * 64, layers=(1, 2), width=8, settings={}, pool=1,
    frame_rate=50.0,
)  # fmt: skip
CONFIG = ModelConfig(
    architecture="classifier", model=Model(width=16, blocks=1, heads=2), encoder=ENCODER, max_frames=20,
    labels=("angry", "sad"), temperature=1.5,
)  # fmt: skip
CARD = "---\nlibrary_name: serein\nbase_model: somebody/encoder\n---\n\n# A model\n"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_server.serve_hub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield served


def write_model(folder, seed=0, config=CONFIG):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapter = build_adapter(config)
        module = adapter if config.architecture == "adapter" else build_classifier(config, adapter)
    save_model(folder, module, config)
    return folder


@pytest.fixture
def model(tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def files_of(hub, name, revision="main"):
    repository = hub.repositories[name]
    tree = repository.trees[repository.find(revision)]
    return {file: content for file, content in tree.items() if file != ".gitattributes"}


def test_a_folder_is_its_own_place(model, hub):
    assert find_model(model) == find_model(str(model)) == model
    assert hub.requests == []


def test_a_folder_has_no_revisions(model, hub):
    with pytest.raises(UsageError, match="model: is a folder here, which has no revision 'main'"):
        find_model(model, revision="main")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["ann/model.onnx", "model.onnx"])
@pytest.mark.parametrize("revision", [None, "main"])
def test_a_file_is_not_taken_for_a_name_on_the_hub(hub, tmp_path, monkeypatch, name, revision):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(b"a graph")
    with pytest.raises(ModelError, match=r"model\.onnx: is a file; give the model's folder, or user/name on the Hub"):
        find_model(name, revision=revision)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"speeds": []}, "speeds: "),
        ({"speeds": [1.0, 0.49]}, r"speeds\.1: "),
        ({"speeds": [2.01]}, r"speeds\.0: "),
        ({"speeds": [float("nan")]}, r"speeds\.0: "),
        ({"speeds": [float("inf")]}, r"speeds\.0: "),
        ({"max_frames": 0}, "max_frames: "),
        ({"encoder": {"pool": 0}}, r"encoder\.pool: "),
        ({"encoder": {"layers": []}}, r"encoder\.layers: "),
        ({"encoder": {"width": 0}}, r"encoder\.width: "),
        ({"encoder": {"frame_rate": 0.0}}, r"encoder\.frame_rate: "),
        ({"encoder": {"frame_rate": float("inf")}}, r"encoder\.frame_rate: "),
        ({"encoder": {"frame_rate": float("nan")}}, r"encoder\.frame_rate: "),
    ],
)
def test_a_configuration_that_no_recording_fits_is_refused(model, change, said):
    path = model / "config.json"
    config = json.loads(path.read_text())
    changed = {**config, **change, "encoder": {**config["encoder"], **change.get("encoder", {})}}
    path.write_text(json.dumps(changed))
    with pytest.raises(ModelError, match=rf"config\.json: is not a serein model's configuration: {said}"):
        load_config(model)


@pytest.mark.parametrize("speeds", [[0.5], [2.0, 1.0]])
def test_speeds_reach_from_half_to_double(model, speeds):
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "speeds": speeds}))
    assert load_config(model).speeds == tuple(speeds)


def test_what_is_pushed_is_pulled_byte_for_byte(model, hub):
    address = push_model(model, "ann/serein", token=TOKEN, message="First")
    repository = hub.repositories["ann/serein"]
    oid = repository.branches["main"]
    assert address == f"{hub.address}/ann/serein/commit/{oid}"
    assert repository.messages[oid] == "First"
    assert not repository.private

    pulled = find_model("ann/serein")
    assert {path.name for path in pulled.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    for path in pulled.iterdir():
        assert path.read_bytes() == (model / path.name).read_bytes()
    module, config = load_model(pulled)
    assert config == CONFIG
    mine, _ = load_model(model)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), mine.state_dict().values(), strict=True))


def test_only_the_models_files_leave_the_machine(model, hub):
    for name in ("notes.txt", ".env", "attributes.safetensors", "events.csv"):
        (model / name).write_bytes(b"mine")
    (model / "wav").mkdir()
    (model / "wav" / "a.wav").write_bytes(b"voice")
    push_model(model, "ann/serein", token=TOKEN)
    assert files_of(hub, "ann/serein").keys() == {
        "config.json", "model.safetensors", "README.md", "attributes.safetensors",
    }  # fmt: skip


def test_a_place_of_this_machine_does_not_leave_it(tmp_path, hub):
    here = CONFIG.model_copy(
        update={"encoder": ENCODER.model_copy(update={"name": "/home/ann/hubert", "revision": ""})}
    )
    push_model(write_model(tmp_path / "m", config=here), "ann/serein", token=TOKEN)
    assert b"/home" not in b"".join(files_of(hub, "ann/serein").values())
    assert load_model(find_model("ann/serein"))[1].encoder.name == "hubert"


def test_a_commit_stays_what_it_was(model, tmp_path, hub):
    first = push_model(model, "ann/serein", token=TOKEN).rpartition("/")[2]
    write_model(model, seed=1)
    second = push_model(model, "ann/serein", token=TOKEN).rpartition("/")[2]
    assert first != second
    now = (model / "model.safetensors").read_bytes()
    assert (find_model("ann/serein") / "model.safetensors").read_bytes() == now
    assert (find_model("ann/serein", revision=first) / "model.safetensors").read_bytes() != now
    assert find_model("ann/serein", revision=second).name == second


def test_a_branch_is_made_and_the_main_one_left_alone(model, hub):
    push_model(model, "ann/serein", token=TOKEN)
    before = files_of(hub, "ann/serein")
    write_model(model, seed=1)
    for _ in range(2):  # the second time it is there
        push_model(model, "ann/serein", token=TOKEN, revision="trial")
    assert files_of(hub, "ann/serein") == before
    assert files_of(hub, "ann/serein", "trial")["model.safetensors"] == (model / "model.safetensors").read_bytes()
    trial = find_model("ann/serein", revision="trial")
    assert (trial / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_a_private_model_needs_the_token(model, hub, monkeypatch):
    push_model(model, "ann/secret", private=True, token=TOKEN)
    assert hub.repositories["ann/secret"].private
    with pytest.raises(ModelError, match=r"ann/secret: is no folder here, .*401.*HF_TOKEN where it is private"):
        find_model("ann/secret")
    with pytest.raises(ModelError, match="401"):
        find_model("ann/secret", token="hf_of_a_stranger")
    assert find_model("ann/secret", token=TOKEN).is_dir()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find_model("ann/secret").is_dir()


def test_what_is_public_is_not_pushed_to_as_private(model, hub):
    push_model(model, "ann/serein", token=TOKEN)
    before = dict(hub.repositories["ann/serein"].branches)
    write_model(model, seed=1)
    with pytest.raises(ModelError, match="ann/serein: exists on the Hub and is public; nothing was pushed"):
        push_model(model, "ann/serein", private=True, token=TOKEN)
    assert hub.repositories["ann/serein"].branches == before


@pytest.mark.parametrize(("name", "token"), [("ann/serein", None), ("stranger/serein", TOKEN), ("not a name", TOKEN)])
def test_a_push_that_is_refused_says_so_in_one_line(model, hub, name, token):
    with pytest.raises(ModelError, match=r"the Hub does not take .*model.*HF_TOKEN") as caught:
        push_model(model, name, token=token)
    assert "\n" not in str(caught.value)
    assert hub.repositories == {}


def test_what_is_no_model_is_not_pushed(model, hub):
    (model / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="these weights do not fit"):
        push_model(model, "ann/serein", token=TOKEN)
    with pytest.raises(ModelError, match="is not a model folder"):
        push_model(model / "absent", "ann/serein", token=TOKEN)
    assert hub.requests == []


def test_a_card_that_the_hub_refuses_is_said(model, hub):
    (model / "README.md").write_text("---\nbase_model: /home/ann/encoder\n---\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"Invalid metadata in README\.md"):
        push_model(model, "ann/serein", token=TOKEN)


def test_without_the_hub_the_cache_is_taken(model, hub, monkeypatch):
    push_model(model, "ann/serein", token=TOKEN)
    pulled = find_model("ann/serein")
    asked = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_model("ann/serein") == pulled
    assert find_model("ann/serein", revision=pulled.name) == pulled
    assert len(hub.requests) == asked
    with pytest.raises(ModelError, match=r"ann/other: is no folder here.*HF_HUB_OFFLINE"):
        find_model("ann/other")
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE"):
        find_model("ann/serein", revision="trial")


def test_a_cache_without_the_weights_is_not_taken_for_the_model(model, hub, monkeypatch):
    push_model(model, "ann/serein", token=TOKEN)
    pulled = find_model("ann/serein")
    (pulled / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="the Hub does not give it"):
        find_model("ann/serein")


def test_what_is_fetched_again_is_not_downloaded_again(model, hub):
    push_model(model, "ann/serein", token=TOKEN)
    find_model("ann/serein")
    fetched = hub.asked("GET", r"/resolve/")
    assert len(fetched) == 3
    find_model("ann/serein")
    assert hub.asked("GET", r"/resolve/") == fetched


@pytest.mark.parametrize(
    ("revision", "said"), [("absent", "Revision Not Found"), ("0" * 40, "0000"), ("no branch", "no branch")]
)
def test_a_revision_that_is_not_there_is_said(model, hub, revision, said):
    push_model(model, "ann/serein", token=TOKEN)
    with pytest.raises(ModelError, match=said):
        find_model("ann/serein", revision=revision)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent/folder/model", "is no folder here, and no user/name on the Hub"),
        ("absent", "is no folder here, and no user/name on the Hub"),
        ("/absent", "is no folder here, and the Hub does not give it"),
        ("ann/nothing", "is no folder here, and the Hub does not give it .*401"),
    ],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_name_of_nothing_says_what_to_check(hub, name, said, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=said) as caught:
        find_model(kind(name))
    assert "\n" not in str(caught.value)
    assert (hub.requests == []) == (name != "ann/nothing")


@pytest.mark.parametrize("config", [b'{"model_type": "hubert"}', b"{", None])
def test_the_weights_of_what_is_no_serein_model_are_not_fetched(hub, model, config):
    push_model(model, "ann/serein", token=TOKEN)
    repository = hub.repositories["ann/serein"]
    tree = repository.trees[repository.branches["main"]]
    if config is None:
        del tree["config.json"]
    else:
        tree["config.json"] = config
    with pytest.raises(ModelError, match="is not a") as caught:
        find_model("ann/serein")
    assert "\n" not in str(caught.value)
    assert hub.asked("GET", r"\.safetensors") == []


def test_an_adapter_is_shared_with_its_attributes(tmp_path, hub):
    alone = CONFIG.model_copy(update={"architecture": "adapter", "labels": ()})
    folder = write_model(tmp_path / "adapter", config=alone)
    (folder / "attributes.safetensors").write_bytes(b"attributes")
    push_model(folder, "ann/adapter", token=TOKEN)
    pulled = find_model("ann/adapter")
    assert (pulled / "attributes.safetensors").read_bytes() == b"attributes"
    assert load_model(pulled)[1].architecture == "adapter"


def test_a_recognizer_is_saved_and_shared_with_its_card(hub, tone_store, tiny_recipe, tmp_path):
    train_model(tone_store, tone_store.corpus(), tmp_path / "model", tiny_recipe)
    recognizer = EmotionRecognizer.from_pretrained(tmp_path / "model")
    recognizer.save_pretrained(tmp_path / "copy")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {path.name for path in (tmp_path / "copy").iterdir()} == names
    for name in names:
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    recognizer.push_to_hub("somebody/tones", token=TOKEN)
    pulled = EmotionRecognizer.from_pretrained("somebody/tones")
    assert pulled.card == recognizer.card != ""
    path = tone_store.corpus().utterances[0].path
    assert pulled(path) == recognizer(path)


def test_training_goes_on_from_an_adapter_on_the_hub(hub, tone_store, tiny_recipe, tmp_path):
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), ["finetune.epochs=1", "adapt.epochs=1"])
    adapt_store(tone_store, tmp_path / "adapter", recipe)
    push_model(tmp_path / "adapter", "ann/adapter", token=TOKEN)
    assert set(files_of(hub, "ann/adapter")) == {
        "config.json", "model.safetensors", "README.md", "attributes.safetensors",
    }  # fmt: skip
    few = tone_store.corpus().select(lambda u: u.talker in ("1F", "1M", "2F"))
    for place in ("ann/adapter", tmp_path / "adapter"):
        train_model(tone_store, few, tmp_path / f"from {Path(place).parent.name}", recipe, adapter_folder=place)
    trained = [(path / "model.safetensors").read_bytes() for path in tmp_path.glob("from *")]
    assert len(trained) == 2
    assert trained[0] == trained[1]
    push_model(next(tmp_path.glob("from *")), "ann/classifier", token=TOKEN)
    recognizer = EmotionRecognizer.from_pretrained("ann/classifier")
    here = EmotionRecognizer.from_pretrained(next(tmp_path.glob("from *")))
    path = next(iter(few)).path
    assert recognizer(path) == here(path)


def test_the_command_pushes_with_the_token_of_the_environment(model, hub, tmp_path):
    environment = {
        **os.environ, "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    code = "from serein.cli_share import sharing; sharing()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(model), "ann/serein", "--private", "--message", "From a shell"],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    repository = hub.repositories["ann/serein"]
    assert repository.private
    assert repository.messages[repository.branches["main"]] == "From a shell"
    assert re.search(rf"{hub.address}/ann/serein/commit/\w+", done.stdout + done.stderr)
    assert {token for method, path, token in hub.requests if "ann" in path or "create" in path} == {TOKEN}
    assert json.loads(files_of(hub, "ann/serein")["config.json"]) == json.loads((model / "config.json").read_text())
