"""Transfer: an attack on other models, whose moves are then tried on this one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from assay import registry
from assay.attacks.base import Attack, evaluating
from assay.attacks.decisions import wins
from assay.errors import AccessError, ModelError, SettingError
from assay.goals import Goal, Targeted, Untargeted
from assay.oracle import Access, Oracle, granted_access
from assay.rng import Keyed
from assay.threats import Threat
from assay.threats.additive import column


@final
@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Moves found on surrogates, models that the attacker has, and tried on the model under attack.

    `theta_j = attack(surrogate_j, x)`, and the sample is won by the first theta_j that wins it on the model itself.
    This costs one decision for each surrogate, all that is asked of the model: neither its scores nor its gradients. On
    the surrogates the inner attack never stops early, since a move that just passes one model's boundary passes no
    other. Passes of surrogates are no questions to the model, and are not counted in the result.

    Args:
        surrogate: the model to attack: a MODEL as `assay.load_model` reads it ("fashion-cnn", the folder of
            a substitute, "Ensemble('a', 'b')"), loaded once for this object when it is first needed, or a module.
            Several in a tuple are attacked one after the other.
        attack: the inner attack; its `threat` is the threat. Settings of `PGD` (`momentum`, `diverse`, `neighbours`,
            `kernel_radius`) make its moves less particular to the surrogate.

    Shapes:
        x of any shape that all models take.

    Raises:
        SettingError: there is no surrogate, or something that is no model.
        ModelError: on a call, a surrogate cannot be read, or does not take these inputs or know these classes.
        AccessError: on a call, a surrogate grants less than the inner attack needs.

    Deviations:
        The paper also sorts attacks by whether surrogates saw the model's own training data; what a surrogate is, is
        left to whoever names it.

    References:
        Papernot, McDaniel, Goodfellow, "Transferability in machine learning: from phenomena to black-box attacks using
        adversarial samples", 2016, https://arxiv.org/abs/1605.07277
        Liu, Chen, Liu, Song, "Delving into transferable adversarial examples and black-box attacks", ICLR 2017,
        https://arxiv.org/abs/1611.02770 (several surrogates).

    Example:
        >>> import torch, assay
        >>> inner = assay.attacks.MIFGSM(threat=assay.Linf(0.3))
        >>> attack = Transfer(surrogate="digits-mlp", attack=inner)
        >>> target = assay.load_model("LabelsOnly('digits-mlp')")
        >>> result = attack(target, torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 1]))
        >>> int(result.forwards.max()) <= 2
        True
    """

    surrogate: str | nn.Module | tuple[str | nn.Module, ...]
    attack: Attack

    access: ClassVar[Access] = Access.LABELS

    def __post_init__(self) -> None:
        if isinstance(self.surrogate, list):
            object.__setattr__(self, "surrogate", tuple(self.surrogate))
        if not self._surrogates:
            raise SettingError("Transfer needs a surrogate, such as 'fashion-cnn' or the folder of a substitute.")
        for each in self._surrogates:
            if not callable(each) and (not isinstance(each, str) or not each.strip()):
                raise SettingError(f"a surrogate is a MODEL in quotes, or a module; got {each!r}.")
        if not isinstance(self.attack, Attack):
            raise SettingError(f"attack is the attack on the surrogate, such as MIFGSM(...); got {self.attack!r}.")

    @property
    def threat(self) -> Threat:  # type: ignore[override]
        """The inner attack's threat."""
        return self.attack.threat

    @property
    def _surrogates(self) -> tuple[str | nn.Module, ...]:
        return self.surrogate if isinstance(self.surrogate, tuple) else (self.surrogate,)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The inner attack on each surrogate, and one question about what it found."""
        best, won = self.threat.identity(x), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for number, each in enumerate(self._surrogates):
            if oracle.finished:
                break
            moves = self._attacked(each, x, goal, rng)
            reached = wins(oracle, moves)
            better = reached & ~won if number else torch.ones_like(won)
            best, won = torch.where(column(better, moves), moves, best), won | reached
        return best

    def _attacked(self, surrogate: str | nn.Module, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The inner attack's moves on one surrogate."""
        model = self._loaded(surrogate, x) if isinstance(surrogate, str) else surrogate
        name = repr(surrogate) if isinstance(surrogate, str) else type(surrogate).__name__
        if (granted := granted_access(model)) < self.attack.access:
            needed = f"{type(self.attack).__name__} needs {self.attack.access.name.lower()}"
            raise AccessError(
                f"{needed}, and the surrogate {name} grants {granted.name.lower()}. Take another, such as a substitute "
                "trained on its answers."
            )
        aim = self.attack.aim(goal)
        with evaluating(model):
            _check(model, name, x, goal)
            oracle = Oracle(
                model,
                x,
                aim,
                self.threat,
                access=self.attack.access,
                referee=False,
                packed=True,
                seed=rng.seed,  # for surrogates that draw random numbers
                index=rng.index,
            )
            return self.attack.run(oracle, x, aim, rng).detach()

    def _loaded(self, spec: str, x: Tensor) -> nn.Module:
        """The model of this name, where the inputs are and in their type."""
        key = spec, str(x.device), x.dtype
        if key not in self._models:
            model: nn.Module = registry.reader("model")(spec, device=x.device)
            self._models[key] = model.to(x.dtype)
        return self._models[key]

    @cached_property
    def _models(self) -> dict[tuple[str, str, torch.dtype], nn.Module]:
        return {}


def _check(model: Any, name: str, x: Tensor, goal: Goal) -> None:
    """Hold that a surrogate takes these inputs and knows these classes.

    Raises:
        ModelError: it does not.
    """
    try:
        output = model(x[:1])
    except (RuntimeError, ValueError) as error:
        shape = tuple(x.shape[1:])
        raise ModelError(f"the surrogate {name} does not take inputs of shape {shape}: {error}") from error
    if isinstance(goal, Untargeted | Targeted) and isinstance(output, Tensor) and output.ndim == 2:
        most = int(goal.classes.max())
        if most >= output.shape[1]:
            raise ModelError(
                f"the surrogate {name} knows {output.shape[1]} classes, and labels run to {most}: take one that was "
                "trained on the same classes."
            )
