"""Corruptions of images: noise, blur, weather and digital changes at five severities, batched and keyed.

Example:
    >>> import torch
    >>> from assay.corruptions import Fog
    >>> Fog(severity=3)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
"""

from assay.corruptions.base import Corruption
from assay.corruptions.blur import DefocusBlur, GaussianBlur, GlassBlur, MotionBlur, ZoomBlur
from assay.corruptions.digital import ElasticTransform, JPEGCompression, LowContrast, Pixelate, Saturate
from assay.corruptions.noise import GaussianNoise, ImpulseNoise, ShotNoise, SpeckleNoise
from assay.corruptions.select import select
from assay.corruptions.spatter import Spatter
from assay.corruptions.weather import Brighten, Fog, Frost, Snow

__all__ = [
    "Brighten",
    "Corruption",
    "DefocusBlur",
    "ElasticTransform",
    "Fog",
    "Frost",
    "GaussianBlur",
    "GaussianNoise",
    "GlassBlur",
    "ImpulseNoise",
    "JPEGCompression",
    "LowContrast",
    "MotionBlur",
    "Pixelate",
    "Saturate",
    "ShotNoise",
    "Snow",
    "Spatter",
    "SpeckleNoise",
    "ZoomBlur",
    "select",
]
