"""Networks to train, with normalisation inside: inputs lie in [0, 1], outputs are logits or, of some, images."""

from __future__ import annotations

from assay.models.networks.ape_generator import APEGenerator
from assay.models.networks.autoencoder import ConvAutoencoder
from assay.models.networks.generators import ConvGenerator, DenseGenerator
from assay.models.networks.pixelcnn import PixelCNN
from assay.models.networks.preact_resnet import PreActResNet18
from assay.models.networks.small import DigitsMLP, FashionCNN, SmallCNN
from assay.models.networks.wide_resnet import WideResNet

__all__ = [
    "APEGenerator",
    "ConvAutoencoder",
    "ConvGenerator",
    "DenseGenerator",
    "DigitsMLP",
    "FashionCNN",
    "PixelCNN",
    "PreActResNet18",
    "SmallCNN",
    "WideResNet",
]
