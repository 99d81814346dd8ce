"""Random transformations of images, differentiable and keyed, and the expectation over them."""

from assay.transformations.base import Transformation
from assay.transformations.eot import EOT
from assay.transformations.jpeg import JPEG
from assay.transformations.light import Brightness, ColourResponse, Contrast, Noise
from assay.transformations.optics import Blur, Resample
from assay.transformations.pose import Perspective, Rotate, Scale, Translate

__all__ = [
    "EOT",
    "JPEG",
    "Blur",
    "Brightness",
    "ColourResponse",
    "Contrast",
    "Noise",
    "Perspective",
    "Resample",
    "Rotate",
    "Scale",
    "Transformation",
    "Translate",
]
