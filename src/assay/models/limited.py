"""Wrappers that show less of a model than it grants: the highest scores, rounded ones, or the decision alone."""

from __future__ import annotations

import ast
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from assay.errors import AccessError, ModelError, SettingError
from assay.expression import Expression
from assay.models.target import Target, decisions
from assay.oracle import Access, granted_access


class Limited(Target):
    """A model behind a narrower view.

    Args:
        model: any model; it answers with scores unless the view needs less.
        access: what the view grants.
        settings: what tells this view from others of the same model.
    """

    def __init__(self, model: Any, access: Access, settings: str = "") -> None:
        super().__init__(access)
        if granted_access(model) < access:
            raise AccessError(f"{type(self).__name__} needs scores, and the model gives labels only.")
        self.model = model
        self.file_digest = f"{type(self).__name__}({settings})"
        self.training = isinstance(model, nn.Module) and model.training

    def logarithms(self, x: Tensor) -> Tensor:
        """Logarithms of the model's probabilities."""
        with torch.no_grad():
            output = self.model(x)
        if not isinstance(output, Tensor) or output.ndim != 2:
            raise ModelError(f"{type(self).__name__} needs a model that returns a (batch, classes) tensor of scores.")
        return output.log_softmax(dim=1)


@final
class LabelsOnly(Limited):
    """A model of which only the decision is seen.

    Args:
        model: any model.

    Shapes:
        (b, *shape) -> (b,) int64

    Example:
        >>> LabelsOnly(nn.Linear(2, 3))(torch.zeros(4, 2)).shape
        torch.Size([4])
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model, Access.LABELS)

    def answer(self, x: Tensor) -> Tensor:
        """The model's decisions."""
        if isinstance(self.model, Target):
            return self.model.labels(x)
        with torch.no_grad():
            return decisions(self.model(x))


@final
class ScoresOnly(Limited):
    """A model whose scores are seen and whose gradients are not.

    Args:
        model: one that returns logits.

    Shapes:
        (b, *shape) -> (b, classes)

    Raises:
        AccessError: the model gives labels only.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model, Access.SCORES)

    def answer(self, x: Tensor) -> Tensor:
        """The model's scores."""
        with torch.no_grad():
            found: Tensor = self.model(x)
        return found


@final
class TopK(Limited):
    r"""A model of which the k highest probabilities are seen.

    $$s_i = \log p_i \text{ for the k highest}, \qquad
      s_i = \log \frac{1 - \sum_{j \text{ among them}} p_j}{n - k} \text{ for the others}$$

    What is left of 1 is spread evenly over the classes that are not seen, as whoever sees k probabilities would. The
    decision stays what it is.

    Args:
        model: one that returns logits.
        k: how many are seen; all where there are no more.

    Shapes:
        (b, *shape) -> (b, classes)

    Raises:
        SettingError: k is below 1.
        AccessError: the model gives labels only.

    Example:
        >>> TopK(nn.Identity(), 1)(torch.tensor([[0.5, 0.3, 0.2]]).log()).exp()
        tensor([[0.5000, 0.2500, 0.2500]])
    """

    def __init__(self, model: Any, k: int) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise SettingError(f"k is how many scores are seen, a whole number from 1 on; got {k!r}.")
        super().__init__(model, Access.SCORES, str(k))
        self.k = k

    def answer(self, x: Tensor) -> Tensor:
        """Logarithms of the probabilities that are seen, and of what is left for the others."""
        found = self.logarithms(x)
        hidden = found.shape[1] - self.k
        if hidden <= 0:
            return found
        order = found.argsort(dim=1, descending=True, stable=True)
        rest = order[:, self.k :]
        left = found.gather(1, rest).logsumexp(dim=1, keepdim=True) - torch.tensor(float(hidden)).log().to(found)
        return _decided(found.scatter(1, rest, left.expand(-1, hidden)), order[:, 0])


@final
class Rounded(Limited):
    r"""A model whose probabilities are seen with so many decimals.

    $$s_i = \log \max(\operatorname{round}(p_i, d), 10^{-d} / 10)$$

    The decision stays what it is: where rounding makes two probabilities equal, the model's own class is put first.

    Args:
        model: one that returns logits.
        decimals: of the probabilities.

    Shapes:
        (b, *shape) -> (b, classes)

    Raises:
        SettingError: decimals is below 1 or above 15.
        AccessError: the model gives labels only.

    Example:
        >>> Rounded(nn.Identity(), 1)(torch.tensor([[0.61, 0.33, 0.06]]).log()).exp()
        tensor([[0.6000, 0.3000, 0.1000]])
    """

    def __init__(self, model: Any, decimals: int) -> None:
        if isinstance(decimals, bool) or not isinstance(decimals, int) or not 1 <= decimals <= 15:
            raise SettingError(f"decimals is a whole number from 1 to 15; got {decimals!r}.")
        super().__init__(model, Access.SCORES, str(decimals))
        self.decimals = decimals

    def answer(self, x: Tensor) -> Tensor:
        """Logarithms of the rounded probabilities."""
        found = self.logarithms(x)
        shown = found.double().exp().round(decimals=self.decimals)
        return _decided(shown.clamp_min(10.0 ** -(self.decimals + 1)).log().to(found), found.argmax(dim=1))


def _decided(scores: Tensor, winner: Tensor) -> Tensor:
    """The scores with the winner's above all others, by the least that the type can hold where it was not."""
    top = scores.amax(dim=1)
    tied = (scores == top[:, None]).sum(dim=1) > 1
    above = torch.where(tied, torch.nextafter(top, torch.full_like(top, torch.inf)), top)
    return scores.scatter(1, winner[:, None], above[:, None])


_READ_ALONE = ("Ensemble", "Defended")  # MODELs that are calls and no views
LIMITS: dict[str, type[Limited]] = {
    "LabelsOnly": LabelsOnly,
    "ScoresOnly": ScoresOnly,
    "TopK": TopK,
    "Rounded": Rounded,
}


def is_limited(spec: str) -> bool:
    """Whether a MODEL is written as a call of one of these, such as ``TopK('fashion-cnn', 3)``."""
    return spec.partition("(")[0].strip() in LIMITS and spec.rstrip().endswith(")")


@final
class LimitedSpec(Expression):
    """``TopK('fashion-cnn', 3)`` in parts: the innermost MODEL, and the views in order.

    Args:
        text: what the user wrote.

    Raises:
        GrammarError: it cannot be read.

    Example:
        >>> LimitedSpec("LabelsOnly(Rounded('fashion-cnn', 2))").parts()
        ('fashion-cnn', [('Rounded', (2,)), ('LabelsOnly', ())])
    """

    settings: ClassVar = {"LabelsOnly": (), "ScoresOnly": (), "TopK": ("k",), "Rounded": ("decimals",)}

    def parts(self) -> tuple[str, list[tuple[str, tuple[Any, ...]]]]:
        """The MODEL inside, and each view with its settings, the innermost first."""
        found: tuple[str, list[tuple[str, tuple[Any, ...]]]] = self.visit(self.tree)
        return found

    def call(self, node: ast.Call, depth: int) -> Any:
        """A view of a model or of another view."""
        if isinstance(node.func, ast.Name) and node.func.id in _READ_ALONE:
            return ast.unparse(node)  # a MODEL, which is read on its own
        if not isinstance(node.func, ast.Name) or node.func.id not in self.settings:
            raise self.error(f"a model is wrapped by {', '.join(self.settings)}", node.func)
        names = self.settings[node.func.id]
        given = [self.visit(argument, depth + 1) for argument in node.args]
        given += [self.visit(word.value, depth + 1) for word in node.keywords if word.arg in names]
        if len(given) != 1 + len(names) or len(given) != len(node.args) + len(node.keywords):
            raise self.error(f"{node.func.id} takes {', '.join(('a MODEL in quotes', *names))}", node)
        inner, *rest = given
        if isinstance(inner, str):
            inner = (inner, [])
        if not (isinstance(inner, tuple) and len(inner) == 2 and isinstance(inner[1], list)):
            raise self.error("the first is a MODEL in quotes, or one that is wrapped already", node.args[0])
        return inner[0], [*inner[1], (node.func.id, tuple(rest))]


def limited(model: Any, views: list[tuple[str, tuple[Any, ...]]]) -> nn.Module:
    """A model behind views.

    Raises:
        SettingError: a setting is out of range.
        AccessError: the model gives less than a view needs.
    """
    for name, settings in views:
        model = LIMITS[name](model, *settings)
    found: nn.Module = model
    return found
