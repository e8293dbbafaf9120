import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from serein.baselines.linear_probe import LinearProbe, fit_linear_probes, pooled_statistics


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
    assert torch.allclose(ours.classify(statistics).softmax(1), expected, atol=2e-3)


def test_statistics_by_hand_leave_padding_out():
    frames = torch.tensor([[[[1.0]], [[3.0]], [[99.0]]], [[[2.0]], [[2.0]], [[5.0]]]])  # (2, 3, 1, 1)
    padding_mask = torch.tensor([[False, False, True], [False, False, False]])
    statistics = pooled_statistics(frames, padding_mask).flatten(1)
    assert statistics[0].tolist() == [2.0, 1.0]
    assert statistics[1].tolist() == pytest.approx([3.0, 2.0**0.5])


def test_a_dimension_that_never_varies_is_harmless():
    statistics = torch.randn(20, 3)
    statistics[:, 1] = 7.0
    (probe,) = fit_linear_probes(statistics, torch.arange(20) % 2, 2, 0.1)
    assert probe.classify(statistics).isfinite().all()


def test_forward_pools_and_classifies():
    probe = LinearProbe(2 * 2 * 3, 4)
    frames, padding_mask = torch.randn(5, 6, 2, 3), torch.zeros(5, 6, dtype=torch.bool)
    expected = probe.classify(pooled_statistics(frames, padding_mask).flatten(1))
    assert probe(frames, padding_mask).equal(expected)
