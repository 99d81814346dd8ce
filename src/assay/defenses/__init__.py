"""What protects a model at test time, and how attacks get through it."""

from assay.defenses.ape_gan import APEGANDefense
from assay.defenses.averaged import RSE, Averaged, Smoothed
from assay.defenses.base import Defense, InputDefense, through, with_rejection
from assay.defenses.defense_gan import DefenseGAN
from assay.defenses.denoising import MedianFilter, TotalVariation
from assay.defenses.detector import Detector
from assay.defenses.distilled import Distilled
from assay.defenses.magnet import MagNet
from assay.defenses.noise import InputNoise, NoiseLayers, insert_noise
from assay.defenses.pixel_defend import DensityDetector, PixelDefend, p_values
from assay.defenses.quantisation import BitDepth, Thermometer
from assay.defenses.reconstruction_detector import ReconstructionDetector
from assay.defenses.resize_pad import RandomResizePad
from assay.defenses.transformed import JPEGDefense, Transformed

__all__ = [
    "RSE",
    "APEGANDefense",
    "Averaged",
    "BitDepth",
    "Defense",
    "DefenseGAN",
    "DensityDetector",
    "Detector",
    "Distilled",
    "InputDefense",
    "InputNoise",
    "JPEGDefense",
    "MagNet",
    "MedianFilter",
    "NoiseLayers",
    "PixelDefend",
    "RandomResizePad",
    "ReconstructionDetector",
    "Smoothed",
    "Thermometer",
    "TotalVariation",
    "Transformed",
    "insert_noise",
    "p_values",
    "through",
    "with_rejection",
]
