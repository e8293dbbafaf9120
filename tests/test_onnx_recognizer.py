import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import soxr
import torch
from typer.testing import CliRunner

from serein.cli_export import exporting
from serein.errors import AudioError, ModelError, TooShort, UsageError
from serein.frames.audio import load_audio
from serein.frames.encoder import load_encoder
from serein.frames.sources import Recording
from serein.model import EncoderDescription, ModelConfig, build_adapter, build_classifier, save_model
from serein.nn.committee import Committee
from serein.onnx_recognizer import FORMAT, OnnxRecognizer, open_graph
from serein.recipe import Model
from serein.recognizer import EmotionRecognizer

WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "onnx", "onnxscript", "huggingface_hub"):
    sys.modules[name] = None  # an import fails
"""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    """Two members with random weights, three speeds, windows of 0.8 seconds, a temperature and a threshold."""
    encoder = load_encoder("logmel")
    config = ModelConfig(
        architecture="classifier",
        model=Model(width=16, blocks=1, heads=2, members=2),
        encoder=EncoderDescription(
            name="logmel", revision="", fingerprint=encoder.fingerprint, layers=(0,), width=80,
            settings=encoder.settings, pool=2, frame_rate=25.0,
        ),
        max_frames=20,
        labels=("angry", "happy", "neutral", "sad"),
        speeds=(1.0, 0.9, 1.1),
        temperature=1.7,
        abstain_below=0.4,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        members = [build_classifier(config, build_adapter(config)) for _ in range(2)]
        for member in members:  # so that answers are far from even, and different for different sounds
            member.adapter.front_end.mean.fill_(-6)
            member.adapter.front_end.deviation.fill_(3)
            member.adapter.positions.data.normal_(std=0.5)
            member.output.weight.data.mul_(20)
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, Committee(members), config)
    return folder


@pytest.fixture(scope="module")
def graph_file(model_folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "new" / "model.onnx"
    done = CliRunner().invoke(exporting, [str(model_folder), "-o", str(path), "--with-encoder"])
    assert done.exit_code == 0, done.output
    assert "differ from torch's by at most" in " ".join(done.output.split())
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    return path


@pytest.fixture(scope="module")
def graph(graph_file) -> OnnxRecognizer:
    return OnnxRecognizer(graph_file, threads=1)


@pytest.fixture(scope="module")
def recognizer(model_folder) -> EmotionRecognizer:
    return EmotionRecognizer.from_pretrained(model_folder)


def by_label(scores):
    return [score["score"] for score in sorted(scores, key=lambda score: score["label"])]


def with_metadata(graph_file: Path, to: Path, text: str | None) -> Path:
    model = onnx.load(graph_file)
    del model.metadata_props[:]
    if text is not None:
        model.metadata_props.add(key="serein", value=text)
    onnx.save(model, to)
    return to


def test_answers_are_the_recognizers_at_every_length(graph, recognizer, tones):
    random = np.random.default_rng(0)
    recordings = [load_audio(utterance.path) for utterance in tones.utterances[::5]]
    lengths = (400, 439, 441, 13_000, graph.longest_window, graph.longest_window + 1, 40_000)
    recordings += [(0.1 * random.standard_normal(samples)).astype(np.float32) for samples in lengths]
    answers = graph.probabilities_of(recordings)
    np.testing.assert_allclose(answers, recognizer.probabilities_of(recordings).numpy(), atol=1e-4)
    np.testing.assert_allclose(answers.sum(1), 1)
    assert answers.std(0).min() > 0.01
    assert len(set(answers.argmax(1))) > 1
    assert graph.longest_window == recognizer.longest_window == 13_199


def test_a_long_recording_is_the_mean_of_equal_windows(graph, recognizer):
    long = (0.1 * np.random.default_rng(1).standard_normal(200_000)).astype(np.float32)
    (answer,) = graph.probabilities_of([long])
    np.testing.assert_allclose(answer, recognizer.probabilities_of([long])[0].numpy(), atol=1e-4)


def test_scores_are_those_of_the_recognizer_best_first(graph, recognizer, tones):
    path = tones.utterances[0].path
    scores = graph(path)
    assert [score["label"] for score in scores] == [score["label"] for score in recognizer(path)]
    assert by_label(scores) == pytest.approx(by_label(recognizer(path)), abs=1e-4)
    assert graph.labels == recognizer.labels
    assert graph(path, top_k=2) == scores[:2]
    assert graph([path, path], top_k=1) == [scores[:1], scores[:1]]
    assert graph([]) == []


def test_a_path_its_bytes_and_its_samples_give_the_same_answer(graph, tones):
    path = tones.utterances[3].path
    samples, rate = soundfile.read(path, dtype="float32")
    expected = graph(path)
    assert graph(str(path)) == graph(path.read_bytes()) == expected
    assert by_label(graph(Recording(np.stack([samples] * 2, 1), rate))) == pytest.approx(by_label(expected), abs=1e-6)
    faster = soxr.resample(samples, rate, 44_100, quality="VHQ")
    assert by_label(graph(Recording(faster, 44_100))) == pytest.approx(by_label(expected), abs=0.1)


def test_a_best_score_below_the_threshold_is_not_sure(graph):
    assert graph.sure([{"label": "sad", "score": 0.4}])
    assert not graph.sure([{"label": "sad", "score": 0.39}])


def test_what_cannot_be_heard_is_said(graph, tones, tmp_path):
    good = np.zeros(1000, dtype=np.float32)
    with pytest.raises(TooShort, match=r"^this recording has 99 samples"):
        graph.probabilities_of([good[:99]])
    with pytest.raises(TooShort, match="recording 1: this recording has 99 samples"):
        graph.probabilities_of([good, good[:99]])
    with pytest.raises(AudioError, match="recording 1: these bytes"):
        graph([tones.utterances[0].path, b"no audio"])
    with pytest.raises(AudioError, match=r"absent\.wav: does not exist"):
        graph([tones.utterances[0].path, tmp_path / "absent.wav"])
    with pytest.raises(AudioError, match="beyond the range of float16"):
        graph.probabilities_of([np.full(1000, np.nan, dtype=np.float32)])


def test_other_files_are_refused(graph_file, tmp_path):
    with pytest.raises(ModelError, match=r"absent\.onnx: is not a file; `serein export"):
        OnnxRecognizer(tmp_path / "absent.onnx")
    for name, content in {"empty": b"", "text": b"hello" * 100, "cut": graph_file.read_bytes()[:5000]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{name}: is not an ONNX graph that onnxruntime runs"):
            OnnxRecognizer(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[]",
        "{}",
        json.dumps({"format": FORMAT + 1, "sample_rate": 16_000}),
        json.dumps({"format": FORMAT, "sample_rate": 8000}),
        json.dumps({"format": FORMAT, "sample_rate": 16_000, "labels": 3, "speeds": []}),
        json.dumps({"format": FORMAT, "sample_rate": 16_000, "labels": [], "speeds": [], "surprise": 1}),
    ],
)
def test_graphs_of_others_are_refused(graph_file, tmp_path, text):
    foreign = with_metadata(graph_file, tmp_path / "foreign.onnx", text)
    with pytest.raises(ModelError, match=r"foreign\.onnx: is not a graph that this serein's `serein export` wrote"):
        OnnxRecognizer(foreign)


def test_a_graph_that_takes_frames_hears_no_recordings(graph, graph_file, tmp_path):
    said = json.loads(graph.description.to_json()) | {"longest_window": None}
    head = with_metadata(graph_file, tmp_path / "head.onnx", json.dumps(said))
    assert open_graph(head)[1].max_frames == 20
    with pytest.raises(ModelError, match=r"takes frames of logmel, .* export the model with --with-encoder"):
        OnnxRecognizer(head)


def test_without_onnxruntime_it_is_said_what_to_install(graph_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'serein\[onnx\]'"):
        OnnxRecognizer(graph_file)


def test_neither_torch_nor_transformers_is_needed(graph, graph_file, tones):
    path = tones.utterances[0].path
    code = f"{WITHOUT_TORCH}\nfrom serein.onnx_recognizer import OnnxRecognizer\n"
    code += "import json; print(json.dumps(OnnxRecognizer(sys.argv[1])(sys.argv[2])))"
    done = subprocess.run([sys.executable, "-c", code, graph_file, path], capture_output=True, text=True, check=True)
    assert by_label(json.loads(done.stdout)) == pytest.approx(by_label(graph(path)), abs=1e-5)


def test_the_command_line_needs_neither_torch_nor_transformers(graph, graph_file, tones):
    path = tones.utterances[0].path
    code = f"{WITHOUT_TORCH}\nimport runpy; sys.argv[0] = 'serein'; runpy.run_module('serein', run_name='__main__')"
    command = [sys.executable, "-c", code, "predict", str(graph_file), str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (answer,) = json.loads(done.stdout)
    assert by_label(answer["scores"]) == pytest.approx(by_label(graph(path)), abs=1e-5)
    assert math.isclose(sum(by_label(answer["scores"])), 1, abs_tol=1e-5)
