"""A pretrained checkpoint: found on disk or on the Hub, read without unpickling, checked weight by weight."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
from transformers.utils import logging

from serein.errors import ModelError, UsageError
from serein.files import parse_json
from serein.frames.audio import SAMPLE_RATE

FAMILIES = ("hubert", "wav2vec2", "wavlm", "data2vec-audio", "unispeech-sat", "whisper")

CONFIG_FILES = ("config.json",)
MODEL_FILES = (
    *CONFIG_FILES,
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-?????-of-?????.safetensors",
)

HEADS = (
    "classifier.",
    "label_embeddings_concat",
    "layer_norm_for_extract.",
    "layer_weights",
    "lm_head.",
    "objective.",
    "proj_out.",
    "project_hid.",
    "project_q.",
    "projector.",
    "quantizer.",
    "speaker_proj.",
    "tdnn.",
    "feature_extractor.weight",  # x-vector heads bear the name of the convolutions
    "feature_extractor.bias",
)
"""Parameters that task heads add to an encoder: transformers' ``...ForCTC``, ``...ForXVector`` and so on."""

UNUSED = (
    "masked_spec_embed",  # stands for hidden frames in training
    "adapter.",  # shortens the last layer's output; no layer that can be asked for
    "decoder.",  # Whisper's
    "model.decoder.",  # the same, where a checkpoint has a head
)

# what transformers raises where a JSON file has another form than it expects
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds an encoder.

    Attributes:
        name: Hub id, or the folder's absolute path, which stays true when the working directory changes.
        revision: the commit on the Hub, or "" for a folder of the user's.
        folder: where its files are.
        config: transformers' configuration of one of :data:`FAMILIES`.
    """

    name: str
    revision: str
    folder: Path
    config: Any

    @property
    def blocks(self) -> int:
        """How many transformer blocks the encoder has."""
        return int(self.config.num_hidden_layers)


def find_checkpoint(
    name: str,
    revision: str | None = None,
    token: str | bool | None = None,
    files: Sequence[str] = MODEL_FILES,
) -> Checkpoint:
    """Find a folder, or fetch ``files`` from the Hub into its cache, and read the configuration.

    Raises:
        ModelError: out of reach, incomplete, or no encoder of :data:`FAMILIES`.
        UsageError: a folder, and a revision.
    """
    if Path(name).is_dir():
        if revision:
            raise UsageError(f"{name}: is a folder, of which there is no revision {revision}; leave the revision out")
        folder, commit = Path(name).resolve(), ""
        name = str(folder)
    else:
        folder = _fetch(name, revision, token, files)
        commit = folder.name
    path = folder / "config.json"
    try:
        said = parse_json(path.read_text(encoding="utf-8"))
        family = said.get("model_type")
        if family is None and {"architecture", "encoder"} <= said.keys():
            raise ModelError(
                f"{name}: is a serein model, not an encoder; --encoder takes a Hub id, a transformers folder or logmel"
            )
        if family not in FAMILIES:
            raise ModelError(f"{name}: is a {family} model; serein reads {', '.join(FAMILIES)}")
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except FileNotFoundError as error:
        raise ModelError(f"{name}: is no model of transformers' (it has no config.json)") from error
    except (OSError, ValueError, AttributeError, StrictDataclassError) as error:
        raise ModelError(f"{path}: is not a configuration that transformers reads: {_one_line(error)}") from error
    return Checkpoint(name, commit, folder, config)


def load_extractor(checkpoint: Checkpoint, kind: str) -> Any:
    """The feature extractor that says how a waveform is prepared.

    Raises:
        ModelError: none in the folder, of another kind, or for another sample rate.
    """
    try:
        extractor = AutoFeatureExtractor.from_pretrained(checkpoint.folder, trust_remote_code=False)
    except (OSError, *_MALFORMED) as error:
        raise ModelError(
            f"{checkpoint.name}: has no preprocessor_config.json that can be read, and only that says how "
            f"its input was normalised; copy the file from where the weights come from{_unfinished(checkpoint)}"
        ) from error
    found = type(extractor).__name__
    if found != kind or extractor.sampling_rate != SAMPLE_RATE:
        raise ModelError(
            f"{checkpoint.name}: preprocessor_config.json is for a {found} at {extractor.sampling_rate} Hz, but "
            f"a {checkpoint.config.model_type} model needs a {kind} at {SAMPLE_RATE} Hz"
        )
    return extractor


def load_model(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """Transformers' bare model, in evaluation mode, without head and decoder blocks, each weight checked.

    Raises:
        ModelError: no safetensors file, a damaged one, weights missing, unknown or of another shape, or an adapter of
            peft's beside them.
    """
    if (checkpoint.folder / "adapter_config.json").exists():  # transformers would put it into the layers that it reads
        raise ModelError(
            f"{checkpoint.name}: has an adapter_config.json: merge that adapter into the weights first (peft's "
            "merge_and_unload), or take the file away"
        )
    weights = checkpoint.folder / "model.safetensors"
    if not weights.is_file() and not weights.with_suffix(".safetensors.index.json").is_file():
        raise ModelError(
            f"{checkpoint.name}: has no {weights.name}; a pytorch_model.bin may run code when it is loaded, so "
            "serein does not. Try --revision refs/pr/N, N being the pull request with the Hub's conversion, or convert "
            "once with transformers: AutoModel.from_pretrained(NAME).save_pretrained(FOLDER)"
            f"{_unfinished(checkpoint)}"
        )
    fewer = {"decoder_layers": 0} if checkpoint.config.model_type == "whisper" else {}
    try:
        with _without_report():
            model, found = AutoModel.from_pretrained(
                checkpoint.folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # so that it names them; they are refused below
                output_loading_info=True,
                **fewer,
            )
    except (OSError, RuntimeError, SafetensorError, *_MALFORMED) as error:
        raise ModelError(
            f"{checkpoint.name}: its weights cannot be read: {_one_line(error)}{_unfinished(checkpoint)}"
        ) from error
    faults = [f"{key} is missing" for key in found["missing_keys"] if not key.startswith(UNUSED)]
    faults += [f"{key} is unknown" for key in found["unexpected_keys"] if not key.startswith(HEADS + UNUSED)]
    faults += [f"{key} is {tuple(has)}, not {tuple(needs)}" for key, has, needs in found["mismatched_keys"]]
    if faults:
        shown = ", ".join(sorted(faults)[:5]) + (f" and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise ModelError(f"{checkpoint.name}: its weights do not fit its config.json: {shown}")
    return model.requires_grad_(False).eval()


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, over names, types, shapes and bytes of the weights.

    Example:
        >>> fingerprint({"bias": torch.zeros(2)}) == fingerprint({"bias": torch.zeros(3)})
        False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _fetch(name: str, revision: str | None, token: str | bool | None, files: Sequence[str]) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision or None, token=token, allow_patterns=list(files)))
    except Exception as error:  # the Hub client and the HTTP libraries below it share no base class
        raise ModelError(
            f"{name}: is no folder here, and the Hub does not give it ({_one_line(error)}). Check the name, "
            "the revision, the network and HF_HUB_OFFLINE (and HF_TOKEN, if it is gated), or name a folder"
        ) from error


def _unfinished(checkpoint: Checkpoint) -> str:
    """What else may be wrong with files from the Hub: offline, a part of them is taken for all."""
    said = ". If the download was interrupted, run again with the network, HF_HUB_OFFLINE unset"
    return said if checkpoint.revision else ""


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from drawing a bar, and a table of every head left out; what matters in it is raised here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
