"""MagNet: inputs that autoencoders cannot find again are rejected, the rest is answered after one of them."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from assay.defenses.base import Model
from assay.defenses.detector import Detector
from assay.defenses.generative import Autoencoder, called, name_of, trained
from assay.transformations.base import check_range


@final
class MagNet(Detector):
    r"""Two autoencoders: they detect what they cannot find again, and the first reforms what the model sees.

    The answer is that to `A(x)`, and the statistics are

    $$\tfrac1d \lVert A(x) - x \rVert_2^2, \quad \tfrac1d \lVert B(x) - x \rVert_1, \quad
      \operatorname{JSD}\big(\operatorname{softmax} \tfrac{z(x)}{T}, \operatorname{softmax} \tfrac{z(A(x))}{T}\big)$$

    the last, the Jensen-Shannon divergence in nats, for each temperature T.

    Args:
        reformer: the autoencoder A.
        detector: the autoencoder B.
        temperatures: T of each detector of the second kind, above 0.
        thresholds: that of each statistic, in this order; `calibrate` finds them.

    Shapes:
        as the autoencoders.

    Raises:
        SettingError: a setting is out of range, or names no autoencoder; on a call, there are no thresholds.
        ModelError: an autoencoder cannot be loaded.

    Deviations:
        The paper has the detectors of reconstruction for MNIST, and those of divergence besides one of them for
        CIFAR-10; here all are there at once, without the latter where `temperatures=()`.

    References:
        Meng, Chen, "MagNet: a two-pronged defense against adversarial examples", CCS 2017,
        https://arxiv.org/abs/1705.09064
        Broken by: Carlini, Wagner, "MagNet and 'Efficient defenses against adversarial attacks' are not robust to
        adversarial examples", 2017, https://arxiv.org/abs/1711.08478

    Example:
        >>> defense = MagNet(thresholds=(0.01, 0.1, 0.05, 0.05))
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        >>> defense(network, torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 11])
    """

    def __init__(
        self,
        reformer: str | nn.Module = "fashion-ae-1",
        detector: str | nn.Module = "fashion-ae-2",
        temperatures: tuple[float, ...] = (10.0, 40.0),
        thresholds: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        self.temperatures = tuple(
            check_range("MagNet", "temperatures", each, 1e-6, float("inf")) for each in temperatures
        )
        self.thresholds = self.checked(thresholds)
        self.first = trained("MagNet", "reformer", reformer, Autoencoder)  # type: ignore[type-abstract]
        self.second = trained("MagNet", "detector", detector, Autoencoder)  # type: ignore[type-abstract]
        self.reformer, self.detector = name_of(reformer), name_of(detector)

    @property
    def statistics(self) -> tuple[str, ...]:
        """What each statistic is called."""
        return "squared error", "absolute error", *(f"divergence at {each:g}" for each in self.temperatures)

    def judged(self, model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
        """The statistics, and the answer to the reformed inputs."""
        reformed, other = called(self.first, x), called(self.second, x)
        scores = [(reformed - x).square().flatten(1).mean(dim=1), (other - x).abs().flatten(1).mean(dim=1)]
        logits = model(reformed)
        if self.temperatures:
            plain = model(x)
            scores += [_divergence(plain / each, logits / each) for each in self.temperatures]
        return torch.stack(scores, dim=1), logits


def _divergence(z: Tensor, other: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of two distributions, by their logits; `(b,)`, in nats."""
    p, q = z.log_softmax(dim=1), other.log_softmax(dim=1)
    middle = torch.logaddexp(p, q) - math.log(2)
    return (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(dim=1) / 2
