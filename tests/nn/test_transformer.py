import pytest
import torch
from torch import nn

from serein.nn.transformer import FrameFrontEnd, TransformerBlock, WAPTransformer, WeightedAverage, attend


def adapter(**changes) -> WAPTransformer:
    torch.manual_seed(0)
    settings = {"input_width": 16, "input_layers": 2, "width": 12, "blocks": 3, "heads": 2, "max_frames": 40}
    return WAPTransformer(**(settings | changes)).eval()


def padded(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.arange(max(lengths)) >= torch.tensor(lengths).unsqueeze(1)
    return torch.randn(len(lengths), max(lengths), 2, 16), mask


def test_a_block_equals_torchs_own_pre_norm_encoder_layer():
    ours = TransformerBlock(12, 3, dropout=0.0).eval()
    theirs = nn.TransformerEncoderLayer(12, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    theirs.self_attn.in_proj_weight.data.copy_(ours.qkv.weight)
    theirs.self_attn.in_proj_bias.data.copy_(ours.qkv.bias)
    for mine, other in (
        (ours.out, theirs.self_attn.out_proj), (ours.up, theirs.linear1), (ours.down, theirs.linear2),
    ):  # fmt: skip
        other.load_state_dict(mine.state_dict())
    x, (_, mask) = torch.randn(2, 9, 12), padded(9, 5)
    expected = theirs(x, src_key_padding_mask=mask)
    assert torch.allclose(ours(x, ~mask[:, None, None, :])[~mask], expected[~mask], atol=1e-6)


def test_the_mlp_is_three_linear_layers_with_gelu_between():
    model, x = adapter(), torch.randn(5, 12)
    first, _, second, _, third = model.mlp
    gelu = nn.functional.gelu
    assert torch.allclose(model.mlp(x), third(gelu(second(gelu(first(x))))), atol=1e-6)
    assert not torch.allclose(model.mlp(x), third(second(first(x))), atol=1e-3)


def test_padding_never_changes_an_output():
    frames, mask = padded(20, 7, 1)
    together = adapter()(frames, mask)
    for row, length in enumerate((20, 7, 1)):
        alone = adapter()(frames[row : row + 1, :length], mask[row : row + 1, :length])
        assert torch.allclose(together[row, :length], alone[0], atol=1e-5)


def test_wanted_frames_are_those_of_the_whole_output():
    frames, mask = padded(9, 4, 6)
    wanted = torch.tensor([3, 9, 1, 20])
    assert torch.allclose(
        adapter()(frames, mask, wanted=wanted), adapter()(frames, mask).flatten(0, 1)[wanted], atol=1e-6
    )


@pytest.mark.parametrize("lengths", [(9, 9), (9, 4)])
def test_attention_in_bfloat16_is_torchs_own_within_its_digits(lengths):
    torch.manual_seed(2)
    q, k, v = torch.randn(3, 2, 3, 9, 8)
    visible = (torch.arange(9) < torch.tensor(lengths).unsqueeze(1))[:, None, None, :]
    expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    ours = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), None if lengths == (9, 9) else visible)
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - expected).abs().max() < 0.03


def test_padding_never_changes_an_output_in_bfloat16():
    frames, mask = padded(20, 7, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        together = adapter()(frames, mask)
        for row, length in enumerate((20, 7, 1)):
            alone = adapter()(frames[row : row + 1, :length], mask[row : row + 1, :length])
            assert torch.allclose(together[row, :length].float(), alone[0].float(), atol=0.02)


def test_what_stands_at_padding_does_not_matter():
    frames, mask = padded(9, 4)
    loud = frames.masked_fill(mask[:, :, None, None], 1e4)
    assert torch.allclose(adapter()(frames, mask)[~mask], adapter()(loud, mask)[~mask], atol=1e-5)


def test_a_permuted_batch_permutes_the_output():
    frames, mask = padded(9, 4, 6)
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(adapter()(frames, mask)[order], adapter()(frames[order], mask[order]), atol=1e-6)


def test_output_depends_on_position():
    frames = torch.randn(1, 1, 2, 16).expand(1, 6, 2, 16)
    network = adapter()
    assert torch.allclose(*network(frames, torch.zeros(1, 6, dtype=torch.bool))[0, :2])
    torch.nn.init.normal_(network.positions)
    output = network(frames, torch.zeros(1, 6, dtype=torch.bool))
    assert (output[0, 0] - output[0, 1]).abs().max() > 1e-3


def test_the_number_of_positions_changes_no_initial_weight():
    short, long = adapter(max_frames=10).state_dict(), adapter(max_frames=40).state_dict()
    assert all(short[name].equal(long[name]) for name in short if name != "positions")


def test_a_hidden_frame_reaches_the_student_only_as_the_mask_embedding():
    frames, mask = padded(8, 8)
    hidden = torch.zeros_like(mask)
    hidden[:, 3] = True
    changed = frames.clone()
    changed[:, 3] += 5.0
    assert adapter()(frames, mask, hidden).equal(adapter()(changed, mask, hidden))
    assert not adapter()(frames, mask).equal(adapter()(changed, mask))


def test_hidden_frames_keep_their_positions():
    frames, mask = padded(6)
    network = adapter()
    torch.nn.init.normal_(network.positions)
    output = network(frames, mask, torch.ones_like(mask))  # nothing but positions tells these frames apart
    assert (output[0, 0] - output[0, 1]).abs().max() > 1e-3


def test_z_is_the_weighted_sum_of_the_blocks_outputs():
    # Z = sum_l w_l X^l with w = softmax(scores): scores (log 1, log 3) weigh (1/4, 3/4)
    average = WeightedAverage(2)
    average.scores.data = torch.tensor([1.0, 3.0]).log()
    result = average([torch.full((2, 2), 4.0), torch.full((2, 2), 8.0)])
    assert torch.allclose(result, torch.full((2, 2), 7.0))


def test_the_front_end_standardises_and_mixes_layers():
    front_end = FrameFrontEnd(2, 1)
    front_end.mean.copy_(torch.tensor([[1.0], [10.0]]))
    front_end.deviation.copy_(torch.tensor([[2.0], [5.0]]))
    frames = torch.tensor([3.0, 20.0]).view(1, 1, 2, 1)  # standardised: 1 and 2
    assert front_end(frames).item() == pytest.approx(1.5)
    assert FrameFrontEnd(1, 1).mix is None


def test_the_papers_size_is_about_six_million_parameters():
    blocks = sum(p.numel() for p in WAPTransformer(input_width=1024, width=384).blocks.parameters())
    assert blocks == 3 * (12 * 384**2 + 13 * 384)


def test_too_long_input_and_impossible_heads_are_refused():
    with pytest.raises(ValueError, match="cut the input into windows"):
        adapter(max_frames=5)(*padded(6))
    with pytest.raises(ValueError, match="heads"):
        adapter(heads=5)


def test_as_many_frames_as_there_are_positions_are_taken():
    assert adapter(max_frames=6)(*padded(6)).shape == (1, 6, 12)


def test_dropout_acts_in_training_only():
    frames, mask = padded(9, 4)
    noisy = adapter(dropout=0.5)
    assert noisy(frames, mask).equal(noisy(frames, mask))
    noisy.train()
    assert not noisy(frames, mask).equal(noisy(frames, mask))


@pytest.mark.parametrize("silent", ["out", "down"])
def test_dropout_acts_on_what_attention_adds_and_on_what_the_mlp_adds(silent):
    block = TransformerBlock(12, 2, dropout=0.5)
    for parameter in getattr(block, silent).parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 5, 12)
    assert not block(x, None).equal(block(x, None))


def test_joined_layers_stand_side_by_side_each_standardised():
    front_end = FrameFrontEnd(2, 3, "joined")
    front_end.mean.copy_(torch.arange(6.0).view(2, 3))
    front_end.deviation.copy_(torch.tensor([[2.0], [5.0]]).expand(2, 3))
    frames = torch.randn(4, 7, 2, 3)
    output = front_end(frames)
    assert (output.shape, front_end.output_width) == ((4, 7, 6), 6)
    assert torch.allclose(output[..., :3], (frames[:, :, 0] - torch.tensor([0.0, 1.0, 2.0])) / 2, atol=1e-6)
    assert torch.allclose(output[..., 3:], (frames[:, :, 1] - torch.tensor([3.0, 4.0, 5.0])) / 5, atol=1e-6)


def test_joined_layers_cost_a_wider_embedding_and_save_the_mix():
    sizes = {mix: sum(p.numel() for p in adapter(layer_mix=mix).parameters()) for mix in ("softmax", "joined")}
    assert sizes["joined"] - sizes["softmax"] == 16 * 12 - 2  # a second layer of 16 into 12; two scores fewer
    frames, mask = padded(9, 4)
    assert adapter(layer_mix="joined")(frames, mask).shape == (2, 9, 12)


def test_one_layer_joined_is_one_layer_mixed():
    frames, mask = padded(9, 4)
    joined, mixed = (adapter(input_layers=1, layer_mix=mix) for mix in ("joined", "softmax"))
    assert joined.state_dict().keys() == mixed.state_dict().keys()
    assert joined(frames[:, :, :1], mask).equal(mixed(frames[:, :, :1], mask))
