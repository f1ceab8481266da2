"""Scores beside scikit-learn, scoringrules and closed forms."""

import numpy as np
import pytest
import scoringrules
import torch

from scipy.stats import kstest
from sklearn.metrics import accuracy_score, jaccard_score, ndcg_score, r2_score, roc_auc_score

from aion.benchmarks import metrics
from aion.posterior import Posterior

RNG = np.random.default_rng(0)
TRUTH, GUESS = RNG.uniform(0, 1, 200), RNG.uniform(0, 1, 200)


def test_numbers_and_classes_agree_with_scikit_learn():
    assert metrics.r2(TRUTH, GUESS) == pytest.approx(r2_score(TRUTH, GUESS))
    classes, guess = RNG.integers(3, size=(2, 200))
    assert metrics.accuracy(classes, guess) == accuracy_score(classes, guess)
    assert metrics.accuracy(classes.astype(str), guess.astype(str)) == accuracy_score(classes, guess)
    for score in (GUESS, GUESS.round(1)):
        assert metrics.auc(TRUTH > 0.7, score) == pytest.approx(roc_auc_score(TRUTH > 0.7, score))
    assert metrics.iou(TRUTH, GUESS) == pytest.approx(jaccard_score(TRUTH > 0.5, GUESS > 0.5))
    assert metrics.iou(np.zeros(4), np.zeros(4)) == 1


@pytest.mark.parametrize("k", [1, 10, 300])
def test_ndcg_agrees_with_scikit_learn(k):
    relevance, score = RNG.uniform(size=(20, 100)) ** 4, RNG.normal(size=(20, 100))
    assert metrics.ndcg(relevance, score, k) == pytest.approx(ndcg_score(relevance, score, k=k))
    assert metrics.ndcg(relevance, relevance, k) == pytest.approx(1)
    assert metrics.ndcg(np.zeros((2, 5)), np.ones((2, 5))) == 0


def test_redshift_residuals_in_closed_form():
    z = np.full(1001, 1.0)
    guess = z + 2 * np.linspace(-0.1, 0.1, 1001)  # residuals uniform between -0.1 and 0.1
    assert metrics.nmad(z, guess) == pytest.approx(1.4826 * 0.05, rel=1e-2)
    assert metrics.nmad(z, guess + 0.5) == pytest.approx(1.4826 * 0.05, rel=1e-2)
    assert metrics.outliers(z, guess) == pytest.approx(0.5, abs=0.01)


def test_crps_agrees_with_scoringrules_and_the_ensemble():
    edges = np.array([0.0, 0.1, 0.3, 0.35, 1.0])
    probability = RNG.dirichlet(np.ones(4), 30)
    posterior = Posterior(torch.from_numpy(edges), torch.from_numpy(probability))
    truth = RNG.uniform(-0.3, 1.3, 30)
    ours = metrics.crps(truth, posterior)
    x = np.linspace(-1, 2, 60001)
    for row in range(30):
        F = np.interp(x, edges, np.concatenate([[0], probability[row].cumsum()]))
        assert ours[row] == pytest.approx(np.trapezoid((F - (x >= truth[row])) ** 2, x), abs=2e-4)
    uniform = Posterior(torch.tensor([0.0, 1.0]), torch.ones(30, 1))
    np.testing.assert_allclose(metrics.crps(truth, uniform), scoringrules.crps_uniform(truth, 0, 1), atol=1e-9)


def test_pit_is_uniform_where_the_truth_is_drawn_from_the_posterior():
    posterior = Posterior(
        torch.tensor([0.0, 0.2, 1.0, 3.0]), torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    )
    truth = posterior.sample(1, torch.Generator().manual_seed(1))[:, 0].numpy()
    values = metrics.pit(truth, posterior)
    assert metrics.pit_deviation(values) < 0.06
    assert metrics.pit_deviation(values) == pytest.approx(kstest(values, "uniform").statistic)
    assert metrics.pit_deviation(values**3) > 0.2
    np.testing.assert_allclose(metrics.pit(np.full(500, 9.0), posterior), 1)


def test_bad_input():
    with pytest.raises(ValueError, match="all 5 true values"):
        metrics.r2(np.ones(5), np.arange(5))
    with pytest.raises(ValueError, match=r"prediction must be finite; rows \[2\]"):
        metrics.r2([1.0, 2, 3], [1.0, 2, np.nan])
    with pytest.raises(ValueError, match="one shape"):
        metrics.accuracy([1, 2], [1])
    with pytest.raises(ValueError, match="both classes"):
        metrics.auc([1, 1], [0.5, 0.2])
