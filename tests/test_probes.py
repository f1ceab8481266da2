"""What all probes promise: the protocol of scikit-learn, seeds, files, refusals."""

import copy

import numpy as np
import pytest
import torch

from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from aion.probes import AttentiveProbe, LogisticProbe, MapProbe, MLPProbe, NeighborProbe, RidgeProbe

QUICK = {"steps": 40, "width": 16}
PROBES = {
    "ridge": RidgeProbe(),
    "logistic": LogisticProbe(),
    "neighbor": NeighborProbe(k=3),
    "neighbor classes": NeighborProbe(k=3, kind="classifier"),
    "mlp": MLPProbe(**QUICK),
    "mlp classes": MLPProbe(kind="classifier", **QUICK),
    "attentive": AttentiveProbe(**QUICK),
    "attentive classes": AttentiveProbe(kind="classifier", **QUICK),
    "map": MapProbe(steps=15, width=4, learning_rate=2e-2),
}
EVERY = pytest.mark.parametrize("name", PROBES)


def data(name, n=60, seed=0):
    """Draws features of the shape that a probe wants, and what can be read off them."""
    rng = np.random.default_rng(seed)
    if name == "map":
        X = rng.normal(size=(n, 3, 2, 2))
        return X, np.kron(X[:, 0], np.ones((1, 4, 4)))
    X = rng.normal(size=(n, 5, 4)) if "attentive" in name else rng.normal(size=(n, 4))
    signal = X.mean(1)[:, 0] if X.ndim == 3 else X[:, 0]
    classes = np.array(["low", "middle", "high"])[np.digitize(signal, np.quantile(signal, [0.33, 0.66]))]
    return X, classes if is_classifier(PROBES[name]) else 3 * signal + 10


@EVERY
def test_cross_validation_pipelines_and_clones(name):
    X, y = data(name)
    pipeline = make_pipeline(FunctionTransformer(), clone(PROBES[name]))
    scores = cross_val_score(pipeline, X, y, cv=3)
    np.testing.assert_array_equal(scores, cross_val_score(clone(PROBES[name]), X, y, cv=3))
    assert scores.mean() > (0.4 if is_classifier(PROBES[name]) else -0.5)
    assert clone(PROBES[name]).get_params() == PROBES[name].get_params()


@EVERY
def test_fits_are_reproducible_and_touch_no_global_state(name):
    X, y = data(name)
    state = torch.get_rng_state()
    first, second = (clone(PROBES[name]).fit(X, y).predict(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    if "seed" in PROBES[name].get_params():
        other = clone(PROBES[name]).set_params(seed=1).fit(X, y)
        weights = clone(PROBES[name]).fit(X, y).network_
        assert any(not torch.equal(weights[k], v) for k, v in other.network_.items())


@EVERY
def test_a_file_brings_the_probe_back(name, tmp_path):
    X, y = data(name)
    probe = clone(PROBES[name]).fit(X, y)
    loaded = type(probe).load(probe.save(tmp_path / "probe.safetensors"))
    np.testing.assert_array_equal(loaded.predict(X), probe.predict(X))
    assert loaded.get_params() == probe.get_params()
    assert loaded.score(X, y) == probe.score(X, y)
    assert [path.name for path in tmp_path.iterdir()] == ["probe.safetensors"]
    other = RidgeProbe if name == "logistic" else LogisticProbe
    with pytest.raises(ValueError, match=f"wanted a {other.__name__}, given {type(probe).__name__}"):
        other.load(tmp_path / "probe.safetensors")


@EVERY
def test_one_object_is_as_in_a_batch_and_nothing_is_written(name):
    X, y = data(name)
    kept = copy.deepcopy((X, y))
    X.flags.writeable = False
    probe = clone(PROBES[name]).fit(X, y)
    alone = np.concatenate([probe.predict(X[i : i + 1]) for i in range(4)])
    if alone.dtype.kind == "f":
        np.testing.assert_allclose(alone, probe.predict(X)[:4], rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_array_equal(alone, probe.predict(X)[:4])
    np.testing.assert_array_equal(X, kept[0])
    np.testing.assert_array_equal(y, kept[1])


@EVERY
def test_nan_is_refused_by_row(name):
    X, y = data(name)
    bad = X.copy()
    bad[7].flat[0] = np.nan
    with pytest.raises(ValueError, match=r"1 of 60 rows hold NaN or inf \(first: 7\)"):
        clone(PROBES[name]).fit(bad, y)
    probe = clone(PROBES[name]).fit(X, y)
    with pytest.raises(ValueError, match=r"first: 7"):
        probe.predict(bad)
    if not is_classifier(probe):
        wrong = y.copy()
        wrong[3] = np.inf
        with pytest.raises(ValueError, match=r"y must be finite.*first: 3"):
            clone(PROBES[name]).fit(X, wrong)


@EVERY
def test_bad_input(name, tmp_path):
    X, y = data(name)
    probe = clone(PROBES[name])
    with pytest.raises(NotFittedError, match="call fit"):
        probe.predict(X)
    with pytest.raises(ValueError, match="nothing to save"):
        probe.save(tmp_path / "probe")
    with pytest.raises(ValueError, match="no parameter 'sede'"):
        probe.set_params(sede=1)
    with pytest.raises(ValueError, match="X must be"):
        probe.fit(X[..., None, None], y)
    with pytest.raises(ValueError, match=r"same number of objects|as many maps"):
        probe.fit(X[:-1], y)
    with pytest.raises(TypeError, match="real numbers"):
        probe.fit(X.astype(str), y)
    fitted = clone(probe).fit(X, y)
    wide = np.concatenate([X, X], axis=1 if name == "map" or X.ndim == 2 else 2)
    with pytest.raises(ValueError, match="features, but"):
        fitted.predict(wide)
    with pytest.raises(FileNotFoundError):
        type(probe).load(tmp_path / "none")


@pytest.mark.parametrize("name", [n for n in PROBES if is_classifier(PROBES[n])])
def test_classifiers_want_classes(name):
    X, y = data(name)
    with pytest.raises(ValueError, match="at least two classes"):
        clone(PROBES[name]).fit(X, np.zeros(len(X), int))
    with pytest.raises(ValueError, match="must hold classes"):
        clone(PROBES[name]).fit(X, np.linspace(0, 1, len(X)))
    numbers = np.unique(y, return_inverse=True)[1]
    predicted = clone(PROBES[name]).fit(torch.from_numpy(X), torch.from_numpy(numbers)).predict(torch.from_numpy(X))
    assert isinstance(predicted, torch.Tensor)
    assert set(predicted.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("name", ["neighbor", "mlp", "attentive"])
def test_a_kind_that_is_not_known(name):
    X, y = data(name)
    with pytest.raises(ValueError, match="kind must be"):
        clone(PROBES[name]).set_params(kind="ranker").fit(X, y)


@pytest.mark.parametrize("name", ["mlp", "attentive"])
def test_several_outputs_and_columns(name):
    X, y = data(name)
    both = np.stack([y, -2 * y], axis=1)
    probe = clone(PROBES[name]).set_params(steps=300).fit(X, both)
    assert probe.predict(X).shape == (60, 2)
    assert probe.score(X, both) > 0.6
