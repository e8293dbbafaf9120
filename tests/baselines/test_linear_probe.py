import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from serein.baselines.linear_probe import fit_linear_probes
from serein.frames.batches import FrameArray


@pytest.mark.parametrize(("utterances", "features"), [(80, 12), (40, 100)])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_the_fit_equals_scikit_learns_logistic_regression(utterances, features, c):
    torch.manual_seed(0)
    statistics = torch.randn(utterances, features) * 3 + 1
    labels = torch.randint(4, (utterances,))
    _, ours = fit_linear_probes(statistics, labels, 4, 0.003, c)
    standardised = StandardScaler().fit_transform(statistics.double().numpy())
    theirs = LogisticRegression(C=c, max_iter=5000, tol=1e-8).fit(standardised, labels.numpy())
    expected = torch.from_numpy(theirs.predict_proba(standardised)).float()
    assert torch.allclose(ours.read(statistics).softmax(1), expected, atol=2e-3)


def test_a_dimension_that_never_varies_is_harmless():
    statistics = torch.randn(20, 3)
    statistics[:, 1] = 7.0
    (probe,) = fit_linear_probes(statistics, torch.arange(20) % 2, 2, 0.1)
    assert probe.read(statistics).isfinite().all()


def test_frames_are_read_by_their_mean_and_deviation_and_padding_changes_nothing():
    lengths = torch.tensor([1, 7, 12])
    array = FrameArray(("a", "b", "c"), torch.randn(20, 2, 5).half(), lengths, 12.5)
    statistics = array.pooled(torch.arange(3)).flatten(1)
    (probe,) = fit_linear_probes(statistics, torch.tensor([0, 1, 1]), 2, 0.1)
    batch = array.batch(torch.arange(3))
    torch.testing.assert_close(probe.embed(batch.frames, batch.padding_mask), statistics)
    whole = probe(batch.frames, batch.padding_mask)
    torch.testing.assert_close(whole, probe.read(statistics))
    spoilt = batch.frames.masked_fill(batch.padding_mask[:, :, None, None], torch.nan)
    assert torch.equal(probe(spoilt, batch.padding_mask), whole)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(probe(batch.frames, batch.padding_mask), whole)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(probe(batch.frames[order], batch.padding_mask[order]), whole[order])
