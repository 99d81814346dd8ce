"""Networks to train, with normalisation inside: inputs lie in [0, 1], outputs are logits."""

from __future__ import annotations

from assay.models.networks.preact_resnet import PreActResNet18
from assay.models.networks.small import DigitsMLP, FashionCNN, SmallCNN
from assay.models.networks.wide_resnet import WideResNet

__all__ = ["DigitsMLP", "FashionCNN", "PreActResNet18", "SmallCNN", "WideResNet"]
