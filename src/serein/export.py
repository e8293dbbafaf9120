"""A model folder as an ONNX graph, checked against torch before it is written."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from serein.baselines.linear_probe import LinearProbe
from serein.errors import ModelError, UsageError
from serein.files import write_atomically
from serein.frames.audio import MINIMUM_SAMPLES
from serein.frames.extract import as_stored
from serein.frames.waveform_graph import check_longest, waveform_graph
from serein.hub import find_model
from serein.model import Classifier, ModelConfig, load_model
from serein.nn.committee import Committee
from serein.nn.transformer import WAPTransformer
from serein.onnx_recognizer import METADATA_KEY, GraphDescription
from serein.recognizer import EmotionRecognizer

OPSET = 18
TOLERANCE = 1e-3  # of log probabilities
LARGEST = 2**31 - 2**20  # bytes of weights: a protobuf message ends at 2 GiB, and the graph itself needs some

Trial = tuple[tuple[Tensor, ...], Tensor]
"""What goes into a graph, and the log probabilities that torch gives for it."""


def export_model(
    model: str | Path, path: str | Path, *, with_encoder: bool = False, encoder: str | None = None
) -> float:
    """Write a model as an ONNX graph that gives log probabilities, (batch, classes), before the model's temperature.

    Without the encoder the graph takes ``frames`` (batch, frames, layers, width), float32, as a frame store holds
    them, and ``padding_mask`` (batch, frames), True = padding; both axes in front are free. With the encoder it takes
    ``waveform`` (1, samples), float32 at 16 kHz: all else is in the graph, and one window goes in at a time, because
    padding would change what some encoders make of it. Labels, speeds, temperature, longest window and encoder are in
    the file's metadata: :class:`serein.onnx_recognizer.GraphDescription`.

    Args:
        model: the folder, or its id on the Hub.
        path: the file to write, ``*.onnx``; appears only when its answers are torch's.
        with_encoder: put the encoder into the graph.
        encoder: where the encoder is on this machine, if not where it was in training.

    Returns:
        the largest difference from torch, in log probability, over random inputs of several shapes.

    Raises:
        ModelError: the model or the encoder cannot be loaded or exported, or the graph's answers are not torch's.
        UsageError: onnx, onnxscript or onnxruntime are not installed, or the path has another suffix.
    """
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise UsageError(f"an export needs {' and '.join(missing)}: pip install 'serein[onnx]'")
    path = Path(path)
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: give it a name that ends in .onnx, by which `serein predict` knows a graph")
    path.parent.mkdir(parents=True, exist_ok=True)
    if with_encoder:
        recognizer = EmotionRecognizer.from_pretrained(model, encoder=encoder)
        config, front = recognizer.config, recognizer.encoder
        longest = recognizer.longest_window
        check_longest(front, longest)
        graph: nn.Module = _WithEncoder(waveform_graph(front, config.encoder.pool), recognizer.classifier)
        trials, axes = _heard(recognizer, longest), {"waveform": {1: "samples"}}
    else:
        classifier, config = _load_classifier(model)
        graph, trials, longest = _FromFrames(classifier), _seen(classifier, config), None
        axes = {"frames": {0: "batch", 1: "frames"}, "padding_mask": {0: "batch", 1: "frames"}}
    description = GraphDescription(
        labels=config.labels,
        speeds=config.speeds,
        temperature=config.temperature,
        abstain_below=config.abstain_below,
        longest_window=longest,
        max_frames=config.max_frames,
        encoder=config.encoder.without_folder().model_dump(mode="json"),
    )
    content = _serialized(graph.eval().requires_grad_(False), trials[0][0], axes, description, str(path))
    difference = _largest_difference(content, list(axes), trials)
    if not difference <= TOLERANCE:
        raise ModelError(f"{path}: not written: the graph's log probabilities differ from torch's by {difference:.2g}")
    write_atomically(path, content)
    return difference


class _AnyPadding(nn.Module):
    """An adapter's forward pass without its look at whether there is padding: a graph cannot branch on that."""

    def __init__(self, adapter: WAPTransformer) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(
        self,
        frames: Float[Tensor, "batch frames layers input_width"],
        padding_mask: Bool[Tensor, "batch frames"],
        frame_mask: None = None,
    ) -> Float[Tensor, "batch frames width"]:
        adapter = self.adapter
        x = adapter.embed(adapter.front_end(frames)) + adapter.positions[: frames.shape[1]]
        outputs = []
        for block in adapter.blocks:
            x = block(x, ~padding_mask[:, None, None, :])
            outputs.append(x)
        output: Tensor = adapter.mlp(adapter.average(outputs))
        return output


class _FromFrames(nn.Module):
    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = copy.deepcopy(classifier)
        for member in _members(self.classifier):
            if not isinstance(member, LinearProbe):
                member.adapter = _AnyPadding(member.adapter)

    def forward(
        self, frames: Float[Tensor, "batch frames layers width"], padding_mask: Bool[Tensor, "batch frames"]
    ) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.classifier(frames, padding_mask)
        return logits.log_softmax(1)


class _WithEncoder(nn.Module):
    def __init__(self, front: nn.Module, classifier: Classifier) -> None:
        super().__init__()
        self.front = front
        self.rest = _FromFrames(classifier)

    def forward(self, waveform: Float[Tensor, "1 samples"]) -> Float[Tensor, "1 classes"]:
        frames = self.front(waveform)
        log_probabilities: Tensor = self.rest(frames, torch.zeros(frames.shape[:2], dtype=torch.bool))
        return log_probabilities


def _load_classifier(model: str | Path) -> tuple[Classifier, ModelConfig]:
    module, config = load_model(find_model(model))
    if isinstance(module, WAPTransformer):
        raise ModelError(f"{model}: is an adapter without a classifier; `serein train --adapter {model}` adds one")
    return module, config


def _members(classifier: Classifier) -> list[Any]:
    return list(classifier.members) if isinstance(classifier, Committee) else [classifier]


@torch.no_grad()
def _heard(recognizer: EmotionRecognizer, longest: int) -> list[Trial]:
    """Noise of several lengths, from the shortest to the longest window, and what torch makes of it."""
    random = torch.Generator().manual_seed(0)
    trials: list[Trial] = []
    for samples in (16_000, MINIMUM_SAMPLES, 50_000, longest):
        waveform = 0.1 * torch.randn(1, min(samples, longest), generator=random)
        (encoded,) = recognizer.encoder.encode([waveform[0].numpy()])
        frames = as_stored(encoded, recognizer.config.encoder.pool).float().unsqueeze(0)
        padding_mask = torch.zeros(frames.shape[:2], dtype=torch.bool)
        trials.append(((waveform,), recognizer.classifier(frames, padding_mask).log_softmax(1)))
    return trials


@torch.no_grad()
def _seen(classifier: Classifier, config: ModelConfig) -> list[Trial]:
    """Random frames, distributed as those of training, in batches of several sizes and lengths with padding."""
    random = torch.Generator().manual_seed(0)
    trials: list[Trial] = []
    mean, deviation = _moments(classifier, config)
    for batch, length in ((3, 40), (1, 1), (2, 2), (1, config.max_frames), (5, -(-config.max_frames // 3))):
        shape = (batch, min(length, config.max_frames), *mean.shape)
        frames = torch.randn(shape, generator=random) * deviation + mean
        lengths = torch.randint(1, shape[1] + 1, (batch,), generator=random)
        padding_mask = torch.arange(shape[1]) >= lengths[:, None]
        trials.append(((frames, padding_mask), classifier(frames, padding_mask).log_softmax(1)))
    return trials


def _moments(classifier: Classifier, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the frames that it learned from, nearly."""
    if isinstance(classifier, LinearProbe):  # it knows the mean of means, and the mean of deviations over time
        mean, deviation = classifier.mean.view(2, len(config.encoder.layers), config.encoder.width)
        return mean, deviation
    front_end = _members(classifier)[0].adapter.front_end
    return front_end.mean, front_end.deviation


def _serialized(
    graph: nn.Module,
    example: tuple[Tensor, ...],
    axes: dict[str, dict[int, str]],
    description: GraphDescription,
    name: str,
) -> bytes:
    if (size := sum(tensor.nbytes for tensor in graph.state_dict().values())) > LARGEST:
        raise ModelError(f"{name}: an ONNX file holds at most 2 GiB, these weights are {size / 2**30:.1f} GiB")
    try:
        with _quiet():
            program = torch.onnx.export(
                graph, example, dynamo=True, opset_version=OPSET, input_names=list(axes),
                output_names=["log_probabilities"], dynamic_shapes=tuple(axes.values()), verbose=False,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        said = " ".join(str(error.__cause__ or error).split())
        raise ModelError(f"{name}: not written: torch cannot export this network: {said[:300]}") from error
    assert program is not None
    content = program.model_proto
    for node in content.graph.node:
        del node.metadata_props[:]  # where in whose source code it came from
    content.metadata_props.add(key=METADATA_KEY, value=description.to_json())
    serialized: bytes = content.SerializeToString()
    return serialized


def _largest_difference(content: bytes, inputs: list[str], trials: list[Trial]) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    differences = []
    for tensors, expected in trials:
        fed = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True)}
        (answer,) = session.run(None, fed)
        differences.append((torch.from_numpy(answer) - expected).abs().max())
    return float(torch.stack(differences).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporter warns of its own deprecations and of packages that it would know how to use."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.setLevel(level)
