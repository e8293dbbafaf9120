"""The network from its description, and the folder that carries it: config.json and model.safetensors."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from serein.baselines.linear_probe import LinearProbe
from serein.errors import ModelError, UsageError
from serein.files import parse_json, write_atomically
from serein.nn.classifier import EmotionClassifier
from serein.nn.committee import Committee
from serein.nn.pooling import AttentiveStatisticsPooling
from serein.nn.transformer import WAPTransformer
from serein.recipe import Model

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
ATTRIBUTES_FILE = "attributes.safetensors"

Classifier = EmotionClassifier | Committee | LinearProbe
"""What names emotions: ``forward`` gives logits of frames and their padding mask, ``embed`` what it sees of them."""


class EncoderDescription(BaseModel):
    """Which frames a model expects.

    Attributes:
        name: Hub id, folder, or ``logmel``.
        revision: commit on the Hub, or "".
        fingerprint: of the encoder's weights.
        layers: layer numbers, in order; at least one.
        width: width of a frame.
        settings: what else changes the frames (dtype, padding).
        pool: frames averaged into one.
        frame_rate: frames a second, after pooling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    revision: str
    fingerprint: str
    layers: tuple[int, ...] = Field(min_length=1)
    width: int = Field(ge=1)
    settings: dict[str, Any]
    pool: int = Field(ge=1)
    frame_rate: float = Field(gt=0, allow_inf_nan=False)

    def without_folder(self) -> "EncoderDescription":
        """The same for others to see: of an encoder that is a folder here, the last part of its path is kept.

        Example:
            >>> one = EncoderDescription(name="/home/ann/whisper", revision="", fingerprint="", layers=(3,), width=8,
            ...                          settings={}, pool=1, frame_rate=50)
            >>> one.without_folder().name
            'whisper'
        """
        path = Path(self.name)
        return self.model_copy(update={"name": path.name}) if path.is_absolute() else self

    def gives_frames_of(self, other: "EncoderDescription") -> bool:
        """Whether both give the same frames, wherever their weights were found."""
        unlike = {"name", "revision"}
        return self.model_dump(exclude=unlike) == other.model_dump(exclude=unlike)

    @classmethod
    def of_store(cls, settings: dict[str, Any]) -> "EncoderDescription":
        """The encoder behind a frame store, from its ``store.json``."""
        return cls(**settings["encoder"], pool=settings["pool"], frame_rate=settings["frame_rate"])


class ModelConfig(BaseModel):
    """``config.json``: all that is needed to build the network and to feed it.

    Attributes:
        format: of this file.
        architecture: ``classifier``, ``adapter`` for an adapter without a head, or ``linear`` for a linear probe, which
            has nothing of ``model``.
        model: the recipe's ``[model]``.
        encoder: which frames go in.
        max_frames: the longest window, in frames; an adapter has as many positions.
        labels: emotions in the order of the logits; empty for an adapter.
        speeds: at which a recording is judged, from 0.5 to 2; the probabilities are averaged.
        temperature: the logarithms of the averaged probabilities are divided by it and normalised again; above 0, 1
            leaves them (:mod:`serein.evaluate.calibration`).
        abstain_below: of a best probability lower than this the model is not sure; in [0, 1), 0 is always sure.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    architecture: Literal["classifier", "linear", "adapter"]
    model: Model
    encoder: EncoderDescription
    max_frames: int = Field(ge=1)
    labels: tuple[str, ...] = ()
    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field((1.0,), min_length=1)
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    abstain_below: float = Field(0.0, ge=0, lt=1)


def build_adapter(config: ModelConfig) -> WAPTransformer:
    """A fresh adapter; its weights come from torch's global generator."""
    model = config.model
    return WAPTransformer(
        config.encoder.width,
        len(config.encoder.layers),
        width=model.width,
        blocks=model.blocks,
        heads=model.heads,
        dropout=model.dropout,
        layer_mix=model.layer_mix,
        max_frames=config.max_frames,
    )


def build_classifier(config: ModelConfig, adapter: WAPTransformer, head_dropout: float = 0.0) -> EmotionClassifier:
    """A classifier with a fresh head on this adapter: the whole network, or one member of it."""
    model = config.model
    pooling = AttentiveStatisticsPooling(model.width, model.pooling_heads, model.pooling_variance, model.pooled_norm)
    return EmotionClassifier(adapter, pooling, len(config.labels), head_dropout)


def check_folder(folder: str | Path) -> None:
    """See that the card takes the place of no README.md but a model's.

    Raises:
        UsageError: the folder has one, and is no model's.
    """
    if (Path(folder) / CARD_FILE).exists():
        try:
            load_config(folder)
        except ModelError as error:
            raise UsageError(
                f"{folder}: has a {CARD_FILE} and is no model's folder: the card would replace it; give another folder"
            ) from error


def save_model(folder: str | Path, module: nn.Module, config: ModelConfig) -> None:
    """Write ``config.json`` and ``model.safetensors``: numbers and text, of which nothing is run when they are read.

    Raises:
        UsageError: the folder is somebody else's: see :func:`check_folder`.
    """
    check_folder(folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    # The weights say whose they are, so that a kill between the two files cannot leave a mixture of two models.
    write_atomically(folder / WEIGHTS_FILE, save(tensors, metadata={"config": _bound(config).model_dump_json()}))
    write_atomically(folder / CONFIG_FILE, (config.model_dump_json(indent=2) + "\n").encode())
    (folder / ATTRIBUTES_FILE).unlink(missing_ok=True)  # they are another adapter's, and would be shared with this one


def load_config(folder: str | Path) -> ModelConfig:
    """Read ``config.json``.

    Raises:
        ModelError: missing, damaged, or written by another serein.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        return ModelConfig.model_validate(parse_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder}: is not a model folder (no {CONFIG_FILE}); `serein train` makes one, `serein adapt` an adapter's"
        ) from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ModelError(f"{path}: is not a serein model's configuration: {faults}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: is not a serein model's configuration: {error}") from error


def load_model(folder: str | Path) -> tuple[Classifier | WAPTransformer, ModelConfig]:
    """The network of a model folder, ready to predict.

    Raises:
        ModelError: a file is missing or damaged, or weights are missing, unexpected or of another shape.
    """
    config = load_config(folder)
    path = Path(folder) / WEIGHTS_FILE
    try:
        module = _network(config)
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get("config")
            whose = ModelConfig.model_validate_json(said) if said else None
            module.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: has no {WEIGHTS_FILE}") from error
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: these weights do not fit {CONFIG_FILE}: {error}") from error
    if whose is None:
        raise ModelError(
            f"{path}: was written by an earlier serein and does not say to which {CONFIG_FILE} it belongs; train again"
        )
    if whose != _bound(config):
        raise ModelError(f"{path}: belongs to another {CONFIG_FILE} than the one beside it; train again")
    return module.eval(), config


def _bound(config: ModelConfig) -> ModelConfig:
    """What weights are bound to: where their encoder lies does not matter."""
    anywhere = config.encoder.model_copy(update={"name": "", "revision": ""})
    return config.model_copy(update={"encoder": anywhere})


def _network(config: ModelConfig) -> Classifier | WAPTransformer:
    if config.architecture == "adapter":
        return build_adapter(config)
    if config.architecture == "linear":
        return LinearProbe(2 * len(config.encoder.layers) * config.encoder.width, len(config.labels))
    members = [build_classifier(config, build_adapter(config)) for _ in range(config.model.members)]
    return members[0] if len(members) == 1 else Committee(members)
