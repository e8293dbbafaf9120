"""The paper's adapter training as plain PyTorch: what `adapter_step.py` compares with.

torch's own transformer layers, utterances padded from a list, torch.cdist for eq. (4), a loop over parameters for
eq. (2), plain Adam. The mask and the order of the batch are given, so that both sides can see the same.
"""

import copy

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from serein.nn.transformer import WAPTransformer


class PlainAdapter(nn.Module):
    """The WAP-Transformer with the weights of ours."""

    def __init__(self, ours: WAPTransformer) -> None:
        super().__init__()
        width, block = ours.width, ours.blocks[0]
        layer = nn.TransformerEncoderLayer(
            width, block.heads, 4 * width, block.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, len(ours.blocks), enable_nested_tensor=False)
        for theirs, source in zip(self.encoder.layers, ours.blocks, strict=True):
            theirs.self_attn.in_proj_weight.data.copy_(source.qkv.weight)
            theirs.self_attn.in_proj_bias.data.copy_(source.qkv.bias)
            for own, other in (
                (theirs.self_attn.out_proj, source.out),
                (theirs.linear1, source.up),
                (theirs.linear2, source.down),
                (theirs.norm1, source.attention_norm),
                (theirs.norm2, source.feed_forward_norm),
            ):
                own.load_state_dict(other.state_dict())
        self.front_end, self.embed, self.mlp, self.average = (
            copy.deepcopy(part) for part in (ours.front_end, ours.embed, ours.mlp, ours.average)
        )
        self.positions, self.mask_embedding = (
            nn.Parameter(part.detach().clone()) for part in (ours.positions, ours.mask_embedding)
        )

    def forward(self, frames: Tensor, padding_mask: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Frames (batch, frames, layers, width) in, Z (batch, frames, width) out."""
        x = self.embed(self.front_end(frames))
        if frame_mask is not None:
            x = torch.where(frame_mask.unsqueeze(-1), self.mask_embedding.to(x.dtype), x)
        x = x + self.positions[: x.shape[1]]
        weights, outputs = self.average.scores.softmax(0), []
        for layer in self.encoder.layers:
            x = layer(x, src_key_padding_mask=padding_mask)
            outputs.append(x)
        z: Tensor = self.mlp(torch.stack([w * output for w, output in zip(weights, outputs, strict=True)]).sum(0))
        return z


class PlainTraining:
    """Student, teacher, attributes and Adam.

    Args:
        adapter: ours, for the same start.
        attributes: K.
        decay: forgetting of the attributes' counts.
        ema: alpha of eq. (2).
        temperature: of the student's logits.
        precision: of autocast; float32 is none.
    """

    def __init__(
        self,
        adapter: WAPTransformer,
        *,
        attributes: int,
        decay: float,
        ema: float,
        temperature: float,
        precision: torch.dtype,
    ) -> None:
        self.student = PlainAdapter(adapter).train()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.optimizer = torch.optim.Adam(self.student.parameters(), 1e-4)
        self.attributes = torch.empty(0)
        self.counts = torch.empty(0)
        self.size, self.decay, self.ema, self.temperature, self.precision = (
            attributes,
            decay,
            ema,
            temperature,
            precision,
        )

    def step(
        self, utterances: list[Tensor], frame_mask: Tensor, weight: float, rate: float, draws: torch.Generator
    ) -> float:
        """One step; returns the loss."""
        lengths = torch.tensor([len(utterance) for utterance in utterances])
        frames = nn.utils.rnn.pad_sequence([utterance.float() for utterance in utterances], batch_first=True)
        padding_mask = torch.arange(frames.shape[1]) >= lengths.unsqueeze(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == torch.bfloat16):
            with torch.no_grad():
                target = self.teacher(frames, padding_mask).float()
            student = self.student(frames, padding_mask, frame_mask).float()
        teacher_frames = target[~padding_mask]
        if not len(self.attributes):
            order = torch.randperm(len(teacher_frames), generator=draws)
            self.attributes = teacher_frames[order[: self.size]].clone()
            self.counts = torch.full((self.size,), len(teacher_frames) / self.size)
        labels = torch.cdist(teacher_frames, self.attributes).argmin(1)
        reconstruction = (target[frame_mask] - student[frame_mask]).square().sum(-1).mean()
        logits = F.normalize(student[frame_mask], dim=1) @ F.normalize(self.attributes, dim=1).T / self.temperature
        loss = weight * reconstruction + (1 - weight) * F.cross_entropy(logits, labels[frame_mask[~padding_mask]])

        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for theirs, own in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                theirs.data = self.ema * theirs.data + (1 - self.ema) * own.data
            new = torch.bincount(labels, minlength=self.size).float()
            sums = torch.zeros_like(self.attributes).index_add_(0, labels, teacher_frames)
            self.counts = self.decay * self.counts + new
            got = new > 0
            means = sums[got] / new[got].unsqueeze(1)
            self.attributes[got] += (new[got] / self.counts[got]).unsqueeze(1) * (means - self.attributes[got])
        return loss.item()
