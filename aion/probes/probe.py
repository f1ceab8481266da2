"""What all probes share: scikit-learn's protocol, checks of what comes in, and a file."""

__all__ = ["Probe"]

import inspect
import json

from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import torch

from torch import Tensor

from aion.observations import near_miss
from aion.whole import whole

Self = TypeVar("Self", bound="Probe")
_KEY = "aion_probe"


class Probe:
    """Provides parameters by name, a score, checks and a file to estimators.

    What was fitted stands in attributes that end in `_`, as scikit-learn wants: arrays, plain JSON values and, in
    `network_`, the tensors of a network.
    """

    kind: str = "regressor"  # or "classifier"; probes that can be both take it as an argument
    axes: ClassVar[tuple[int, ...]] = (2,)  # how many axes the features may have

    # ---- scikit-learn's protocol

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """Returns the constructor's arguments, by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self: Self, **params: object) -> Self:
        """Sets constructor's arguments by name; an unknown name is a `ValueError` with the near misses."""
        for name in params:
            if name not in self.get_params():
                msg = f"{type(self).__name__} has no parameter {name!r}; {near_miss(name, self.get_params())}"
                raise ValueError(msg)
        self.__dict__.update(params)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"

    def score(self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> float:
        r"""Computes the accuracy of a classifier, or :math:`R^2` averaged over targets.

        A constant target scores 1 if it is predicted exactly, else 0.
        """
        prediction = self.predict(X)
        if self.kind == "classifier":
            y, prediction = (np.asarray(v.cpu() if isinstance(v, Tensor) else v) for v in (y, prediction))
            self._check_alike(y.shape, prediction.shape)
            return float((y == prediction).mean())
        y, prediction = self._finite("y", y), torch.as_tensor(prediction).cpu().double()
        self._check_alike(y.shape, prediction.shape)
        y, prediction = y.reshape(len(y), -1), prediction.reshape(len(y), -1)
        residual, total = (y - prediction).square().sum(0), (y - y.mean(0)).square().sum(0)
        return torch.where(total > 0, 1 - residual / total, (residual == 0).double()).mean().item()

    def _check_alike(self, given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if given != wanted:
            msg = f"{type(self).__name__}: y must be {tuple(wanted)} like the prediction, given {tuple(given)}"
            raise ValueError(msg)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")

    def __sklearn_tags__(self) -> object:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        regressor = self.kind == "regressor"
        return Tags(
            self.kind,
            TargetTags(required=True, multi_output=regressor),
            regressor_tags=RegressorTags() if regressor else None,
            classifier_tags=None if regressor else ClassifierTags(),
            input_tags=InputTags(three_d_array=3 in self.axes),
        )

    # ---- checks

    def _finite(self, name: str, value: Tensor | np.ndarray) -> Tensor:
        """Converts to float64 on the CPU and names the rows that are not finite."""
        if not isinstance(value, Tensor):
            value = np.asarray(value)
            if value.dtype.kind not in "fiub":
                msg = f"{type(self).__name__}: {name} must hold real numbers, given {value.dtype}"
                raise TypeError(msg)
            value = torch.from_numpy(value.astype(np.float64))
        if value.is_complex():
            msg = f"{type(self).__name__}: {name} must hold real numbers, given {value.dtype}"
            raise TypeError(msg)
        value = value.detach().to("cpu", torch.float64)
        if (bad := ~torch.isfinite(value)).any():
            rows = bad.reshape(len(value), -1).any(1).nonzero().flatten().tolist()
            msg = (
                f"{type(self).__name__}: {name} must be finite, but {len(rows)} of {len(value)} rows hold NaN or inf "
                f"(first: {', '.join(map(str, rows[:5]))}): leave them out of both X and y"
            )
            raise ValueError(msg)
        return value

    def _features(self, X: Tensor | np.ndarray) -> Tensor:
        X = self._finite("X", X)
        if X.ndim not in self.axes or 0 in X.shape[1:]:
            shape = {2: "(N, D)", 3: "(B, N, D)", 4: "(B, D, H, W)"}[max(self.axes)]
            hint = "; for one feature use X[:, None]" if max(self.axes) == 2 else ""
            msg = f"{type(self).__name__}: X must be {shape}, given shape {tuple(X.shape)}{hint}"
            raise ValueError(msg)
        return X

    def _pair(self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
        """Checks what is fitted: features, and numbers `(N,)` or `(N, K)`, or the number of each object's class."""
        X = self._features(X)
        if self.kind == "classifier":
            labels = np.asarray(y.cpu() if isinstance(y, Tensor) else y)
            self._check_labels(labels)
            self.classes_, index = np.unique(labels, return_inverse=True)
            y = torch.from_numpy(index)
            if len(self.classes_) < 2:
                msg = f"{type(self).__name__}: wanted at least two classes, given {len(self.classes_)} class"
                raise ValueError(msg)
        elif self.kind == "regressor":
            y = self._finite("y", y)
            if y.ndim not in {1, 2} or 0 in y.shape[1:]:
                msg = f"{type(self).__name__}: y must be (N,) or (N, K), given shape {tuple(y.shape)}"
                raise ValueError(msg)
        else:
            msg = f"{type(self).__name__}: kind must be 'regressor' or 'classifier', given {self.kind!r}"
            raise ValueError(msg)
        if len(X) != len(y) or len(X) == 0:
            given = f"{len(X)} and {len(y)}"
            msg = f"{type(self).__name__}: X and y must have the same number of objects, at least one, given {given}"
            raise ValueError(msg)
        self.n_features_in_ = X.shape[1] if self.axes == (4,) else X.shape[-1]
        return X, y

    def _check_labels(self, labels: np.ndarray) -> None:
        if labels.ndim != 1:
            msg = f"{type(self).__name__}: y must be (N,), one class each, given shape {labels.shape}"
            raise ValueError(msg)
        if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == np.floor(labels))).all():
            rows = np.flatnonzero(~(labels == np.floor(labels)) | ~np.isfinite(labels))[:5].tolist()
            msg = f"{type(self).__name__}: Unknown label type: y must hold classes; rows {rows} hold other numbers"
            raise ValueError(msg)

    def _known(self, X: Tensor | np.ndarray) -> Tensor:
        """Checks features that something is predicted from."""
        if not self.__sklearn_is_fitted__():
            from sklearn.exceptions import NotFittedError

            msg = f"{type(self).__name__}: not fitted yet; call fit(X, y) before predict or score"
            raise NotFittedError(msg)
        features, wanted = self._features(X), self.n_features_in_
        if (given := features.shape[1] if self.axes == (4,) else features.shape[-1]) != wanted:
            msg = f"X has {given} features, but {type(self).__name__} is expecting {wanted} features as input"
            raise ValueError(msg)
        return features

    @staticmethod
    def _like(prediction: Tensor, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Returns a prediction as what the features were given as."""
        return prediction.to(X.device) if isinstance(X, Tensor) else prediction.numpy()

    def _named(self, index: Tensor, X: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Returns the classes of these numbers; a tensor if a tensor was given and the classes are numbers."""
        labels = self.classes_[index.cpu().numpy()]
        return (
            torch.as_tensor(labels, device=X.device)
            if isinstance(X, Tensor) and labels.dtype.kind in "iufb"
            else labels
        )

    # ---- a file

    def save(self, path: str | Path) -> Path:
        """Writes what was fitted to one safetensors file, all of it or nothing.

        Raises:
            ValueError: if nothing was fitted.
        """
        from safetensors.torch import save_file

        if not self.__sklearn_is_fitted__():
            msg = f"{type(self).__name__}: not fitted yet; there is nothing to save"
            raise ValueError(msg)
        tensors, plain = {}, {}
        for name, value in vars(self).items():
            if not name.endswith("_"):
                continue
            if name == "network_":
                tensors |= {f"network_.{key}": part.detach().contiguous() for key, part in value.items()}
            elif isinstance(value, np.ndarray | np.floating) and np.asarray(value).dtype.kind in "fiub":
                tensors[name] = torch.from_numpy(np.array(value))
            else:
                plain[name] = value.tolist() if isinstance(value, np.ndarray) else value
        facts = {"class": type(self).__name__, "params": self.get_params(), "plain": plain}
        path = Path(path)
        with whole(path) as temporary:
            save_file(tensors, temporary, metadata={_KEY: json.dumps(facts)})
        return path

    @classmethod
    def load(cls: type[Self], path: str | Path) -> Self:
        """Reads what `save` of the same class wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: for a file of something else.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            msg = f"no such file: {path}"
            raise FileNotFoundError(msg)
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {}).get(_KEY, "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            msg = f"{path}: wanted a probe in a safetensors file ({error})"
            raise ValueError(msg) from error
        if facts.get("class") != cls.__name__:
            msg = f"{path}: wanted a {cls.__name__}, given {facts.get('class') or 'no probe'}"
            raise ValueError(msg)
        probe = cls(**facts["params"])
        for name, value in facts["plain"].items():
            setattr(probe, name, np.array(value) if isinstance(value, list) else value)
        network = {k.removeprefix("network_."): v for k, v in tensors.items() if k.startswith("network_.")}
        for name, value in tensors.items():
            if not name.startswith("network_."):
                setattr(probe, name, value.numpy()[()])
        if network:
            probe.network_ = network
        return probe
