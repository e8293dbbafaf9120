import copy

import pytest
import torch
import transformers
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from serein.frames import packed
from serein.frames.blocks import run_blocks
from serein.frames.packed import attend_alone, attend_masked, pack_blocks, run_packed

LENGTHS = [7, 1, 30, 30, 12]


def transformer(folder):
    model = transformers.AutoModel.from_pretrained(folder)
    return getattr(model, "encoder", model), model.config


@pytest.mark.parametrize("kind", ["hubert", "hubert-stable", "data2vec-audio", "unispeech-sat", "whisper"])
@torch.no_grad()
def test_packed_blocks_give_what_padded_ones_give(kind, tiny_checkpoint):
    encoder, config = transformer(tiny_checkpoint(kind))
    entering = [torch.randn(length, 32) for length in LENGTHS]
    final_norm = nn.LayerNorm(32)
    nn.init.normal_(final_norm.weight)
    expected = run_blocks(copy.deepcopy(encoder.layers), entering, (3, 0, 2), final_norm=final_norm)
    blocks = pack_blocks(encoder.layers, config)
    assert len(blocks) == 3
    assert len(encoder.layers) == 0, "weights would be in memory twice"
    for frames, same in zip(run_packed(blocks, entering, (3, 0, 2), final_norm=final_norm), expected, strict=True):
        torch.testing.assert_close(frames, same, atol=2e-5, rtol=1e-5)
    assert run_packed(blocks, [], (3,)) == []


def test_blocks_that_do_more_are_left_alone(tiny_checkpoint):
    encoder, config = transformer(tiny_checkpoint("wavlm"))
    assert pack_blocks(encoder.layers, config) is None
    encoder, config = transformer(tiny_checkpoint("wav2vec2-stable"))
    for setting, value in (("adapter_attn_dim", 8), ("hidden_act", "relu")):
        changed = copy.deepcopy(config)
        setattr(changed, setting, value)
        assert pack_blocks(encoder.layers, changed) is None
    assert len(encoder.layers) == 3


@pytest.mark.parametrize("longest", [2048, 10])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_every_way_of_attention_keeps_utterances_apart(dtype, tolerance, longest, monkeypatch):
    monkeypatch.setattr(packed, "LONGEST_SCORES", longest)
    entries = torch.randn(sum(LENGTHS), 3, 4, 8)
    each = [part.permute(1, 2, 0, 3).unsqueeze(1) for part in entries.split(LENGTHS)]
    expected = torch.cat([scaled_dot_product_attention(*part, scale=1.0)[0].transpose(0, 1) for part in each])
    for attend in (attend_alone, attend_masked):
        attended = attend(entries.to(dtype), LENGTHS).float()
        torch.testing.assert_close(attended, expected, atol=tolerance, rtol=tolerance)


@torch.no_grad()
def test_attention_of_a_gpu_gives_the_same_frames(tiny_checkpoint, monkeypatch):
    encoder, config = transformer(tiny_checkpoint("hubert-stable"))
    blocks = pack_blocks(encoder.layers, config)
    entering = [torch.randn(length, 32) for length in LENGTHS]
    alone = run_packed(blocks, entering, (3,))
    monkeypatch.setattr(packed, "attend_alone", attend_masked)
    for frames, same in zip(run_packed(blocks, entering, (3,)), alone, strict=True):
        torch.testing.assert_close(frames, same, atol=2e-5, rtol=1e-5)
