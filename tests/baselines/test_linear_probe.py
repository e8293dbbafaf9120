import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from serein.baselines.linear_probe import fit_linear_probes


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
    assert torch.allclose(ours(statistics).softmax(1), expected, atol=2e-3)


def test_a_dimension_that_never_varies_is_harmless():
    statistics = torch.randn(20, 3)
    statistics[:, 1] = 7.0
    (probe,) = fit_linear_probes(statistics, torch.arange(20) % 2, 2, 0.1)
    assert probe(statistics).isfinite().all()
