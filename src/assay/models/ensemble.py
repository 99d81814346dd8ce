"""Several models as one: their logits or their probabilities are averaged."""

from __future__ import annotations

import ast
from typing import Any, final

import torch
from torch import Tensor, nn

from assay.errors import AccessError, ModelError, SettingError
from assay.expression import Expression
from assay.oracle import Access, granted_access

_COMBINE = ("logits", "probabilities")


@final
class Ensemble(nn.Module):
    r"""Several models that answer together.

    $$z = \sum_k w_k z_k \quad\text{("logits")}, \qquad z = \log \sum_k w_k \operatorname{softmax}(z_k)
      \quad\text{("probabilities")}$$

    It grants what the least of its members grants, scores or gradients.

    Args:
        models: the members, which return logits for the same classes.
        combine: what is averaged: "logits" or "probabilities".
        weights: one positive number for each member, which are scaled to a sum of 1; the same for all when None.

    Shapes:
        (b, *shape) -> (b, classes)

    Raises:
        SettingError: there is no member, `combine` is neither, or the weights do not fit.
        AccessError: a member gives labels only.
        ModelError: on a call, members return scores of different shapes.

    Deviations:
        The paper also averages losses. For cross-entropy that is a loss of all outputs, not one of a single output; the
        paper finds averaged logits to be the best of the three.

    References:
        Dong, Liao, Pang, Su, Zhu, Hu, Li, "Boosting adversarial attacks with momentum", CVPR 2018,
        https://arxiv.org/abs/1710.06081

    Example:
        >>> model = Ensemble(nn.Identity(), nn.Identity(), weights=(1, 3))
        >>> model(torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2.]])
    """

    weights: Tensor

    def __init__(self, *models: Any, combine: str = "logits", weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        if not models:
            raise SettingError("an Ensemble needs members: Ensemble('fashion-cnn', 'fashion-cnn-pgd').")
        if combine not in _COMBINE:
            raise SettingError(f"combine of Ensemble is 'logits' or 'probabilities'; got {combine!r}.")
        for model in models:
            if not isinstance(model, nn.Module):
                raise SettingError(f"members of an Ensemble are modules; got a {type(model).__name__}.")
        self.access = Access(min(granted_access(model) for model in models))
        if self.access is Access.LABELS:
            raise AccessError("members of an Ensemble need scores, and one of them gives labels only.")
        self.models, self.combine = nn.ModuleList(models), combine
        self.register_buffer("weights", _weights(weights, len(models)), persistent=False)
        self.file_digest = f"Ensemble({combine}, {self.weights.tolist()})"
        self.training = any(model.training for model in models)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of all together."""
        outputs = [model(x) for model in self.models]
        for output in outputs:
            if not isinstance(output, Tensor) or output.ndim != 2 or output.shape != outputs[0].shape:
                shapes = ", ".join(str(tuple(getattr(each, "shape", ()))) for each in outputs)
                raise ModelError(f"members of an Ensemble return logits of one shape (b, classes); these: {shapes}.")
        stacked = torch.stack(outputs)
        weights = self.weights.to(stacked)[:, None, None]
        if self.combine == "logits":
            return (weights * stacked).sum(dim=0)
        return (stacked.log_softmax(dim=2) + weights.log()).logsumexp(dim=0)


def _weights(given: tuple[float, ...] | None, count: int) -> Tensor:
    values = (1.0,) * count if given is None else tuple(given)
    fine = all(isinstance(value, (int, float)) and 0 < value < float("inf") for value in values)
    if len(values) != count or not fine:
        raise SettingError(f"weights of Ensemble are {count} positive numbers, one for each member; got {given!r}.")
    found = torch.tensor(values, dtype=torch.float64)
    return found / found.sum()


def is_ensemble(spec: str) -> bool:
    """Whether a MODEL is written as a call of it, such as ``Ensemble('a', 'b')``."""
    return spec.partition("(")[0].strip() == "Ensemble" and spec.rstrip().endswith(")")


@final
class EnsembleSpec(Expression):
    """``Ensemble('a', 'b', combine='logits')`` in parts: the members' MODELs, and the settings.

    Args:
        text: what the user wrote.

    Raises:
        GrammarError: it cannot be read.

    Example:
        >>> EnsembleSpec("Ensemble('a', TopK('b', 3), combine='probabilities')").parts()
        (['a', "TopK('b', 3)"], {'combine': 'probabilities'})
    """

    def parts(self) -> tuple[list[str], dict[str, Any]]:
        """The MODEL of each member, and the settings by name."""
        found: tuple[list[str], dict[str, Any]] = self.visit(self.tree)
        return found

    def call(self, node: ast.Call, depth: int) -> Any:
        """The ensemble itself; a member that is a call stays a text."""
        if depth:
            return ast.unparse(node)
        members = [self.visit(argument, depth + 1) for argument in node.args]
        for member, place in zip(members, node.args, strict=True):
            if not isinstance(member, str):
                raise self.error("a member is a MODEL in quotes, or a view of one", place)
        settings = {}
        for word in node.keywords:
            if word.arg not in ("combine", "weights"):
                raise self.error("Ensemble takes MODELs in quotes, combine and weights", word)
            settings[word.arg] = self.visit(word.value, depth + 1)
        return members, settings
