"""The work on one part of the samples: explain, attack the explanation, move at random, compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from assay.attacks import Attack
from assay.attacks.base import evaluating
from assay.attribution import Attribution, Change, Explained, TopK, heat
from assay.attribution.base import draws
from assay.attribution.similarity import inside
from assay.attributional.comparison import compared
from assay.data import Data
from assay.errors import InputError
from assay.inputs import check_inputs
from assay.rng import Keyed, derive
from assay.threats import Threat

EXAMPLES = 12  # kept of each part for the gallery
EXAMPLES_WITHIN = 64  # samples whose parts keep examples


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """What is measured of every sample.

    Args:
        model: returns logits.
        data: the samples.
        attack: the search, with its threat.
        attribution: how decisions are explained.
        change: what the search shall do to the explanation.
        beta: of the surrogate that gradients are taken of; None for the model itself.
        k: of the top-k intersection; that of the change where it has one, else one place in eight.
        masks: where maps should lie, `(n, h, w)` for all samples; None without.
        seed: key of every draw.
        device: where the model is.
        dtype: of its inputs; None leaves them as they are.
    """

    model: Any
    data: Data
    attack: Attack
    attribution: Attribution
    change: Change
    beta: float | None
    k: int | None
    masks: Tensor | None
    seed: int
    device: torch.device
    dtype: torch.dtype | None

    def part(self, start: int, stop: int) -> dict[str, Tensor]:
        """The columns of samples start to stop: one row for each that is classified rightly, and some examples.

        Raises:
            InputError: inputs, labels or masks cannot be used.
            ModelError: the model gives no logits or no gradients.
        """
        x, y, index = self.data.batch(start, stop)
        check_inputs(x, self.attack.threat.bounds)
        x, y, index = x.to(self.device, self.dtype or x.dtype), y.to(self.device), index.to(self.device)
        with evaluating(self.model), torch.no_grad():
            right = (self.model(x).argmax(dim=1) == y).nonzero().squeeze(1)
        columns: dict[str, Tensor] = {"asked": torch.tensor([len(x)])}
        if len(right) == 0:
            return columns | {"index": index[right]}
        target = self._targets(start, stop)[right] if self.change.towards else None
        masks = None if self.masks is None else self.masks[start:stop].to(self.device)[right]
        return columns | self._measured(
            x[right], y[right], index[right], target, masks, example=start < EXAMPLES_WITHIN
        )

    def _measured(
        self, x: Tensor, y: Tensor, index: Tensor, target: Tensor | None, masks: Tensor | None, *, example: bool
    ) -> dict[str, Tensor]:
        goal = Explained.of(
            self.model,
            x,
            y,
            index=index,
            attribution=self.attribution,
            seed=self.seed,
            change=self.change,
            target=target,
            beta=self.beta,
        )
        result = self.attack(self.model, x, goal, seed=derive(self.seed, "search"), index=index)
        random = moved_at_random(self.attack.threat, x, derive(self.seed, "random"), index)
        before, found, other = (self._maps(each, y, index) for each in (x, result.x_adv, random))
        if masks is not None and masks.shape != before.shape:
            raise InputError(f"maps have the shape {tuple(before.shape[1:])}, masks {tuple(masks.shape[1:])}.")
        with evaluating(self.model), torch.no_grad():
            kept = [self.model(each).argmax(dim=1) == y for each in (result.x_adv, random)]
        k = self.change.k if self.k is None and isinstance(self.change, TopK) else self.k
        columns = {"index": index, "label": y, "success": result.success, "distance": result.distance}
        columns |= {"forwards": result.forwards, "backwards": result.backwards, "found_kept": kept[0]}
        columns |= {f"found_{name}": value for name, value in compared(before, found, k, masks).items()}
        columns |= {"random_kept": kept[1]}
        columns |= {f"random_{name}": value for name, value in compared(before, other, k, masks).items()}
        if masks is not None:
            columns |= {"before_inside": inside(before, masks)}
        if example:
            shown = {"x": x, "adv": result.x_adv, "before": before, "after": found, "random": other}
            columns |= {f"example_{name}": value[:EXAMPLES].float() for name, value in shown.items()}
        return columns

    def _maps(self, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """Maps by other draws than those that the search saw."""
        return heat(self.attribution(self.model, x, y, seed=derive(self.seed, "measure"), index=index))

    def _targets(self, start: int, stop: int) -> Tensor:
        """The maps that a manipulation leads to: of each sample that of the next, of the last that of the first."""
        end = min(stop, len(self.data))
        places = torch.arange(start + 1, end + 1) % len(self.data)
        x, _, index = self.data.gather(places)
        x = x.to(self.device, self.dtype or x.dtype)
        return heat(self.attribution(self.model, x, seed=self.seed, index=index.to(self.device)))


def moved_at_random(threat: Threat, x: Tensor, seed: int, index: Tensor) -> Tensor:
    """Inputs moved as far as the threat allows, each in a random direction (under Linf by eps with random signs)."""
    rng: Keyed = draws(seed, index, x)
    theta = threat.identity(x)
    direction = rng.normal(*theta.shape[1:]).to(theta)
    with torch.no_grad():
        return threat.apply(x, threat.project(x, threat.ascend(x, theta, direction, threat.budget(x))))
