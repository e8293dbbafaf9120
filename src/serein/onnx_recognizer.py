"""A model that ``serein export --with-encoder`` wrote, on anybody's recording, with neither torch nor transformers."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from jaxtyping import Float32, Float64

from serein.answers import Answer, rank
from serein.errors import AudioError, ModelError, UsageError
from serein.files import parse_json
from serein.frames.audio import SAMPLE_RATE
from serein.frames.sources import Source, load_source, load_sources
from serein.frames.windows import hear

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

METADATA_KEY = "serein"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class GraphDescription:
    """What a graph says of itself: JSON in the file's metadata, under ``serein``.

    Attributes:
        labels: emotions in the order of the graph's output.
        speeds: at which a recording is heard; the probabilities are averaged.
        temperature: the logarithms of the averaged probabilities are divided by it and normalised again.
        abstain_below: of a best probability lower than this the model is not sure.
        longest_window: most samples that a graph with the encoder inside takes; None where it takes frames.
        max_frames: most frames that a graph without the encoder takes.
        encoder: which encoder makes the frames: its name, layers, settings, pooling and frame rate.
    """

    labels: tuple[str, ...]
    speeds: tuple[float, ...]
    temperature: float
    abstain_below: float
    longest_window: int | None
    max_frames: int
    encoder: dict[str, Any]

    def to_json(self) -> str:
        """All of it, with the format and the sample rate in Hz."""
        return json.dumps({"format": FORMAT, "sample_rate": SAMPLE_RATE, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> "GraphDescription":
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: it did not write this.
        """
        try:
            content = parse_json(text)
            if (content.pop("format"), content.pop("sample_rate")) != (FORMAT, SAMPLE_RATE):
                raise ValueError("another format or sample rate")
            content |= {name: tuple(content[name]) for name in ("labels", "speeds")}
            return cls(**content)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no description of a graph: {error}") from error


class OnnxRecognizer:
    """What :class:`serein.recognizer.EmotionRecognizer` answers, from one ONNX file.

    Windows, speeds, averages and temperature are those of the model that was exported. Recordings are computed one
    after the other.

    Args:
        path: from ``serein export --with-encoder``.
        threads: of the processor; None takes all cores.

    Raises:
        ModelError: no such file, no ONNX graph, not one of serein's, or one without the encoder inside.
        UsageError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        self._session, self.description = open_graph(path, threads)
        if self.description.longest_window is None:
            raise ModelError(
                f"{path}: takes frames of {self.description.encoder.get('name')}, not recordings; to hear recordings "
                "with it, export the model with --with-encoder"
            )
        self.longest_window = self.description.longest_window

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions that it tells apart."""
        return self.description.labels

    @overload
    def __call__(self, source: Source, *, top_k: int | None = None) -> Answer: ...
    @overload
    def __call__(self, source: list[Source], *, top_k: int | None = None) -> list[Answer]: ...
    def __call__(self, source: Source | list[Source], *, top_k: int | None = None) -> Answer | list[Answer]:
        """Scores of one recording, or of each of several.

        Args:
            source: a path, the bytes of an audio file, a :class:`serein.frames.sources.Recording`, or a list of these.
            top_k: how many labels; None gives all.

        Raises:
            AudioError: a recording cannot be used; says which and why.
        """
        if not isinstance(source, list):
            return rank(self.labels, self.probabilities_of([load_source(source)])[0].tolist(), top_k)
        return [rank(self.labels, row, top_k) for row in self.probabilities_of(load_sources(source)).tolist()]

    def sure(self, scores: Answer) -> bool:
        """Whether the best score reaches the model's ``abstain_below``; below it the model should not be believed."""
        return float(scores[0]["score"]) >= self.description.abstain_below

    def probabilities_of(
        self, recordings: list[Float32[np.ndarray, " _"]]
    ) -> Float64[np.ndarray, "recordings classes"]:
        """Calibrated probabilities of recordings that are decoded already: mono, 16 kHz, of any length.

        Raises:
            AudioError: a recording cannot be used; says the number of which, counted from 0.
        """
        probabilities = np.empty((len(recordings), len(self.labels)))
        for number, samples in enumerate(recordings):
            try:
                probabilities[number] = self._probabilities(samples)
            except AudioError as error:
                raise type(error)(f"recording {number}: {error}" if len(recordings) > 1 else str(error)) from error
        return probabilities

    def _probabilities(self, samples: Float32[np.ndarray, " samples"]) -> Float64[np.ndarray, " classes"]:
        heard = hear(samples, self.description.speeds, self.longest_window)
        speeds = [_mean_of_logs([self._log_probabilities(window) for window in windows]) for windows in heard]
        logits = _mean_of_logs(speeds) / self.description.temperature
        return np.asarray(np.exp(logits - np.logaddexp.reduce(logits)))

    def _log_probabilities(self, window: Float32[np.ndarray, " samples"]) -> Float64[np.ndarray, " classes"]:
        (answer,) = self._session.run(None, {"waveform": window[None]})
        if not np.isfinite(answer).all():
            raise AudioError("this recording's frames are beyond the range of float16: the encoder cannot take it")
        return np.asarray(answer[0], dtype=np.float64)


def open_graph(path: str | Path, threads: int | None = None) -> tuple["InferenceSession", GraphDescription]:
    """A graph that ``serein export`` wrote, ready to run, and what it says of itself.

    Raises:
        ModelError: no such file, no ONNX graph, or not one of serein's.
        UsageError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError("an ONNX graph needs onnxruntime: pip install 'serein[onnx]'") from error
    if not Path(path).is_file():
        raise ModelError(f"{path}: is not a file; `serein export MODEL -o {path} --with-encoder` writes one")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: they are raised anyway, and warnings are about its own optimiser
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelError(
            f"{path}: is not an ONNX graph that onnxruntime runs ({' '.join(str(error).split())})"
        ) from error
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        return session, GraphDescription.from_json(metadata.get(METADATA_KEY, "{}"))
    except ValueError as error:
        raise ModelError(f"{path}: is not a graph that this serein's `serein export` wrote ({error})") from error


def _mean_of_logs(logs: list[Float64[np.ndarray, " classes"]]) -> Float64[np.ndarray, " classes"]:
    """Logarithms of the mean of probabilities, from their logarithms."""
    return np.asarray(np.logaddexp.reduce(logs) - math.log(len(logs)))
