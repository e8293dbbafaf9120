import pytest
import torch
from torch.nn.functional import gelu, linear

from serein.frames.frozen import FrozenLinear


@pytest.fixture(params=["packed", "plain"])
def layout(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr("serein.frames.frozen._can_pack", lambda weight: False)
    elif not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_products_are_those_of_torch(dtype, tolerance, with_bias, layout):
    weight, bias = torch.randn(24, 40) / 6, torch.randn(24) if with_bias else None
    low = [None if tensor is None else tensor.to(dtype) for tensor in (weight, bias)]
    for rows in (torch.randn(1, 40), torch.randn(3000, 40), torch.randn(500).unfold(0, 40, 20)):
        expected = linear(rows, weight, bias)
        torch.testing.assert_close(FrozenLinear(*low)(rows.to(dtype)).float(), expected, atol=tolerance, rtol=tolerance)
        activated = FrozenLinear(*low, gelu=True)(rows.to(dtype)).float()
        torch.testing.assert_close(activated, gelu(expected), atol=tolerance, rtol=tolerance)


def test_weights_are_packed_here_if_torch_can():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    assert FrozenLinear(torch.randn(24, 40), None)._weight.is_mkldnn


def test_weights_elsewhere_than_on_a_cpu_are_left_as_they_are():
    weight = torch.empty(24, 40, device="meta")
    assert FrozenLinear(weight, None)._weight is weight
