"""What serein is measured against: training the encoder itself from audio, all of it or by LoRA.

The common recipe: the last layer's frames, their mean over time, a linear layer. The forward pass is that of the
frozen encoders in :mod:`serein.frames`, so that costs differ by what is trained and not by how audio is padded: every
block runs in every step (no layer drop), nothing is masked in training, and Whisper sees the clip, not 30 seconds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from serein.errors import UsageError
from serein.frames.audio import SAMPLE_RATE
from serein.frames.batches import frame_budget, plan_batches
from serein.frames.blocks import run_blocks
from serein.frames.pretrained import find_checkpoint, load_extractor, load_model
from serein.progress import Report, quiet
from serein.train.machine import check_finite, seed_globally

LORA_RANK = 8
LORA_TARGETS = ("q_proj", "v_proj")
SAMPLES_A_FRAME = SAMPLE_RATE // 50  # of every encoder here; batches are planned in frames


class Wav2Vec2Front(nn.Module):
    """From one waveform to what enters the first block, for the wav2vec 2.0 family."""

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__()
        self.extractor = extractor
        self.convolutions = model.feature_extractor
        self.projection = model.feature_projection
        self.positions = model.encoder.pos_conv_embed
        self.norm = nn.Identity() if _norm_leaves(model.config) else model.encoder.layer_norm
        self.dropout = model.encoder.dropout

    def forward(self, waveform: Float32[np.ndarray, " samples"]) -> Float[Tensor, "frames width"]:
        """Frames of 16 kHz audio of at least 25 ms."""
        values = self.extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
        projected = self.projection(self.convolutions(values).transpose(1, 2))
        # all but HuBERT also return what went into the projection
        frames: Tensor = projected[0] if isinstance(projected, tuple) else projected
        frames = self.dropout(self.norm(frames + self.positions(frames)))
        return frames[0]


class WhisperFront(nn.Module):
    """From one waveform to what enters the first block, for Whisper; audio after 30 seconds is not heard."""

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__()
        self.extractor = extractor
        self.conv1 = model.encoder.conv1
        self.conv2 = model.encoder.conv2
        self.positions = model.encoder.embed_positions
        self.dropout = nn.Dropout(model.config.dropout)

    def forward(self, waveform: Float32[np.ndarray, " samples"]) -> Float[Tensor, "frames width"]:
        """Frames of 16 kHz audio of at least 10 ms."""
        mel = self.extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        mel = mel[:, :, : len(waveform) // self.extractor.hop_length]
        frames = F.gelu(self.conv2(F.gelu(self.conv1(mel))))[0].T
        positioned: Tensor = self.dropout(frames + self.positions.weight[: len(frames)])
        return positioned


class WholeEncoder(nn.Module):
    """A speech encoder with mean pooling and a linear layer, from audio to logits.

    Args:
        model: transformers' bare model of a family that serein reads; its parts are taken over, not copied.
        extractor: its feature extractor; None where only parameters are counted.
        classes: number of emotions.
    """

    def __init__(self, model: Any, extractor: Any, classes: int) -> None:
        super().__init__()
        whisper = model.config.model_type == "whisper"
        self.front = (WhisperFront if whisper else Wav2Vec2Front)(model, extractor)
        self.blocks = model.encoder.layers
        self.norm = model.encoder.layer_norm if whisper or _norm_leaves(model.config) else None
        self.output = nn.Linear(model.config.hidden_size, classes)
        self.relative_positions = model.config.model_type == "wavlm"

    @property
    def front_learns(self) -> bool:
        """Whether anything before the first block is trained: after :func:`train_all`, not after :func:`add_lora`."""
        return any(parameter.requires_grad for parameter in self.front.parameters())

    def forward(self, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> Float[Tensor, "batch classes"]:
        """Logits, one row a waveform (16 kHz, at least 25 ms)."""
        # A frozen front needs no graph; transformers would build one, and pay for it in memory.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.front_learns):
            entering = [self.front(waveform) for waveform in waveforms]
        last = len(self.blocks)
        encoded = run_blocks(
            self.blocks, entering, (last,), final_norm=self.norm, relative_positions=self.relative_positions
        )
        logits: Tensor = self.output(torch.stack([frames[:, 0].mean(0) for frames in encoded]))
        return logits


def load_whole(name: str, classes: int, *, revision: str | None = None) -> WholeEncoder:
    """A pretrained encoder in float32 on the CPU with a fresh head, for :func:`train_all` or :func:`add_lora`.

    Args:
        name: a Hub id or a folder.
        classes: number of emotions.
        revision: branch, tag or commit on the Hub.

    Raises:
        ModelError: out of reach, incomplete, or of a family that serein does not read.
    """
    checkpoint = find_checkpoint(name, revision)
    kind = "WhisperFeatureExtractor" if checkpoint.config.model_type == "whisper" else "Wav2Vec2FeatureExtractor"
    return WholeEncoder(load_model(checkpoint, torch.float32), load_extractor(checkpoint, kind), classes)


def train_all(model: WholeEncoder) -> WholeEncoder:
    """Let every parameter learn, convolutions too; Whisper's positions are sines and stay."""
    model.requires_grad_(True)
    if isinstance(model.front, WhisperFront):
        model.front.positions.requires_grad_(False)
    return model.train()


def add_lora(model: WholeEncoder) -> WholeEncoder:
    """Freeze the encoder and put LoRA of rank 8 beside the query and value projections of every block (Hu 2021).

    Raises:
        UsageError: peft is not installed, or the encoder is a WavLM.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UsageError("LoRA needs peft: pip install 'serein[peft]'") from error
    if model.relative_positions:
        # peft would wrap the projections without an error, and train nothing
        raise UsageError("LoRA: WavLM hands its projections' weights to torch itself, past any LoRA; take another one")
    model.requires_grad_(False)
    model.output.requires_grad_(True)
    config = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=list(LORA_TARGETS))
    inject_adapter_in_model(config, model.blocks)  # leaves its own weights trainable
    return model.train()


def make_optimizer(
    model: WholeEncoder, learning_rate: float = 1e-5, head_learning_rate: float = 1e-3
) -> torch.optim.AdamW:
    """AdamW over what is trainable; the rates are those of encoder (or LoRA) and output layer."""
    head = set(model.output.parameters())
    encoder = [p for p in model.parameters() if p.requires_grad and p not in head]
    return torch.optim.AdamW(
        [{"params": encoder, "lr": learning_rate}, {"params": list(head), "lr": head_learning_rate}], fused=True
    )


def train_step(
    model: WholeEncoder,
    optimizer: torch.optim.Optimizer,
    waveforms: Sequence[Float32[np.ndarray, " _"]],
    labels: Int[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """One step of cross entropy in float32; returns the loss before the step."""
    loss = F.cross_entropy(model(waveforms), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def train_epoch(
    model: WholeEncoder,
    optimizer: torch.optim.Optimizer,
    waveforms: Sequence[Float32[np.ndarray, " _"]],
    labels: Int[Tensor, " utterances"],
    *,
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    report: Report = quiet,
) -> list[float]:
    """Show every utterance once, in batches planned like those of :mod:`serein.train.finetune`.

    Args:
        model: from :func:`train_all` or :func:`add_lora`.
        optimizer: from :func:`make_optimizer`.
        waveforms: 16 kHz, at least 25 ms each.
        labels: their classes.
        batch_size: utterances of mean length in a batch.
        seed: of order and dropout.
        epoch: counts from 0; each has another order.
        report: told after each step.

    Returns:
        the loss of each step.

    Raises:
        Diverged: the loss is no longer finite.
    """
    lengths = torch.tensor([max(1, len(waveform) // SAMPLES_A_FRAME) for waveform in waveforms])
    batches = plan_batches(lengths, frame_budget(lengths, batch_size), seed=seed, epoch=epoch)
    losses: list[float] = []
    seed_globally(seed, epoch)
    for step, chosen in enumerate(batches):
        loss = train_step(model, optimizer, [waveforms[index] for index in chosen.tolist()], labels[chosen])
        check_finite(loss, "whole encoder", step, learning_rate=optimizer.param_groups[0]["lr"])
        losses.append(loss.item())
        report("whole encoder", step + 1, len(batches), {"loss": losses[-1]})
    return losses


def trainable_parameters(module: nn.Module) -> int:
    """How many numbers the optimiser moves.

    Example:
        >>> trainable_parameters(nn.Linear(3, 2))
        8
    """
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def shipped_numbers(module: nn.Module) -> int:
    """How many numbers must reach a user who has the pretrained encoder already.

    After LoRA: what was trained. After full fine-tuning, or for a network on frozen frames: all of it, with its
    buffers. Four bytes each in float32, two in float16.

    Example:
        >>> shipped_numbers(nn.BatchNorm1d(3))
        12
    """
    if isinstance(module, WholeEncoder) and not module.front_learns:
        return trainable_parameters(module)
    return sum(tensor.numel() for tensor in module.state_dict().values() if tensor.is_floating_point())


def _norm_leaves(config: Any) -> bool:
    """Whether the one norm of a wav2vec 2.0 stands after the last block ("stable") or before the first."""
    return bool(getattr(config, "do_stable_layer_norm", False))
