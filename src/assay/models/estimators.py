"""Classifiers of scikit-learn, and whatever else has its methods, as models."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from assay.errors import ModelError
from assay.importing import optional, options
from assay.models.files import file_digest
from assay.models.target import Target, as_labels, as_scores, log_probabilities
from assay.oracle import Access


@final
class Estimator(Target):
    """A fitted classifier: scores from ``decision_function`` or ``predict_proba``, labels from ``predict``.

    Class number k is ``classes_[k]``: data labels count from 0. Inputs are flattened to rows of features. Attacks by
    scores are judged by the highest score; `LabelsOnly` of it asks ``predict``.

    Args:
        estimator: with ``predict`` and ``classes_``.
        method: one of the three; None takes the first that it has, in this order. Probabilities become their logarithm.

    Shapes:
        (b, *shape) -> (b, classes) scores in the type of x, or (b,) int64

    Raises:
        ModelError: it is no fitted classifier, lacks the method, or gives scores that are not one for each class.

    Example:
        >>> import torch
        >>> from sklearn.linear_model import LogisticRegression
        >>> fitted = LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [0, 1])
        >>> Estimator(fitted)(torch.tensor([[0.9, 0.8], [0.1, 0.1]])).argmax(dim=1)
        tensor([1, 0])
    """

    METHODS: ClassVar = ("decision_function", "predict_proba", "predict")

    def __init__(self, estimator: Any, *, method: str | None = None) -> None:
        if not is_estimator(estimator):
            raise ModelError(
                f"{type(estimator).__name__} is no fitted classifier: it needs predict, and classes_, which fit leaves."
            )
        has = [name for name in self.METHODS if hasattr(estimator, name)]
        if getattr(estimator, "decision_function_shape", None) == "ovo" and len(estimator.classes_) > 2:
            has.remove("decision_function")  # a column for each pair of classes
        if method is not None and method not in has:
            raise ModelError(f"{type(estimator).__name__} cannot be asked by {method!r}; it has {', '.join(has)}.")
        chosen = method or has[0]
        super().__init__(Access.LABELS if chosen == "predict" else Access.SCORES)
        self.estimator, self.method = estimator, chosen
        self.file_digest = hashlib.sha256(chosen.encode() + _pickled(estimator)).hexdigest()

    def answer(self, x: Tensor) -> Tensor:
        """Scores, or labels where the method is ``predict``."""
        if self.method == "predict":
            return self.labels(x)
        found = torch.from_numpy(np.asarray(self._ask(self.method, x), dtype=np.float64))
        if self.method == "predict_proba":
            found = log_probabilities(found)
        elif found.ndim == 1:  # two classes: the score of the second against the first
            found = torch.stack([torch.zeros_like(found), found], dim=1)
        return as_scores(found, x, f"{type(self.estimator).__name__}.{self.method}")

    def labels(self, x: Tensor) -> Tensor:
        """What ``predict`` says, as places in ``classes_``."""
        found, classes = np.asarray(self._ask("predict", x)), np.asarray(self.estimator.classes_)
        order = classes.argsort()
        place = order[np.searchsorted(classes[order], found).clip(max=len(classes) - 1)]
        if not np.array_equal(classes[place], found):
            raise ModelError(f"{type(self.estimator).__name__}.predict gave a class that is not in classes_.")
        return as_labels(place.astype(np.int64), x, f"{type(self.estimator).__name__}.predict")

    def _ask(self, method: str, x: Tensor) -> Any:
        rows = x.flatten(1).cpu().numpy()
        try:
            return getattr(self.estimator, method)(rows)
        except ValueError as refused:
            raise ModelError(
                f"{type(self.estimator).__name__} refused inputs of shape {tuple(x.shape)}, as rows of "
                f"{rows.shape[1]} features: {refused}"
            ) from refused


def is_estimator(found: Any) -> bool:
    """Whether it has what a fitted classifier of scikit-learn has."""
    return not isinstance(found, type) and callable(getattr(found, "predict", None)) and hasattr(found, "classes_")


def read_sklearn(spec: str) -> Target:
    """Load ``sklearn:FILE?trust=yes``, an estimator that joblib or pickle wrote.

    Reading such a file can run any code in it, so that it has to be said that the file is trusted.

    Args:
        spec: the form; ``&method=predict`` chooses what is asked.

    Raises:
        MissingExtraError: joblib is not installed.
        ModelError: the file is not said to be trusted, cannot be read, or holds no fitted classifier.
    """
    name, chosen = options(spec.removeprefix("sklearn:"), ("trust", "method"), ModelError)
    path = Path(name).expanduser()
    if not path.is_file():
        raise ModelError(f"no file {path}.")
    if chosen.get("trust") != "yes":
        raise ModelError(
            f"{path} is a pickle: reading it runs whatever code is in it. If you made it or trust who did, write "
            f"'sklearn:{name}?trust=yes'. Without that trust, have the model exported to ONNX, or name a function that "
            "builds it: package.module:function."
        )
    joblib = optional("joblib", "sklearn", f"MODEL {spec!r}")
    try:
        estimator = joblib.load(path)
    except Exception as unreadable:
        raise ModelError(f"cannot read {path} with joblib: {type(unreadable).__name__}: {unreadable}") from unreadable
    model = Estimator(estimator, method=chosen.get("method"))
    model.file_digest = file_digest(path) + model.method
    return model


def _pickled(estimator: Any) -> bytes:
    """Its state, to be told apart by; of one that cannot be pickled, its settings."""
    try:
        return pickle.dumps(estimator)
    except Exception:
        return repr(estimator).encode()
