"""The mean answer of a random defense over several passes, and the named defenses that are made so."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, final

import torch
from torch import Tensor

from assay.defenses.base import Defense, Model, check_count, through
from assay.defenses.noise import InputNoise, NoiseLayers
from assay.errors import ModelError, SettingError
from assay.rng import drawing, given

_COMBINE = ("probabilities", "logits", "votes")


@final
class Averaged(Defense):
    r"""A random defense that is asked several times, and answers with the mean.

    $$z = \log \frac1n \sum_k \operatorname{softmax}(z_k) \text{ ("probabilities")}, \quad
      z = \frac1n \sum_k z_k \text{ ("logits")}, \quad
      z_c = \log \frac{\#\{k: \arg\max z_k = c\} + 1/K}{n + 1} \text{ ("votes")}$$

    Votes have no derivative: their gradient is that of the mean probabilities.

    Args:
        defense: what is asked.
        passes: how often; each pass has draws of its own.
        combine: what is averaged.

    Raises:
        SettingError: a setting is out of range, or the defense draws nothing.
        ModelError: on a call, the model gives no scores.

    Example:
        >>> mean = Averaged(InputNoise(0.1), passes=4)
        >>> mean(torch.nn.Identity(), torch.zeros(2, 3)).exp().sum(dim=1).round(decimals=3)
        tensor([1., 1.])
    """

    stochastic = True

    def __init__(self, defense: Defense, passes: int = 10, combine: str = "probabilities") -> None:
        super().__init__()
        if not isinstance(defense, Defense) or not defense.stochastic:
            raise SettingError(f"Averaged takes a random defense such as RandomResizePad(); got {defense!r}.")
        if combine not in _COMBINE:
            known = ", ".join(map(repr, _COMBINE))
            raise SettingError(f"combine of Averaged is one of {known}; got {combine!r}.")
        self.defense, self.combine = defense, combine
        self.passes = check_count("Averaged", "passes", passes, 1)
        self.differentiable = defense.differentiable and combine != "votes"
        self.gradient = "surrogate" if combine == "votes" else defense.gradient
        self.rejects = defense.rejects

    def forward(self, model: Model, x: Tensor) -> Tensor:
        """The mean answer."""
        rng = given(x)
        answers = []
        for number in range(self.passes):
            with nullcontext() if rng is None else drawing(rng.named("pass", rng.draw, number)):
                answers.append(_scores(self.defense(model, x)))
        if rng is not None:
            rng.draw += 1  # what draws next has other numbers
        z = torch.stack(answers)
        if self.combine == "logits":
            return z.mean(dim=0)
        soft = z.log_softmax(dim=2).logsumexp(dim=0) - torch.tensor(float(self.passes)).log().to(z)
        if self.combine == "probabilities":
            return soft
        votes = torch.nn.functional.one_hot(z.detach().argmax(dim=2), z.shape[2]).sum(dim=0)
        return through(((votes.to(z) + 1 / z.shape[2]) / (self.passes + 1)).log(), soft)


def RSE(first: float = 0.2, inner: float = 0.1, passes: int = 10) -> Averaged:  # noqa: N802  (a defense's name)
    """Random self-ensemble: `Averaged(NoiseLayers(first, inner), passes)`, the mean probabilities over noisy passes.

    The paper trains the network with the same noise: `insert_noise`, or the MODEL
    `Defended('SmallCNN()', NoiseLayers())` for `assay train`.

    Args:
        first: standard deviation of the noise before the first convolution.
        inner: before each other convolution.
        passes: how many are averaged.

    References:
        Liu, Cheng, Zhang, Hsieh, "Towards robust neural networks via random self-ensemble", ECCV 2018,
        https://arxiv.org/abs/1712.00673

    Example:
        >>> RSE(passes=5)
        Averaged(NoiseLayers(), passes=5)
    """
    return Averaged(NoiseLayers(first, inner), passes)


def Smoothed(sigma: float = 0.25, draws: int = 100) -> Averaged:  # noqa: N802  (a defense's name)
    """Randomized smoothing: the class of most noisy copies, `Averaged(InputNoise(sigma), draws, "votes")`.

    What comes with a proof is `assay.certify`, which asks often enough to bound the vote.

    Args:
        sigma: standard deviation of the noise, in the unit of the inputs.
        draws: noisy copies of an input.

    References:
        Cohen, Rosenfeld, Kolter, "Certified adversarial robustness via randomized smoothing", ICML 2019,
        https://arxiv.org/abs/1902.02918

    Example:
        >>> Smoothed(0.5, draws=20)
        Averaged(InputNoise(0.5), passes=20, combine='votes')
    """
    return Averaged(InputNoise(sigma), draws, "votes")


def _scores(output: Any) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2 or not output.is_floating_point():
        raise ModelError("Averaged takes means of scores, a (batch, classes) tensor, and the model gives none.")
    return output
