"""The goal of attacks on explanations: another explanation, while the decision stays."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from assay.attacks.base import evaluating
from assay.attribution.base import Attribution, Explanation, draws, heat
from assay.attribution.changes import Change, TopK
from assay.attribution.gradients import Gradient
from assay.attribution.surrogate import softplus, twice
from assay.errors import AccessError, InputError, LossError, SettingError
from assay.goals import Goal, Look, Passes
from assay.losses import others

_BACK_TWICE = 2  # a second derivative goes back through the pass that went back, and through the one that went forward


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Explained(Goal):
    r"""Change the explanation of each sample and keep its decision; the largest change is looked for.

    Judged are the logits and the map of the network itself. The loss is that of the change, of a smooth surrogate of
    the network, less $w \, [m - (z_c - \max_{i \ne c} z_i)]_+$: it turns back where the decision comes near to another.

    `Explained.of(model, x, ...)` makes the goal for a batch.

    Args:
        classes: the decisions to keep, which are also what is explained, `(b,)` int64.
        before: maps at the clean inputs, `(b, h, w)` or `(b, d)`.
        index: the samples' own numbers, which key the draws of their explanations, `(b,)` int64.
        attribution: how decisions are explained.
        change: what shall become of the explanation.
        target: the maps that it leads to, for a change that has some.
        beta: of the softplus in the place of ReLU that gradients are taken of; None takes them of the model itself.
        margin: m, in logits.
        keep: the weight w.
        least: the smallest amount of change that counts as success; more than nothing when 0.
        seed: key of the draws.

    Raises:
        InputError: shapes do not fit together, or a target is missing.
        SettingError: a setting is out of range.

    Deviations:
        Ghorbani et al. discard steps that change the decision; here the loss leads back as well. Dombrowski et al. hold
        the whole output near to what it was, here it is the decision that stays.

    References:
        Ghorbani, Abid, Zou, "Interpretation of neural networks is fragile", AAAI 2019,
        https://arxiv.org/abs/1710.10547
        Dombrowski, Alber, Anders, Ackermann, Mueller, Kessel, "Explanations can be manipulated and geometry is to
        blame", NeurIPS 2019, https://arxiv.org/abs/1906.07983

    Example:
        >>> import assay
        >>> model, x = assay.load_model("digits-mlp"), assay.load_data("digits", limit=2).x
        >>> goal = Explained.of(model, x, change=TopK(k=8))
        >>> result = assay.attacks.PGD(threat=assay.Linf(0.1), steps=20)(model, x, goal)
        >>> bool((result.prediction == goal.classes).all()), bool((result.worth[result.success] > 0).all())
        (True, True)
    """

    classes: Tensor
    before: Tensor
    index: Tensor
    attribution: Attribution = field(default_factory=Gradient)
    change: Change = field(default_factory=TopK)
    target: Tensor | None = None
    beta: float | None = 50.0
    margin: float = 0.1
    keep: float = 10.0
    least: float = 0.0
    seed: int = 0

    graded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("margin", "keep", "least"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SettingError(f"{name} must be finite and not negative; got {getattr(self, name)}.")
        if self.beta is not None and not 0 < self.beta < float("inf"):
            raise SettingError(f"beta must be positive and finite, or None; got {self.beta}.")
        if self.change.towards and (self.target is None or self.target.shape != self.before.shape):
            found = None if self.target is None else tuple(self.target.shape)
            raise InputError(
                f"{self.change!r} leads to a map: target must have the shape {tuple(self.before.shape)}; got {found}."
            )
        if not len(self.classes) == len(self.before) == len(self.index):
            raise InputError(
                f"there are {len(self.classes)} classes, {len(self.before)} maps and {len(self.index)} numbers of "
                "samples; they must be as many."
            )

    @classmethod
    def of(
        cls,
        model: Any,
        x: Tensor,
        classes: Tensor | None = None,
        *,
        index: Tensor | None = None,
        attribution: Attribution | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Explained:
        """The goal for a batch of clean inputs, whose decisions and maps are looked up.

        Args:
            model: a module or callable that returns logits.
            x: clean inputs, `(b, *shape)`.
            classes: the decisions to keep; those of the model when None.
            index: the samples' own numbers; their place in this batch when None.
            attribution: how decisions are explained; by their gradient when None.
            seed: key of the draws.
            settings: the further ones of this class.

        Raises:
            AssayError: the named error of whatever cannot be used.
        """
        own = Gradient() if attribution is None else attribution
        numbers = torch.arange(len(x), device=x.device) if index is None else index.to(x.device)
        if classes is None:
            with evaluating(model), torch.no_grad():
                classes = model(x).argmax(dim=1)
        before = heat(own(model, x, classes, seed=seed, index=numbers))
        return cls(classes=classes.to(x.device), before=before, index=numbers, attribution=own, seed=seed, **settings)

    @property
    def look(self) -> Look:  # type: ignore[override]
        """Passes of an explanation, and of its gradient."""
        once = self.attribution.passes
        climbed = Passes(once.forwards, once.backwards * (1 + _BACK_TWICE))
        return Look(judged=once, climbed=climbed, proxy=self.beta is not None)

    def __len__(self) -> int:
        return len(self.classes)

    def at(self, rows: Tensor) -> Self:
        """The goal of a part of the batch."""
        return self._each(lambda whole: whole[rows])

    def to(self, device: torch.device) -> Self:
        """The same goal on another device."""
        return self._each(lambda whole: whole.to(device))

    def _each(self, change: Any) -> Self:
        tensors = {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **{name: change(value) for name, value in tensors.items()})

    def seen(self, model: Any, x: Tensor) -> Explanation:
        """Logits and maps of the model itself."""
        found = self.attribution.explain(model, x, self.classes, draws(self.seed, self.index, x))
        return Explanation(found.logits.detach(), heat(found.map).detach())

    def followed(self, model: Any, x: Tensor) -> Explanation:
        """Logits and maps of its surrogate, with the way back to x."""
        rng = draws(self.seed, self.index, x)
        smooth = nullcontext() if self.beta is None else softplus(model, self.beta)
        with smooth, twice():
            found = self.attribution.explain(model, x, self.classes, rng, graph=True)
        return Explanation(found.logits, heat(found.map))

    def loss(self, output: Any) -> Tensor:
        """What grows with the change, less what a decision in danger costs."""
        seen = _explanation(output)
        logits = seen.logits.to(seen.map)
        lead = logits.gather(1, self.classes[:, None]).squeeze(1) - others(logits, self.classes)
        return self.change.loss(seen.map, self.before, self.target) - self.keep * F.relu(self.margin - lead)

    def worth(self, output: Any) -> Tensor:
        """The amount of change."""
        return self.change.amount(_explanation(output).map, self.before, self.target)

    def reached(self, output: Any) -> Tensor:
        """Where the decision is kept and the explanation changed."""
        amount = self.worth(output)
        changed = amount >= self.least if self.least else amount > 0
        return changed & (self.labels(output) == self.classes)

    def labels(self, output: Any) -> Tensor:
        """Decisions."""
        return _explanation(output).logits.argmax(dim=1)

    def reached_labels(self, labels: Tensor) -> Tensor:
        """Refused: decisions alone tell nothing of explanations."""
        raise AccessError("a model that grants labels alone has no explanations to change.")


def _explanation(output: Any) -> Explanation:
    if not isinstance(output, Explanation):
        raise LossError(f"an explanation was expected; found {type(output).__name__}.")
    return output
