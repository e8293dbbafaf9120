import pytest
import torch
import transformers

from serein.frames.convolutions import RowConvolutions


@pytest.mark.parametrize("samples", [400, 719, 720, 5001])
@torch.no_grad()
def test_frames_are_those_of_transformers(samples, tiny_checkpoint):
    extractor = transformers.AutoModel.from_pretrained(tiny_checkpoint("hubert-stable")).feature_extractor
    waveform = torch.randn(samples)
    expected = extractor(waveform[None])[0].T
    torch.testing.assert_close(RowConvolutions(extractor.conv_layers)(waveform), expected, atol=2e-5, rtol=1e-5)
