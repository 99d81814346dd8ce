"""Training against several threats at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from assay.attacks import Attack
from assay.errors import SettingError
from assay.rng import derive
from assay.threats import Threat
from assay.training.recipes.base import Batch, Recipe, Views
from assay.training.recipes.base import mode as passes_in

_MODES = ("max", "average", "random")


@final
@dataclass(frozen=True, kw_only=True)
class MultiThreat(Recipe):
    """Adversarial training with several attacks, `x'_i` from the i-th.

    - max: `CE(f(x'_j), y)` with `j = argmax_i CE(f(x'_i), y)`, for each sample its own;
    - average: the mean of `CE(f(x'_i), y)` over all i, where the inputs of all attacks are one batch;
    - random: `CE(f(x'_j), y)` with j drawn for each batch, which costs one attack.

    Robust accuracy is measured under all threats: a held-out sample counts that resists PGD-10 under each of them.

    Args:
        attacks: the searches, each with a threat of its own.
        mode: which of what they find counts.

    Raises:
        SettingError: there is no attack, or the mode is unknown.

    Deviations:
        The losses that decide about the largest one are taken in eval mode, as the attacks' own passes are.

    References:
        Tramer, Boneh, "Adversarial training and robustness for multiple perturbations", NeurIPS 2019,
        https://arxiv.org/abs/1904.13000 (max and average).
        Madaan, Shin, Hwang, "Learning to generate noise for multi-attack robustness", ICML 2021,
        https://arxiv.org/abs/2006.12135 (random).

    Example:
        >>> import assay
        >>> text = "MultiThreat(attacks=[PGD(threat=Linf(0.1)), PGD(threat=L2(1.5))], mode='random')"
        >>> len(assay.grammar.recipe(text).attacks)
        2
    """

    attacks: tuple[Attack, ...]
    mode: Literal["max", "average", "random"] = "max"

    def __post_init__(self) -> None:
        given = self.attacks
        if not isinstance(given, (tuple, list)) or not given or not all(isinstance(each, Attack) for each in given):
            raise SettingError(f"attacks are several attacks, such as [PGD(...), PGD(...)]; got {given!r}.")
        object.__setattr__(self, "attacks", tuple(given))
        if self.mode not in _MODES:
            raise SettingError(f"mode must be one of {', '.join(_MODES)}; got {self.mode!r}.")

    @property
    def against(self) -> Threat | None:
        """The threat that all attacks share; None where there are several."""
        first = self.attacks[0].threat
        return first if len(self.threats) == 1 else None

    @property
    def threats(self) -> tuple[Threat, ...]:
        """Those of the attacks, each once."""
        found: list[Threat] = []
        for attack in self.attacks:
            if attack.threat not in found:
                found.append(attack.threat)
        return tuple(found)

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The moved inputs: of the attack that counts, or of each."""
        attacks = self.attacks
        if self.mode == "random":
            attacks = (attacks[derive(batch.seed, "multi-threat") % len(attacks)],)
        found = [batch.perturb(model, attack) for attack in attacks]
        if self.mode == "max":
            found = [_hardest(model, batch, found)]
        if len(found) == 1:
            return {"x_adv": found[0]}
        return {f"x_adv_{number}": x_adv for number, x_adv in enumerate(found)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """The mean of the cross-entropies on the moved inputs."""
        parts = model(torch.cat(list(views.values()))).chunk(len(views))
        return torch.stack([batch.cross_entropy(part) for part in parts]).mean()


def _hardest(model: nn.Module, batch: Batch, found: list[Tensor]) -> Tensor:
    """For each sample the moved input of the largest loss."""
    with passes_in(model, train=False), torch.no_grad():
        losses = torch.stack([batch.cross_entropy(model(x_adv), reduction="none") for x_adv in found])
    rows = torch.arange(len(batch.x), device=batch.x.device)
    return torch.stack(found)[losses.argmax(dim=0), rows]
