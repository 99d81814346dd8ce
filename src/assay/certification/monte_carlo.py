"""Votes of noisy copies, in full batches and with keyed draws, and what they prove."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, final

import torch
from torch import Tensor

from assay.certification.binomial import fair_coin, lower_bound
from assay.errors import SettingError
from assay.goals import Untargeted
from assay.oracle import granted_access
from assay.oracle.memory import MicroBatch, out_of_memory
from assay.oracle.verdicts import check_output, decisions
from assay.rng import Keyed, derive, drawing

ABSTAINED = -1
_VALUES = 1 << 17  # input values that are looked at together, at least


@final
@dataclass(frozen=True, kw_only=True)
class Certificates:
    """What is known of the smoothed classifier at some inputs, one row each.

    Attributes:
        prediction: its class; -1 where it abstains.
        radius: within which, in L2, it stays; 0 where it abstains.
        top: votes for the class, of all draws.
        second: votes for the next.
    """

    prediction: Tensor
    radius: Tensor
    top: Tensor
    second: Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Smoothing:
    r"""The smoothed classifier `g(x) = argmax_c P(f(x + sigma n) = c)`, n standard normal, as far as votes tell.

    A class is chosen by the votes of `selection` copies; of `draws` others, `k` votes for it bound its share from below
    by the Clopper-Pearson bound $p$. Where $p > 1/2$, with confidence $1 - \alpha$ no input within

    $$R = \sigma \Phi^{-1}(p)$$

    of x in L2 is given another class by g. Otherwise it abstains.

    Args:
        sigma: standard deviation of the noise, in the unit of the inputs.
        draws: copies that the bound is computed from.
        selection: copies that choose the class.
        alpha: chance that a certificate is wrong.

    Raises:
        SettingError: a setting is out of range.

    References:
        Cohen, Rosenfeld, Kolter, "Certified adversarial robustness via randomized smoothing", ICML 2019,
        https://arxiv.org/abs/1902.02918

    Example:
        >>> first = lambda x: torch.stack([x[:, 0], -x[:, 0]], dim=1)
        >>> found = Smoothing(sigma=0.5, draws=1000).certificates(first, torch.tensor([[0.5, 0.0]]), torch.arange(1))
        >>> found.prediction, bool(0.4 < found.radius < 0.5)
        (tensor([0]), True)
    """

    sigma: float
    draws: int = 10_000
    selection: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        for name, value, least in (("draws", self.draws, 1), ("selection", self.selection, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SettingError(f"{name} has to be a whole number of at least {least}; got {value!r}.")
        if not 0 < self.sigma < float("inf"):
            raise SettingError(f"sigma has to be a positive number; got {self.sigma!r}.")
        if not 0 < self.alpha < 1:
            raise SettingError(f"alpha has to lie between 0 and 1; got {self.alpha!r}.")

    def certificates(self, model: Any, x: Tensor, index: Tensor, *, seed: int = 0) -> Certificates:
        """Classes with their radii.

        Args:
            model: the classifier that is smoothed.
            x: inputs, `(b, *shape)`.
            index: their own numbers, which key the noise.
            seed: key of all draws.

        Raises:
            ModelError: the model returns NaN, or no answer for each input.
        """
        chosen = self.votes(model, x, index, self.selection, derive(seed, "selection")).argmax(dim=1)
        votes = self.votes(model, x, index, self.draws, derive(seed, "estimation"))
        if votes.shape[1] <= int(chosen.max()):
            votes = torch.nn.functional.pad(votes, (0, int(chosen.max()) + 1 - votes.shape[1]))
        top = votes.gather(1, chosen[:, None]).squeeze(1)
        second = votes.scatter(1, chosen[:, None], -1).amax(dim=1).clamp_min(0)
        share = [lower_bound(count, self.draws, self.alpha) for count in top.tolist()]
        radius = [self.sigma * NormalDist().inv_cdf(p) if p > 0.5 else 0.0 for p in share]
        found = torch.tensor(radius, dtype=torch.float64, device=x.device)
        return Certificates(prediction=torch.where(found > 0, chosen, ABSTAINED), radius=found, top=top, second=second)

    def predictions(self, model: Any, x: Tensor, index: Tensor, *, seed: int = 0) -> Tensor:
        """Classes alone, -1 where it abstains: the two classes with most votes could be a fair coin.

        A class that is returned is another than g's with a chance of at most `alpha`.
        """
        votes = self.votes(model, x, index, self.draws, derive(seed, "prediction"))
        most = torch.nn.functional.pad(votes, (0, 1)).topk(2, dim=1)  # a model may have one class only that wins
        clear = [fair_coin(first, first + other) <= self.alpha for first, other in most.values.tolist()]
        return torch.where(torch.tensor(clear, device=x.device), most.indices[:, 0], ABSTAINED)

    def votes(self, model: Any, x: Tensor, index: Tensor, draws: int, seed: int) -> Tensor:
        """How often noisy copies are given each class, `(b, classes)` int64."""
        memory, found = MicroBatch(model, x, None), torch.zeros(len(x), 1, dtype=torch.int64, device=x.device)
        at_once = max(memory.rows, _VALUES // x.shape[1:].numel())
        done, pairs = 0, len(x) * draws
        while done < pairs:
            flat = torch.arange(done, min(done + at_once, pairs), device=x.device)
            try:
                decided = self._decided(model, x, index, flat // draws, flat % draws, seed)
            except RuntimeError as error:
                if not out_of_memory(error) or len(flat) == 1:
                    raise
                at_once = len(flat) // 2
                memory.shrink(at_once)
                continue
            classes = max(found.shape[1], int(decided.max()) + 1)
            found = torch.nn.functional.pad(found, (0, classes - found.shape[1]))
            found.view(-1).index_add_(0, flat // draws * classes + decided, torch.ones_like(decided))
            done += len(flat)
        return found

    def _decided(self, model: Any, x: Tensor, index: Tensor, each: Tensor, draw: Tensor, seed: int) -> Tensor:
        """The classes of one noisy copy of each of these inputs."""
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        rng = Keyed(seed, index.to(x.device)[each], dtype=kind, stream=draw)
        noisy = x[each] + self.sigma * rng.normal(*x.shape[1:]).to(x.dtype)
        with torch.no_grad(), drawing(rng.named("model")):
            output = model(noisy)
        check_output(output, each)
        return decisions(Untargeted(torch.zeros_like(each)), output, granted_access(model))
