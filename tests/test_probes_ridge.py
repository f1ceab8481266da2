import copy
import warnings

import numpy as np
import pytest
import torch

from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from aion.probes import RidgeProbe

SHAPES = [(40, 5), (5, 40), (30, 30), (31, 30), (30, 31), (2, 7), (200, 1), (1, 3)]


def draw(n, d, k=None, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(3.0, 10.0, (n, d))
    y = X @ rng.normal(size=(d, k or 1)) + rng.normal(size=(n, k or 1)) + 50
    return X, y if k else y[:, 0]


def assert_agree(probe, weight, intercept, tolerance=1e-6):
    np.testing.assert_allclose(probe.coef_, np.reshape(weight, probe.coef_.shape), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(probe.intercept_, np.reshape(intercept, np.shape(probe.intercept_)), rtol=tolerance)


def ridge(alpha, X, y):
    """Fits scikit-learn's ridge."""
    other = Ridge(alpha).fit(X, y)
    return other.coef_, other.intercept_


def least_squares(alpha, X, y):
    """Solves the same problem as least squares with alpha as further rows, in which nothing is squared."""
    d = X.shape[1]
    rows = np.concatenate([X - X.mean(0), np.sqrt(alpha) * np.eye(d)])
    targets = np.concatenate([y - y.mean(0), np.zeros((d, *y.shape[1:]))])
    weight = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return weight.T, y.mean(0) - X.mean(0) @ weight


@pytest.mark.parametrize("alpha", [1e-3, 1, 1e4])
@pytest.mark.parametrize("k", [None, 1, 3])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_agrees_with_scikit_learn(n, d, k, alpha):
    X, y = draw(n, d, k)
    probe, other = RidgeProbe(alpha).fit(X, y), Ridge(alpha).fit(X, y)
    assert_agree(probe, other.coef_, other.intercept_)
    assert probe.coef_.shape == (*y.shape[1:], d)
    assert np.shape(probe.intercept_) == y.shape[1:]
    unseen, target = draw(9, d, k, seed=1)
    assert probe.predict(unseen).shape == target.shape
    np.testing.assert_allclose(probe.predict(unseen), np.reshape(other.predict(unseen), target.shape), rtol=1e-6)
    assert probe.score(unseen, target) == pytest.approx(other.score(unseen, target), abs=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 1e-8, 1e-3, 1, 1e4])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_agrees_with_least_squares_for_any_penalty(n, d, alpha):
    X, y = draw(n, d, 2)
    assert_agree(RidgeProbe(alpha).fit(X, y), *least_squares(alpha, X, y))


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 1.0])
def test_features_that_repeat_or_are_constant(alpha):
    X, y = draw(50, 4)
    X = np.concatenate([X, X, np.ones((50, 1)), 1e-3 * X[:, :1]], axis=1)
    assert_agree(RidgeProbe(alpha).fit(X, y), *least_squares(alpha, X, y))


def test_a_large_offset_does_no_harm():
    X, y = draw(60, 5)
    X, y = X + 1e6, y + 1e6
    assert_agree(RidgeProbe().fit(X, y), *ridge(1.0, X, y))


def test_the_gradient_of_the_loss_is_zero():
    X, y = draw(40, 6, 2)
    probe = RidgeProbe(alpha=2.5).fit(X, y)
    residual = y - probe.predict(X)
    np.testing.assert_allclose(residual.T @ X, 2.5 * probe.coef_, atol=1e-9)
    np.testing.assert_allclose(residual.sum(0), 0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_tensors_in_tensors_out(dtype):
    X, y = (torch.from_numpy(a).to(dtype) for a in draw(40, 5, 2))
    probe = RidgeProbe().fit(X.requires_grad_(), y)
    prediction = probe.predict(X)
    assert isinstance(prediction, torch.Tensor)
    assert prediction.dtype == torch.float64
    assert not prediction.requires_grad
    arrays = X.detach().double().numpy(), y.double().numpy()
    assert_agree(probe, *ridge(1.0, *arrays))
    assert isinstance(probe.predict(arrays[0]), np.ndarray)
    assert probe.score(X, y) == probe.score(*arrays)


@pytest.mark.parametrize(
    "convert", [np.ndarray.tolist, lambda a: a.astype(">f4"), lambda a: a.astype(int), np.asfortranarray]
)
def test_any_array_like_is_taken(convert):
    X, y = (np.round(a) for a in draw(30, 4))
    assert_agree(RidgeProbe().fit(convert(X), convert(y)), *ridge(1.0, X, y))


def test_nothing_of_the_caller_is_written():
    X, y = draw(30, 4)
    X.flags.writeable = y.flags.writeable = False
    before = X.copy(), y.copy()
    probe = RidgeProbe().fit(X, y)
    probe.score(X, y)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    tensors = torch.from_numpy(before[0]), torch.from_numpy(before[1])
    copies = copy.deepcopy(tensors)
    RidgeProbe().fit(*tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))


def test_objects_are_predicted_alone_as_in_a_batch_and_in_any_order():
    X, y = draw(40, 5, 2)
    order = np.random.default_rng(2).permutation(40)
    probe, shuffled = RidgeProbe().fit(X, y), RidgeProbe().fit(X[order], y[order])
    np.testing.assert_allclose(shuffled.coef_, probe.coef_, rtol=1e-12)
    alone = np.concatenate([probe.predict(X[i : i + 1]) for i in range(40)])
    np.testing.assert_allclose(alone, probe.predict(X), rtol=1e-12)


def test_serves_in_cross_validation_pipelines_and_searches():
    X, y = draw(60, 5)
    folds = KFold(4)
    for ours, theirs in (
        (RidgeProbe(3.0), Ridge(3.0)),
        *[[make_pipeline(StandardScaler(), p) for p in (RidgeProbe(), Ridge())]],
    ):
        np.testing.assert_allclose(cross_val_score(ours, X, y, cv=folds), cross_val_score(theirs, X, y, cv=folds))
    grid = {"ridgeprobe__alpha": [1e-3, 1.0, 1e5]}
    search = GridSearchCV(make_pipeline(StandardScaler(), RidgeProbe()), grid, cv=folds).fit(X, y)
    assert search.best_params_["ridgeprobe__alpha"] < 1e5
    assert is_regressor(RidgeProbe())


def test_passes_the_checks_of_scikit_learn():
    # These want scikit-learn's own wording, or objects converted where we refuse; they fail here with a clear error.
    wording = {
        "check_array_api_input",
        "check_complex_data",
        "check_dtype_object",
        "check_estimator_sparse_array",
        "check_estimator_sparse_matrix",
        "check_estimator_sparse_tag",
        "check_estimators_empty_data_messages",
        "check_fit2d_predict1d",
        "check_requires_y_none",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one about not inheriting from BaseEstimator
        results = check_estimator(RidgeProbe(), on_fail=None, on_skip=None)
    failed = {result["check_name"] for result in results if result["status"] != "passed"}
    assert len(results) > 40
    assert failed <= wording


def test_parameters():
    probe = RidgeProbe(alpha=2)
    assert probe.get_params() == {"alpha": 2}
    assert repr(probe) == "RidgeProbe(alpha=2)"
    assert probe.set_params(alpha=3) is probe
    assert clone(probe).get_params() == {"alpha": 3}
    with pytest.raises(ValueError, match="no parameter 'alpa'; did you mean 'alpha'"):
        probe.set_params(alpa=1)


def test_a_constant_target_scores_one_or_zero():
    X = draw(10, 2)[0]
    probe = RidgeProbe().fit(X, np.full(10, 7.0))
    assert probe.score(X, np.full(10, 7.0)) == 1
    assert probe.score(X, np.full(10, 8.0)) == 0
    assert (probe.coef_ == 0).all()


def test_a_fit_that_fails_leaves_the_probe_as_it_was():
    X, y = draw(10, 2)
    probe = RidgeProbe().fit(X, y)
    before = probe.coef_.copy()
    with pytest.raises(ValueError, match="finite"):
        probe.fit(np.full((10, 3), np.nan), y)
    np.testing.assert_array_equal(probe.coef_, before)
    assert probe.n_features_in_ == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_rows_that_are_not_finite_are_named(kind, value):
    X, y = draw(10, 3)
    bad = X.copy()
    bad[[4, 7], 1] = value
    with pytest.raises(ValueError, match=r"X must be finite, but 2 of 10 rows hold NaN or inf \(first: 4, 7\)"):
        RidgeProbe().fit(kind(bad), kind(y))
    with pytest.raises(ValueError, match=r"X must be finite"):
        RidgeProbe().fit(X, y).predict(kind(bad))
    y[9] = value
    with pytest.raises(ValueError, match=r"y must be finite, but 1 of 10 rows hold NaN or inf \(first: 9\)"):
        RidgeProbe().fit(kind(X), kind(y))


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((3, 2)), np.ones(4), "given 3 and 4"),
        (np.ones((0, 2)), np.ones(0), "at least one, given 0 and 0"),
        (np.ones(3), np.ones(3), r"X must be \(N, D\), given shape \(3,\); for one feature use X\[:, None\]"),
        (np.ones((3, 0)), np.ones(3), r"X must be \(N, D\)"),
        (np.ones((3, 2, 2)), np.ones(3), r"X must be \(N, D\)"),
        (np.ones((3, 2)), np.float64(1.0), r"y must be \(N,\) or \(N, K\), given shape \(\)"),
        (np.ones((3, 2)), np.ones((3, 1, 1)), r"y must be \(N,\) or \(N, K\)"),
        (np.ones((3, 2)), np.ones((3, 0)), r"y must be \(N,\) or \(N, K\)"),
    ],
)
def test_bad_shapes_are_refused(X, y, message):
    with pytest.raises(ValueError, match=message):
        RidgeProbe().fit(X, y)


@pytest.mark.parametrize(
    "bad", [np.array([["a"], ["b"]]), np.ones((2, 1), complex), torch.ones(2, 1, dtype=torch.cfloat), None]
)
def test_what_is_not_a_real_number_is_refused(bad):
    with pytest.raises(TypeError, match="X must hold real numbers, given"):
        RidgeProbe().fit(bad, np.ones(2))
    with pytest.raises(TypeError, match="y must hold real numbers, given"):
        RidgeProbe().fit(np.ones((2, 1)), bad)


@pytest.mark.parametrize("alpha", [-1.0, np.nan, np.inf, "1", None])
def test_a_bad_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be a finite number >= 0, given"):
        RidgeProbe(alpha).fit(*draw(5, 2))


def test_a_probe_that_was_not_fitted_or_is_given_another_width_says_so():
    X, y = draw(5, 2)
    with pytest.raises(NotFittedError, match=r"not fitted yet; call fit\(X, y\)"):
        RidgeProbe().predict(X)
    with pytest.raises(ValueError, match="not fitted"):
        RidgeProbe().score(X, y)
    probe = RidgeProbe().fit(X, y)
    with pytest.raises(ValueError, match="X has 1 features, but RidgeProbe is expecting 2"):
        probe.predict(X[:, :1])
    with pytest.raises(ValueError, match=r"y must be \(5,\) like the prediction, given \(5, 1\)"):
        probe.score(X, y[:, None])
